"""How the page starts: its options, its examples, and calls that cannot be served."""

import runpy
import socket
import sys
from pathlib import Path

import pytest

from dloral.errors import OptionError
from dloral.studio.server import build_page, build_parser, example_clips, launch_page
from dloral.studio.sessions import Model, Sessions
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
    blocks = build_page(Sessions(tmp_path), Model("compact"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        options = build_parser().parse_args(["--port", str(taken.getsockname()[1])])
        with pytest.raises(OptionError, match="the page cannot be served") as caught:
            launch_page(blocks, options)
    assert "\n" not in str(caught.value)


def test_the_examples_are_clips():
    clips = example_clips()
    assert len(clips) == 3
    assert all(probe(path).kind == "video" for path in clips)


def test_no_handler_is_open_to_other_programs(tmp_path: Path):
    """What the page does for a visitor is not an API: that is a later, named set of calls."""
    blocks = build_page(Sessions(tmp_path), Model("compact"))
    assert not blocks.get_api_info()["named_endpoints"]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_options_are_read(host: str):
    options = build_parser().parse_args(["--host", host, "--max-upload", "2gb", "--share"])
    assert (options.host, options.max_upload, options.share) == (host, "2gb", True)
