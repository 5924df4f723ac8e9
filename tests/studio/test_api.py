"""The named endpoints, called over HTTP: the same result as the command line's, to the bit."""

import filecmp
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from dloral.errors import InputError
from dloral.studio.api import CLIP, ENDPOINTS, frame_of
from dloral.video.probe import probe
from dloral.video.reader import read_frames
from tests.studio.conftest import ROOT, serving, wait_until, write_clip


@pytest.fixture(scope="module")
def address(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tiny_model, tmp_path_factory.mktemp("api"), "--max-minutes", "0.1") as served:
        yield served


def run(*call: str) -> str:
    done = subprocess.run(
        [sys.executable, *call], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout


def test_the_example_script_makes_what_the_command_line_makes(address, tiny_model, clip, tmp_path):
    by_page, by_command = tmp_path / "page.mp4", tmp_path / "command.mp4"
    chosen = ("--scale", "2", "--detail", "0.5", "--duration", "0.8")
    said = run("examples/page_client.py", str(clip), str(by_page), "--url", address, *chosen)
    assert f"wrote {by_page}, 96 x 64, 8 frames" in said
    call = ("-m", "dloral", "upscale", str(clip), "-o", str(by_command), "--quiet")
    run(*call, "--model", str(tiny_model), *chosen)
    assert filecmp.cmp(by_page, by_command, shallow=False)


def test_a_previewed_frame_is_the_runs_frame(address, clip):
    page = Client(address, verbose=False)
    given = handle_file(str(clip))
    shown = page.predict(given, frame=5, scale=2.0, api_name="/preview_frame")
    made = page.predict(given, scale=2.0, format="ffv1", api_name="/upscale")
    with read_frames(made) as frames:
        frame = [frame.pixels for frame in frames][5]
    picture = np.asarray(Image.open(io.BytesIO(Path(shown).read_bytes())))
    assert np.array_equal(picture, (frame.permute(1, 2, 0) * 255).round().numpy())


def test_what_a_result_cannot_keep_is_told_before_and_after(address, tmp_path):
    """How many frames a GIF leaves out is only known afterwards."""
    page = Client(address, verbose=False)
    given = handle_file(str(write_clip(tmp_path / "fast.mp4", 6, rate=60, sound=True)))
    chosen = {"scale": 2.0, "format": "gif"}
    planned = page.predict(given, **chosen, api_name="/plan")
    file, made = page.predict(given, **chosen, api_name="/upscale_with_notes")
    seconds = planned.pop("seconds")
    assert seconds is None or 0 < seconds[0] <= seconds[1]
    always = ["a GIF has 256 colours a frame", "a picture keeps no sound"]
    some = "a GIF shows no more than 50 frames a second: some are left out"
    assert sorted(planned.pop("notes")) == sorted([*always, some])
    counted = "2 frames left out: a GIF shows no more than 50 a second"
    assert made.pop("notes") == [*always, counted]
    assert planned == made == {"width": 96, "height": 64, "frames": 6, "format": "gif"}
    assert probe(file).width == 96


def test_a_plan_says_when_a_picture_becomes_a_png_and_refuses_what_a_run_would(
    address, picture, long_clip
):
    page = Client(address, verbose=False)
    planned = page.predict(handle_file(str(picture)), api_name="/plan")
    assert (planned["width"], planned["frames"], planned["format"]) == (132, 1, "png")
    for chosen, said in (({}, "exceeds the limit of 6.0 s"), ({"start": 999.0}, "start earlier")):
        with pytest.raises(AppError, match=said):
            page.predict(handle_file(str(long_clip)), **chosen, api_name="/plan")


def test_a_size_and_the_way_of_deinterlacing_may_be_chosen(address, clip):
    page = Client(address, verbose=False)
    chosen = {"fit": "100x96", "deinterlace": "field", "duration": 0.2}
    made = probe(page.predict(handle_file(str(clip)), **chosen, api_name="/upscale"))
    source = probe(clip)
    assert (made.width, made.height) == (100, 66)
    assert made.fps == 2 * source.fps


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"scale": 9.0}, "scale is 9"),
        ({"format": "avi"}, "format is 'avi'"),
        ({"window": 2}, "window is 2"),
        ({"fit": "large"}, "give width x height"),
        ({"deinterlace": "yes"}, "deinterlace is 'yes'"),
        ({"start": 99.0}, "the start is 99; start earlier"),
    ],
)
def test_mistakes_are_answered_in_one_line(address, clip, chosen, said):
    page = Client(address, verbose=False)
    with pytest.raises(AppError, match=said) as caught:
        page.predict(handle_file(str(clip)), **chosen, api_name="/upscale")
    assert "\n" not in str(caught.value)
    assert "/tmp" not in str(caught.value)


def test_limits_and_bad_files_hold_for_the_api_too(address, no_clip, long_clip):
    page = Client(address, verbose=False)
    refused = (
        (no_clip, "is not a readable video or image"),
        (long_clip, "exceeds the limit of 6.0 s"),
    )
    for path, said in refused:
        with pytest.raises(AppError, match=said):
            page.predict(handle_file(str(path)), scale=1.0, api_name="/upscale")


FILE_DATA = {"meta": {"_type": "gradio.FileData"}}
FILE = {"path": "PATH", **FILE_DATA}


def uploaded(address: str, clip: Path) -> dict[str, object]:
    """The clip, as a call gives it."""
    with clip.open("rb") as file:
        answer = httpx.post(f"{address}gradio_api/upload", files={"files": file})
    return FILE | {"path": answer.json()[0]}


def answered(address: str, given: dict[str, object], call: str = "preview_frame") -> Any:
    """The last event that a caller by curl reads, and its data."""
    url = f"{address}gradio_api/call/"
    event = httpx.post(f"{url}v2/{call}", json=given).json()["event_id"]
    text = httpx.get(f"{url}{call}/{event}", timeout=60).text
    kind, _, data = text.rpartition("event: ")[2].partition("\ndata: ")
    return kind, json.loads(data)


@pytest.mark.parametrize("path", ["CLIP", "/etc/passwd", "../../../etc/passwd"])
def test_a_path_that_was_not_uploaded_is_refused(address, clip, path):
    stolen = {"path": path.replace("CLIP", str(clip)), **FILE_DATA}
    kind, answer = answered(address, {"clip": stolen})
    assert kind == "error"
    assert answer["error"].startswith("clip is not a file of this server; upload it")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"clip": {"path": "PATH"}}, "clip is not a file; give {"),
        ({"clip": "PATH"}, "clip is not a file; give {"),
        ({"clip": 5}, "clip is not a file; give {"),
        ({"clip": None}, "no clip was given"),
        ({"clip": FILE, "frame": "a"}, "frame is 'a'; give a number"),
        ({"clip": FILE, "window": "1"}, "window is '1'; give a number"),
        ({"clip": FILE, "scale": [2]}, "scale is '[2]'; give a number"),
        (
            {"clip": {"path": "http://127.0.0.1:9/a.mp4", **FILE_DATA}},
            "127.0.0.1 cannot be fetched",
        ),
    ],
)
def test_values_of_the_wrong_type_are_said_in_one_line(address, clip, given, said):
    text = json.dumps(given).replace("PATH", uploaded(address, clip)["path"])
    error = answered(address, json.loads(text))[1]["error"]
    assert said in error
    assert "\n" not in error


@pytest.mark.parametrize("call", ["upscale", "preview_frame"])
def test_null_means_the_default(address, tmp_path, call):
    given = {"clip": uploaded(address, write_clip(tmp_path / "bar.mp4", 2))}
    nulls = dict.fromkeys(parameter.name for parameter in ENDPOINTS[call] if parameter != CLIP)
    files = []
    for more in ({}, nulls):
        kind, answer = answered(address, given | more, call)
        assert kind == "complete", answer
        files.append(httpx.get(answer[0]["url"]).content)
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("source", "frame", "said"),
    [
        ("clip", -1, "frame is -1, and bar.mp4 has 12 frames; give 0 to 11"),
        ("clip", 12, "frame is 12, and bar.mp4 has 12 frames; give 0 to 11"),
        ("picture", 1, "frame is 1, and photo.png has 1 frame; give 0"),
    ],
)
def test_a_frame_that_the_clip_does_not_have_is_refused(address, request, source, frame, said):
    given = {"clip": uploaded(address, request.getfixturevalue(source)), "frame": frame}
    kind, answer = answered(address, given)
    assert (kind, answer["error"]) == ("error", said)


def test_where_frames_cannot_be_counted_any_that_is_there_is_shown(clip):
    unknown = replace(probe(clip), num_frames=None)
    assert frame_of(unknown, 7) == 7
    with pytest.raises(InputError, match=r"^frame is -1; give 0 or more$"):
        frame_of(unknown, -1)


@pytest.mark.parametrize(
    ("call", "body", "said"),
    [
        ("preview_frame", b"{}", "no clip was given"),
        ("preview_frame", b'{"clip": null, "sclae": 2}', "has no parameter 'sclae'; choose from"),
        ("preview_frame", b"[]", "the request is not a JSON object"),
        ("preview_frame", b"scale=2", "the request is not a JSON object"),
        ("upscael", b"{}", "there is no call /upscael; choose from /upscale"),
    ],
)
def test_names_that_do_not_exist_are_said(address, call, body, said):
    url, kind = f"{address}gradio_api/call/v2/{call}", {"content-type": "application/json"}
    answer = httpx.post(url, content=body, headers=kind)
    assert answer.status_code in (404, 422)
    assert said in answer.json()["error"]


def test_a_call_with_too_few_values_says_so(address):
    call = f"{address}gradio_api/call/preview_frame"
    event = httpx.post(call, json={"data": [None, 0]}).json()["event_id"]
    assert "the call has 2 values; give all 10" in httpx.get(f"{call}/{event}").text


def test_models_says_which_is_in_use(address, tiny_model):
    found = Client(address, verbose=False).predict(api_name="/models")
    assert [model["name"] for model in found if model["in_use"]] == [tiny_model.name]
    assert "compact" in [model["name"] for model in found]


def jobs_of(address: str) -> int:
    lines = httpx.get(f"{address}metrics").text.splitlines()
    return int(next(line for line in lines if line.startswith("dloral_jobs_wait")).split()[1])


def test_a_caller_who_goes_takes_the_job_along(address, tmp_path):
    """One that runs, and one that waits behind it; files too, which ``serving`` looks for."""
    clip = write_clip(tmp_path / "clip.mp4", 350, width=192, height=128, rate=60)
    data = [uploaded(address, clip), 4.0, 1.0, 1.0, 1.0, 1, ""]
    data += ["auto", "auto", 0.0, None, "h264", "auto", None, None]
    call = f"{address}gradio_api/call/upscale"
    with httpx.Client() as client, ExitStack() as streams:
        for waiting in (1, 2):
            event = client.post(call, json={"data": data}).json()["event_id"]
            streams.enter_context(client.stream("GET", f"{call}/{event}"))
            wait_until(lambda waiting=waiting: jobs_of(address) == waiting)
        assert jobs_of(address) == 2  # while somebody listens
    wait_until(lambda: not jobs_of(address), 20)
    assert jobs_of(address) == 0
