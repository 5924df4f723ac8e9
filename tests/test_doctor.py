"""``dloral doctor``: a line for each part, what to do, and the status."""

import json

import pytest
import torch

from dloral import doctor
from dloral.cli import main
from dloral.doctor import BROKEN, NOTE, OK, Finding, as_text


def test_this_installation_is_found_to_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    told = {finding["name"]: finding for finding in found}
    names = {"torch", "auto", "ffmpeg", "encoders", "compact", "sd21", "models", "memory", "[page]"}
    assert names <= set(told)
    assert told["torch"]["found"] == torch.__version__
    assert "h264" in told["encoders"]["found"]
    assert "restores a frame" in told["compact"]["found"]
    assert told["sd21"]["remedy"] == "to get it: dloral fetch sd21"
    assert BROKEN not in {finding["state"] for finding in found}


def test_something_broken_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def _weather() -> list[Finding]:
        raise RuntimeError("raining\ncats")

    monkeypatch.setattr(doctor, "CHECKS", (_weather, doctor._memory))
    assert main(["doctor"]) == 1
    told = capsys.readouterr()
    assert told.err == "dloral: weather cannot be checked: raining; see weather above\n"
    assert "X weather    cannot be checked: raining" in told.out
    assert "free of" in told.out  # the next check was made all the same


def test_a_missing_codec_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dloral.video.encoders._writable_formats", lambda library: frozenset())
    states = [(finding.name, finding.state) for finding in doctor._ffmpeg()]
    assert ("encoders", BROKEN) in states


def test_little_memory_and_missing_packages_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dloral.memory.free_memory", lambda place: 10**9)
    memory = doctor._memory()[0]
    assert (memory.state, memory.found[:11]) == (NOTE, "1.0 GB free")
    monkeypatch.setattr("dloral.packages.find_spec", lambda name: None)
    page = doctor._extras()[0]
    assert (page.name, page.state) == ("[page]", NOTE)
    assert page.remedy.startswith("python -m pip install ")


def test_the_table_is_aligned() -> None:
    lines = as_text([Finding("a", OK, "one"), Finding("longer", NOTE, "two", "do it")])
    assert lines.splitlines() == ["  a       one", "! longer  two", "          -> do it"]
