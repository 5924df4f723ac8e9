"""Folders, patterns and lists of sources; failures and what is there already; the command."""

from pathlib import Path

import pytest
from clips import names_in, write_clip
from PIL import Image

from dloral import UpscaleOptions
from dloral.cli import main
from dloral.errors import InputError, OptionError
from dloral.jobs.batches import DONE, FAILED, SKIPPED, Item, is_batch, plan_batch, run_batch
from dloral.jobs.progress import Progress

OPTIONS = UpscaleOptions("bicubic", scale=2)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Clips, a folder of clips, a folder of frames, and what is neither."""
    for name in (
        "a.mp4",
        "b.mov",
        "b.avi",
        "sub/c.mkv",
        "notes.txt",
        ".hidden.mp4",
        "x.resume/d.mp4",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "shots").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "shots" / "1.png")
    return tmp_path


def planned(sources: list[str], tree: Path, **more) -> dict[str, str]:
    items = plan_batch(sources, tree / "out", OPTIONS, **more)
    return {
        str(item.source.relative_to(tree)): str(item.target.relative_to(tree / "out"))
        for item in items
    }


def test_a_folder_gives_its_clips(tree):
    assert planned([str(tree)], tree) == {
        "a.mp4": "a.mp4",
        "b.avi": "b.mp4",
        "b.mov": "b-mov.mp4",
    }


def test_subfolders_are_kept_and_folders_of_frames_are_sources(tree):
    assert planned([str(tree)], tree, recursive=True) == {
        "a.mp4": "a.mp4",
        "b.avi": "b.mp4",
        "b.mov": "b-mov.mp4",
        "shots": "shots",
        "sub/c.mkv": "sub/c.mp4",
    }


def test_patterns_and_lists(tree):
    (tree / "list.txt").write_text("# mine\nsub/c.mkv\n\nb.*\n", encoding="utf-8")
    expected = {"sub/c.mkv": "c.mp4", "b.avi": "b.mp4", "b.mov": "b-mov.mp4"}
    assert planned([], tree, list_file=str(tree / "list.txt")) == expected
    assert planned([str(tree / "*.m*"), str(tree / "a.mp4")], tree) == {
        "a.mp4": "a.mp4",
        "b.mov": "b.mp4",
    }


def test_names_by_pattern(tree):
    sources = [str(tree / "a.mp4"), str(tree / "b.mov")]
    name = "{index:03}_{stem}-x{scale}-{model}.mkv"
    assert list(planned(sources, tree, name=name).values()) == [
        "001_a-x2-bicubic.mkv",
        "002_b-x2-bicubic.mkv",
    ]
    for wrong in ("{nothing}", "{stem", "../{stem}", "", "{stem.__class__}", "{stem[0]}", "{0}"):
        with pytest.raises(OptionError, match="name"):
            planned(sources, tree, name=wrong)


def test_results_of_an_earlier_run_are_no_sources(tree):
    (tree / "a-big.mp4").write_bytes(b"")
    items = plan_batch([str(tree)], tree, OPTIONS, name="{stem}-big")
    assert [item.source.name for item in items] == ["a.mp4", "b.avi", "b.mov"]


@pytest.mark.parametrize(
    ("source", "listed", "said"),
    [
        ("", "", "there are no clips in the command"),
        ("none*", "", "no file matches"),
        ("", "list.txt", "cannot be read as a list"),
    ],
)
def test_nothing_to_do_is_said(tree, source, listed, said):
    sources = [str(tree / source)] if source else []
    with pytest.raises(OptionError, match=said):
        planned(sources, tree, list_file=tree / listed if listed else None)


def test_what_is_a_batch(tree):
    assert is_batch([str(tree)])
    assert is_batch([str(tree / "*.mp4")])
    assert is_batch(["a.mp4", "b.mp4"])
    assert is_batch([], "list.txt")
    assert not is_batch([str(tree / "a.mp4")])
    assert not is_batch([str(tree / "shots")])


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    """``frames`` with frames of another clip below, ``clips`` with more below, beside pictures."""
    for name in ("frames/1.png", "frames/other/1.png", "clips/1.png", "only/below/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16)).save(tmp_path / name)
    (tmp_path / "clips" / "below").mkdir()
    write_clip(tmp_path / "clips" / "a.mp4", 2)
    write_clip(tmp_path / "clips" / "below" / "b.mp4", 2)
    (tmp_path / "clips" / "below" / "back").symlink_to(tmp_path / "clips")
    return tmp_path


def upscaled(tree: Path, source: str, out: str, *more: str) -> int:
    words = [f"{tree}/{source}", "-o", f"{tree}/{out}", "--model", "bicubic", "--scale", "1"]
    return main(["upscale", *words, *more])


def test_frames_with_a_subfolder_are_one_clip(nested, capsys):
    assert upscaled(nested, "frames", "out.mp4") == 0
    assert (nested / "out.mp4").is_file()
    note = "note: subfolders of the folder of frames left out: other\n"
    assert capsys.readouterr().err == note
    assert upscaled(nested, "frames", "all", "--recursive") == 0
    assert names_in(nested / "all") == ["frames", "other"]
    assert names_in(nested / "all" / "frames") == ["1.png"]


def test_what_a_folder_of_clips_leaves_out_is_said(nested, capsys):
    assert upscaled(nested, "clips", "out") == 0
    assert names_in(nested / "out") == ["a.mp4"]
    assert capsys.readouterr().err.splitlines() == [
        f"note: {nested}/clips: files that are not clips left out: 1.png",
        f"note: {nested}/clips: subfolders left out, not recursive: below",
    ]
    assert upscaled(nested, "clips", "all", "--recursive") == 0  # a link back has no end
    assert names_in(nested / "all") == ["a.mp4", "below"]
    assert names_in(nested / "all" / "below") == ["b.mp4"]
    assert upscaled(nested, "only", "out") == 2
    assert "its subfolders do; give --recursive" in capsys.readouterr().err


def test_a_batch_needs_a_folder(nested, capsys):
    (nested / "file").touch()
    for out in ("out.mp4", "out.AVI", "out.png", "file"):
        assert upscaled(nested, "clips", out) == 2
        printed = capsys.readouterr().err
        assert "is a file name, and this is a batch" in printed
        assert printed.count("\n") == 1
    assert not (nested / "out.mp4").exists()
    # a slash at the end, or a folder that exists, leaves no doubt
    assert upscaled(nested, "clips", "out.mp4/") == 0
    assert upscaled(nested, "clips", "out.mp4") == 0
    assert upscaled(nested, "clips", "v1.2") == 0


def test_a_listed_name_that_is_too_long_fails_alone(tree, capsys):
    write_clip(tree / "a.mp4", 2)
    (tree / "list.txt").write_text("a.mp4\n" + 300 * "n" + "\n")
    words = ["--list", f"{tree}/list.txt", "-o", f"{tree}/out", "--model", "bicubic"]
    assert main(["upscale", *words]) == 1
    printed = capsys.readouterr()
    assert printed.err.endswith("n cannot be read: file name too long\n")
    assert printed.out.endswith("1 done, 0 skipped, 1 failed\n")


def test_failures_do_not_end_a_batch(tree):
    """A clip that is none, a fault of ours, and one that works."""
    for name in ("good.mp4", "ours.mp4"):
        write_clip(tree / name, 3)
    (tree / "out").mkdir()
    (tree / "out" / "there.mp4").write_bytes(b"a result")
    names = ("a.mp4", "good.mp4", "ours.mp4", "there.mp4")
    items = [Item(tree / name, tree / "out" / name) for name in names]

    def run(item: Item):
        yield Progress("restoring", 3)
        if item.source.name == "ours.mp4":
            raise ZeroDivisionError("a fault")
        yield Progress("done", 3)

    steps = run_batch(items, OPTIONS, run)
    told = []
    try:
        while True:
            told.append(next(steps))
    except StopIteration as stop:
        outcomes = stop.value
    assert [outcome.state for outcome in outcomes] == [FAILED, DONE, FAILED, SKIPPED]
    assert isinstance(outcomes[0].error, InputError)
    assert [step.num_frames for step in told] == [6, 6, 6]
    assert [step.frame for step in told] == [3, 3, 6]


def test_the_command_does_nine_of_twelve_and_then_skips_them(tmp_path, capsys):
    clips, out = tmp_path / "in", tmp_path / "out"
    clips.mkdir()
    whole = write_clip(tmp_path / "clip.mp4", 3)
    for index in range(9):
        (clips / f"good{index}.mp4").write_bytes(whole.read_bytes())
    (clips / "bad0.mp4").write_bytes(b"no clip at all")
    (clips / "bad1.mp4").write_bytes(whole.read_bytes()[:-500])
    (clips / "bad2.mp4").write_bytes(b"")
    call = ["upscale", str(clips), "-o", str(out), "--model", "bicubic", "--scale", "1"]
    assert main(call) == 1
    first = capsys.readouterr()
    lines = first.err.splitlines()
    assert [line.split("/")[-1].split(" ")[0] for line in lines] == [
        "bad0.mp4",
        "bad1.mp4",
        "bad2.mp4",
    ]
    assert all(line.startswith("dloral: ") for line in lines)
    assert first.out.splitlines()[-1] == "9 done, 0 skipped, 3 failed"
    assert names_in(out) == [f"good{index}.mp4" for index in range(9)]
    times = [path.stat().st_mtime_ns for path in sorted(out.iterdir())]
    assert main(call) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "0 done, 9 skipped, 3 failed"
    assert [path.stat().st_mtime_ns for path in sorted(out.iterdir())] == times
