"""Data sets in the layouts that are public, and what does not fit in them."""

from pathlib import Path

import numpy as np
import pytest

from dloral.errors import DLoRALError, InputError, OptionError
from dloral.evaluation.datasets import DataSet, find_dataset

PIXEL = b"\x89PNG\r\n\x1a\n"  # files are listed here, not read


def lay(root: Path, *folders: str) -> Path:
    for folder in folders:
        path = root / folder
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
            continue
        path.mkdir(parents=True)
        (path / "00000000.png").write_bytes(PIXEL)
    return root


def places(found: DataSet) -> dict[str, tuple[str, str]]:
    def place(frames: object) -> str:
        return frames.path.parent.name + "/" + frames.path.name if frames else ""

    return {clip.name: (place(clip.hq), place(clip.lq)) for clip in found.clips}


LAYOUTS = {
    "UDM10": (["GT/arch", "GT/auto", "BIx4/arch", "BIx4/auto", "BDx4/arch", "BDx4/auto"],
              {"arch": ("GT/arch", "BDx4/arch"), "auto": ("GT/auto", "BDx4/auto")}),
    "udm10": (["arch/truth", "arch/blur4", "auto/truth", "auto/blur4"],
              {"arch": ("arch/truth", "arch/blur4"), "auto": ("auto/truth", "auto/blur4")}),
    "SPMCS": (["car05_001/truth", "car05_001/input2", "car05_001/input4"],
              {"car05_001": ("car05_001/truth", "car05_001/input4")}),
    "REDS4": (["GT/000", "GT/011", "sharp_bicubic/000", "sharp_bicubic/011"],
              {"000": ("GT/000", "sharp_bicubic/000"), "011": ("GT/011", "sharp_bicubic/011")}),
    "REDS": (["train_sharp/000", "train_sharp_bicubic/X4/000"],
             {"000": ("train_sharp/000", "X4/000")}),
    "RealVSR": (["GT_test/000", "LQ_test/000"], {"000": ("GT_test/000", "LQ_test/000")}),
    "VideoLQ": (["Input/000", "Input/001"], {"000": ("", "Input/000"), "001": ("", "Input/001")}),
    "VideoLQ4": (["013", "041"], {"013": ("", "VideoLQ4/013"), "041": ("", "VideoLQ4/041")}),
    "DOVE": (["GT/a", "GT-Video/a.mp4", "LQ/a", "LQ-Video/a.mp4"], {"a": ("GT/a", "LQ/a")}),
    "videos": (["a.mp4", "b.mkv", "notes.txt"],
               {"a": ("videos/a.mp4", ""), "b": ("videos/b.mkv", "")}),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_public_layouts(name: str, tmp_path: Path) -> None:
    folders, expected = LAYOUTS[name]
    found = find_dataset(lay(tmp_path / name, *folders))
    assert places(found) == expected
    assert not any(clip.problem for clip in found.clips)


def test_clips_without_a_partner_are_truth_or_low_quality(tmp_path: Path) -> None:
    folder = lay(tmp_path / "mine", "a", "b")
    assert places(find_dataset(folder))["a"] == ("mine/a", "")
    assert places(find_dataset(folder, "lq"))["a"] == ("", "mine/a")
    assert list(places(find_dataset(folder, only=["b"]))) == ["b"]
    assert places(find_dataset(folder / "a")) == {"a": ("mine/a", "")}


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["GT/a", "GT/b", "LQ/a", "LQ/b_x4"], {"b": "not in LQ", "b_x4": "not in GT"}),
        (["a/truth", "a/blur4", "b/truth", "c/x"], {"b": "no low-quality", "c": "neither truth"}),
    ],
)
def test_what_does_not_fit_is_said_per_clip(
    folders: list[str], expected: dict[str, str], tmp_path: Path
) -> None:
    found = find_dataset(lay(tmp_path / "set", *folders))
    problems = {clip.name: clip.problem for clip in found.clips if clip.problem}
    assert problems.keys() == expected.keys()
    for name, text in expected.items():
        assert text in problems[name]


def test_packs_and_their_sources(tmp_path: Path) -> None:
    for name, manifest in (("one", '{"clips": ["p.jpg", "p.jpg", "q.jpg"]}'), ("two", "{}")):
        folder = tmp_path / name
        folder.mkdir()
        np.save(folder / "hq.npy", np.zeros((3, 2, 3, 16, 16), np.uint8))
        np.save(folder / "lq.npy", np.zeros((3, 2, 3, 4, 4), np.uint8))
        (folder / "manifest.json").write_text(manifest)
    assert [clip.source for clip in find_dataset(tmp_path / "one").clips] == [
        *("p.jpg", "p.jpg", "q.jpg")
    ]
    both = find_dataset(tmp_path)
    assert [clip.name for clip in both.clips][2:4] == ["one-2", "two-0"]
    assert both.clips[3].source == "two-0"
    np.save(tmp_path / "two" / "lq.npy", np.zeros((2, 2, 3, 4, 4), np.uint8))
    assert "make the pack again" in find_dataset(tmp_path).clips[3].problem


def test_sources_by_name(tmp_path: Path) -> None:
    folder = lay(tmp_path / "set", "car_001", "car_002", "tree")
    found = find_dataset(folder, sources=r"(.*)_\d+")
    assert [clip.source for clip in found.clips] == ["car", "car", "tree"]


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ({"folder": "absent"}, InputError, "does not exist"),
        ({"folder": "empty"}, InputError, "holds no clip"),
        ({"kind": "lr"}, OptionError, "choose from auto, truth, lq"),
        ({"only": ["z"]}, OptionError, "choose from a"),
        ({"sources": "("}, OptionError, "not a regular expression"),
        ({"sources": "a"}, OptionError, "no group"),
    ],
)
def test_wrong_calls(
    arguments: dict[str, object], kind: type[DLoRALError], said: str, tmp_path: Path
) -> None:
    lay(tmp_path, "set/a")
    (tmp_path / "empty").mkdir()
    folder = tmp_path / str(arguments.pop("folder", "set"))
    with pytest.raises(kind) as caught:
        find_dataset(folder, **arguments)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
