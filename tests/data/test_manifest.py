"""What is held out: found under any name, in folders, in packs, in films from a frame on."""

from fractions import Fraction
from pathlib import Path

import pytest

from dloral.data.manifest import Entry, HeldOut, list_files, save_manifest
from dloral.data.packs import Pack
from dloral.data.sources import Sources, Window
from dloral.errors import InputError
from dloral.video.probe import probe


@pytest.fixture
def held_out(photos: Path, tmp_path: Path) -> HeldOut:
    """``1.png``, read back from its list."""
    save_manifest(list_files([photos / "1.png"]), tmp_path / "list.json")
    return HeldOut.load(tmp_path / "list.json")


def test_a_copy_under_another_name_is_left_out(photos: Path, tmp_path: Path, held_out: HeldOut):
    copy = tmp_path / "other.jpg"
    copy.write_bytes((photos / "1.png").read_bytes())
    sources = Sources((photos / "0.png", copy))
    assert held_out.exclude(sources).photos == (photos / "0.png",)
    assert held_out.exclude(sources).left_out == {"other.jpg": "held out: never trained on"}
    assert held_out.only(sources).photos == (copy,)
    with pytest.raises(InputError, match=r"other.jpg is held out \(list.json\)") as caught:
        held_out.refuse(sources)
    assert caught.value.path == copy
    held_out.refuse(Sources((photos / "0.png",)))


def test_a_file_of_the_same_size_is_not_held_out(photos: Path, tmp_path: Path, held_out: HeldOut):
    changed = bytearray((photos / "1.png").read_bytes())
    changed[-1] ^= 1
    (tmp_path / "changed.png").write_bytes(changed)
    assert held_out.entry(tmp_path / "changed.png") is None


def test_a_folder_of_frames_is_held_out_with_one_of_its_frames(photos: Path, held_out: HeldOut):
    window = Window(probe(photos), Fraction(0))
    assert not held_out.exclude(Sources(windows=(window,))).windows
    assert held_out.exclude(Sources(windows=(window,))).left_out.keys() == {photos.name}


def test_a_film_is_held_out_from_a_frame_on(photos: Path, held_out: HeldOut):
    """Folders are shown at 24 frames a second."""
    clip = probe(photos)
    windows = tuple(Window(clip, Fraction(n)) for n in range(4))
    (entry,) = held_out.entries
    for where in ({"from_frame": 48}, {"from_second": 2.0}):
        film = HeldOut([Entry(entry.name, entry.bytes, entry.sha256, **where)])
        kept = film.exclude(Sources(windows=windows), frames=24)
        assert [window.start for window in kept.windows] == [0, 1]
        assert not kept.left_out  # part of it is used
        # The clip from 1 s on reaches into what is held out with its last frame.
        late = film.exclude(Sources(windows=windows), frames=25)
        assert [window.start for window in late.windows] == [0]
        assert [w.start for w in film.only(Sources(windows=windows), 24).windows] == [2, 3]


def test_a_pack_of_it_is_refused(packs: Path, tmp_path: Path, held_out: HeldOut):
    with pytest.raises(InputError, match=r"1\.png is held out"):
        held_out.refuse_pack(Pack(packs / "clips"))
    HeldOut([]).refuse_pack(Pack(packs / "clips"))
    for name in ("hq", "lq"):
        (tmp_path / f"{name}.npy").write_bytes((packs / "still" / f"{name}.npy").read_bytes())
    held_out.refuse_pack(Pack(tmp_path))  # one without a manifest, from elsewhere
    (tmp_path / "manifest.json").write_text('{"sources": [1]}')
    with pytest.raises(InputError, match="damaged manifest"):
        held_out.refuse_pack(Pack(tmp_path))


@pytest.mark.parametrize("text", ["", "[]", '{"held_out": [{"name": "a"}]}', '{"held_out": 3}'])
def test_a_list_that_is_none_is_one_line(text: str, tmp_path: Path):
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(InputError, match="is not a list of held-out files"):
        HeldOut.load(tmp_path / "list.json")
