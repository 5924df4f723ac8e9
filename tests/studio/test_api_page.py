"""The API's page for people: it says what the calls take, and its examples work when pasted."""

import re
import shutil
import subprocess
import sys
from ast import literal_eval
from html import unescape
from pathlib import Path

import httpx
import pytest
from PIL import Image

from dloral.studio.api import ENDPOINTS
from dloral.studio.api_page import api_page
from dloral.studio.limits import Limits
from dloral.video.probe import probe


def examples(text: str, name: str) -> tuple[str, str]:
    """Those in Python and for a shell."""
    section = text[text.index(f'<section id="{name}">') :]
    python, shell, *_ = re.findall("<pre[^>]*>(.*?)</pre>", section, re.S)
    return unescape(python), unescape(shell)


def test_every_call_is_there_with_its_parameters_and_the_servers_limits():
    text = api_page("http://here:7860", Limits(500_000_000, 2, 8_000_000, 3))
    for name, parameters in ENDPOINTS.items():
        section = text[text.index(f'<section id="{name}">') :].partition("</section>")[0]
        said = re.findall('<th scope="row"><code>(.*?)</code>', section)
        assert said == [parameter.name for parameter in parameters]
        assert all("http://here:7860" in code for code in examples(text, name))
    assert "500 MB" in text
    assert "Up to 2:00 min of a clip" in text
    assert "8 million pixels" in text
    assert "Runs estimated to take more than 3" in text
    assert "at once" not in api_page("http://here", Limits(1))


def test_an_address_that_somebody_made_up_stays_text():
    text = api_page('http://a"><script>alert(1)</script>', Limits(1))
    assert "<script>" not in text


@pytest.mark.parametrize("how", ["python", "curl"])
def test_the_examples_work_when_they_are_pasted(address, clip, tmp_path, how):
    text = httpx.get(f"{address}studio/api").text
    shutil.copy(clip, tmp_path / "clip.mp4")
    made = {}
    for name in ENDPOINTS:
        python, shell = examples(text, name)
        call = [sys.executable, "-c", python] if how == "python" else ["bash", "-eu", "-c", shell]
        said = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert said.returncode == 0, said.stderr
        made[name] = said.stdout
    assert "in_use" in made["models"]
    assert "'frames': 10" in made["plan"].replace('"', "'")
    clips, frames = tmp_path / "restored.mp4", tmp_path / "frame.png"
    if how == "python":
        lines = {name: said.strip().splitlines()[-1] for name, said in made.items()}
        assert literal_eval(lines["upscale_with_notes"])[1]["frames"] == 10
        clips, frames = Path(lines["upscale"]), Path(lines["preview_frame"])
    assert (probe(clips).width, probe(clips).num_frames) == (96, 10)
    assert Image.open(frames).size == (96, 64)


def test_nothing_on_it_comes_from_elsewhere():
    text = api_page("http://here:7860", Limits(1))
    loaded = re.findall(r'(?:src|href)="(.*?)"', text)
    assert not [one for one in loaded if one.startswith(("http", "//"))]
