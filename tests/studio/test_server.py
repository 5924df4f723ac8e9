"""How the page starts: options, environment, who is told what, and calls that cannot be served."""

import runpy
import socket
import sys
import threading
import types
from pathlib import Path

import pytest

from dloral import cli
from dloral.errors import OptionError, WeightsError
from dloral.studio import launch
from dloral.studio.api import ENDPOINTS
from dloral.studio.gpu import on_gpu
from dloral.studio.runtime import FairLock
from dloral.studio.server import (
    build_page,
    build_parser,
    build_studio,
    bytes_of_size,
    check,
    chosen_port,
    example_clips,
    launch_page,
    open_to_all,
)
from dloral.video.probe import probe

ROOT = Path(__file__).parents[2]


def test_a_wrong_model_is_said_at_once_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["app.py", "--model", "nonsense"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "app.py"), run_name="__main__")
    assert str(caught.value).startswith("app.py: model 'nonsense' is unknown")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_port_that_is_taken_is_said_in_one_line(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        options = build_parser().parse_args(["--port", str(taken.getsockname()[1])])
        studio = build_studio(tmp_path, options)
        with pytest.raises(OptionError, match="the page cannot be served") as caught:
            launch_page(build_page(studio), studio, options)
    assert "\n" not in str(caught.value)


def test_the_examples_are_clips():
    clips = example_clips()
    assert list(clips) == ["people", "butterfly", "film", "city"]
    assert all(probe(path).kind == "video" for path in clips.values())


def test_the_named_calls_are_open_to_other_programs_and_no_more(tmp_path: Path):
    studio = build_studio(tmp_path, build_parser().parse_args([]))
    info = build_page(studio).get_api_info()
    assert set(info["named_endpoints"]) == {f"/{name}" for name in ENDPOINTS}
    assert {"/upscale", "/plan", "/preview_frame"} < set(info["named_endpoints"])
    assert not info["unnamed_endpoints"]
    names = [p["parameter_name"] for p in info["named_endpoints"]["/upscale"]["parameters"]]
    assert names[:5] == ["clip", "scale", "consistency", "detail", "strength"]


def test_options_are_read_and_the_environment_gives_their_defaults(monkeypatch):
    monkeypatch.setenv("DLORAL_MAX_MINUTES", "2.5")
    monkeypatch.setenv("DLORAL_QUEUE", "3")
    monkeypatch.setenv("DLORAL_SHARE", "1")
    monkeypatch.setenv("DLORAL_AUTH", "a:b")
    options = build_parser().parse_args(["--queue", "7", "--host", "0.0.0.0", "--mcp"])
    assert (options.max_minutes, options.queue, options.share) == (2.5, 7, True)
    assert (options.host, options.auth, options.mcp) == ("0.0.0.0", "a:b", True)


@pytest.mark.parametrize(
    "call",
    [
        ["--auth", "me"],
        ["--auth", ":x"],
        ["--max-minutes", "0"],
        ["--queue", "-1"],
        ["--max-upload", "much"],
        ["--port", "99999"],
        ["--port", "65536"],
        ["--port", "0"],
        ["--port", "-1"],
    ],
)
def test_options_that_make_no_sense_are_said_in_one_line(call):
    with pytest.raises(OptionError) as caught:
        check(build_parser().parse_args(call))
    assert "\n" not in str(caught.value)
    assert call[0] in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"), [("500mb", 5 * 10**8), ("2GB", 2 * 10**9), ("1.5k", 1500), ("77", 77)]
)
def test_sizes(text, size):
    assert bytes_of_size(text) == size


@pytest.mark.parametrize(
    ("host", "is_shared", "has_password", "is_loud"),
    [
        ("127.0.0.1", False, False, False),
        ("0.0.0.0", False, False, True),
        ("127.0.0.1", True, False, True),
        ("0.0.0.0", True, True, True),
        ("127.0.0.1", True, True, False),
    ],
)
def test_what_strangers_can_reach_is_said_loudly(host, is_shared, has_password, is_loud):
    said = open_to_all(host, is_shared, has_password)
    assert bool(said) == is_loud
    assert said is None or "WARNING" in said
    assert has_password or said is None or "--auth" in said


def test_a_password_over_plain_http_is_warned_of():
    assert "plain HTTP" in (open_to_all("0.0.0.0", False, True) or "")
    assert "plain HTTP" in (open_to_all("0.0.0.0", True, True) or "")  # beside a link of HTTPS
    assert open_to_all("127.0.0.1", False, True) is None


def test_zerogpu_is_used_where_its_package_is(monkeypatch: pytest.MonkeyPatch):
    """The package is only to be had on Spaces: a stand-in shows that calls go through it."""
    asked: list[int] = []

    def lend(duration: int):
        asked.append(duration)
        return lambda call: lambda *given: ("on a GPU", call(*given))

    assert on_gpu(5)(abs)(-3) == 3
    monkeypatch.setitem(sys.modules, "spaces", types.SimpleNamespace(GPU=lend))
    assert on_gpu(5)(abs)(-3) == ("on a GPU", 3)
    assert asked == [5]


def test_turns_are_taken_in_the_order_of_asking():
    turns, order = FairLock(), []

    def ask(name: int) -> None:
        with turns.take():
            order.append(name)

    with turns.take():
        threads = []
        for name in range(5):
            threads.append(threading.Thread(target=ask, args=(name,)))
            threads[-1].start()
            while turns._given < name + 2:
                pass
    for thread in threads:
        thread.join(5)
    assert order == list(range(5))


@pytest.mark.parametrize("variable", ["DLORAL_PORT", "PORT", "GRADIO_SERVER_PORT"])
@pytest.mark.parametrize("port", ["99999", "-1", "0"])
def test_a_port_from_the_environment_is_checked(variable: str, port: str, monkeypatch):
    for name in ("DLORAL_PORT", "PORT", "GRADIO_SERVER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, port)
    with pytest.raises(OptionError, match=f"PORT is {port}|--port is {port}") as caught:
        check(build_parser().parse_args([]))
    assert "\n" not in str(caught.value)


def test_a_typed_port_comes_first(monkeypatch):
    monkeypatch.setenv("PORT", "8000")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "9000")
    assert chosen_port(build_parser().parse_args(["--port", "7000"])) == 7000
    assert chosen_port(build_parser().parse_args([])) == 8000
    monkeypatch.setenv("PORT", "http")
    with pytest.raises(OptionError, match="PORT is http"):
        chosen_port(build_parser().parse_args([]))
    monkeypatch.delenv("PORT")
    assert chosen_port(build_parser().parse_args([])) is None


def test_the_folder_for_uploads_is_made(monkeypatch, tmp_path: Path):
    place = tmp_path / "new" / "uploads"
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(place))
    with pytest.raises(WeightsError, match="'nonsense' is unknown"):
        launch(["--model", "nonsense"])
    assert place.is_dir()
    assert not list(place.iterdir())


def test_a_folder_that_cannot_be_made_is_one_line(monkeypatch, tmp_path: Path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "file" / "uploads"))
    with pytest.raises(
        OptionError, match="uploads: not a directory; set GRADIO_TEMP_DIR"
    ) as caught:
        launch(["--model", "nonsense"])
    assert "\n" not in str(caught.value)


def test_the_commands_options_are_the_pages(monkeypatch, tmp_path: Path, capsys):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    for call in (["--port", "99999"], ["--model", "compact", "--port=99999"]):
        assert cli.main(["app", *call]) == 2
        assert capsys.readouterr().err.startswith("dloral: --port is 99999")
    for word in ("--help", "-h"):
        with pytest.raises(SystemExit) as ended:
            cli.main(["app", word])
        assert not ended.value.code
        printed = capsys.readouterr().out
        assert printed.startswith("usage: dloral app ")
        assert "DLORAL_MAX_UPLOAD" in printed
