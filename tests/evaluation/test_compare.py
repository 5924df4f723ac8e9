"""dloral compare: what each kind of comparison shows, read back from the file."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dloral.cli import main
from dloral.evaluation.compare import LINE, Box, Look, compare
from dloral.video.images import encode_image, load_image
from dloral.video.probe import probe
from dloral.video.reader import read_frames

HEIGHT, WIDTH, COUNT = 96, 128, 6


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, encode: Callable[..., Path]) -> list[Path]:
    """Dark, light, and half as large grey clips, each brighter from frame to frame."""
    folder = tmp_path_factory.mktemp("clips")
    steps = torch.arange(COUNT).view(-1, 1, 1, 1) / 255
    made = []
    for name, level, scale in (("dark", 0.2, 1), ("light", 0.8, 1), ("small", 0.5, 2)):
        frames = (level + steps).expand(-1, 3, HEIGHT // scale, WIDTH // scale)
        made.append(encode(folder / f"{name}.mkv", frames, codec="ffv1", pixels="bgr0"))
    return made


def middle(picture: Tensor, column: int, columns: int, row: int = 0, rows: int = 1) -> float:
    """The mean of the middle of a cell."""
    height, width = picture.shape[1] // rows, picture.shape[2] // columns
    top, left = row * height, column * width
    part = picture[:, top + height // 3 : top + height // 2, left + width // 3 : left + width // 2]
    return part.mean().item()


def test_side_by_side_video(clips: list[Path], tmp_path: Path) -> None:
    target = compare(clips, tmp_path / "out.mp4")
    info = probe(target)
    assert (info.width, info.height, info.num_frames) == (3 * WIDTH, HEIGHT, COUNT)
    assert info.fps == probe(clips[0]).fps
    with read_frames(target) as frames:
        for frame in frames:
            step = frame.index / 255
            found = [middle(frame.pixels, column, 3) for column in range(3)]
            assert found == pytest.approx([0.2 + step, 0.8 + step, 0.5 + step], abs=0.015)
    assert frame.index == COUNT - 1


def test_difference_is_exaggerated_around_grey(clips: list[Path], tmp_path: Path) -> None:
    target = compare(clips[:2], tmp_path / "out.png", Look("difference", gain=0.5, frame=0))
    picture = load_image(target)
    assert middle(picture, 2, 3) == pytest.approx(128 / 255 + 0.5 * 0.6, abs=0.01)


def test_wipe_shows_one_on_each_side(clips: list[Path], tmp_path: Path) -> None:
    target = compare(clips[:2], tmp_path / "out.png", Look("wipe", frame=0))
    picture = load_image(target)[:, HEIGHT // 2]
    line = torch.tensor(LINE) / 255
    place = (picture - line[:, None]).abs().sum(dim=0).argmin().item()
    assert 0 < place < WIDTH // 3
    assert picture[:, : place - 1].mean() == pytest.approx(0.2, abs=0.01)
    assert picture[:, place + 4 :].mean() == pytest.approx(0.8, abs=0.01)


def test_zoom_enlarges_the_box(tmp_path: Path, encode: Callable[..., Path]) -> None:
    frames = torch.full((2, 3, HEIGHT, WIDTH), 0.2)
    frames[:, :, 40:52, 60:76] = 0.9
    clip = encode(tmp_path / "c.mkv", frames, codec="ffv1", pixels="bgr0")
    target = compare([clip, clip], tmp_path / "out.png", Look("zoom", Box(60, 40, 16, 12)))
    picture = load_image(target)
    assert picture.shape == (3, 2 * HEIGHT, 2 * WIDTH)
    assert picture[:, HEIGHT + 2 : 2 * HEIGHT - 2, 2 : WIDTH - 2].min() > 0.85


def test_profile_is_a_row_over_time(clips: list[Path], tmp_path: Path) -> None:
    target = compare(clips[:2], tmp_path / "out.png", Look("profile", row=50))
    below = load_image(target)[:, HEIGHT:]
    repeat = below.shape[1] // COUNT
    for frame in range(COUNT):
        strip = below[:, frame * repeat : (frame + 1) * repeat]
        assert strip[..., :WIDTH].mean() == pytest.approx(0.2 + frame / 255, abs=1e-2)
        assert strip[..., -WIDTH:].mean() == pytest.approx(0.8 + frame / 255, abs=1e-2)


def test_labels_are_drawn(clips: list[Path], tmp_path: Path) -> None:
    target = compare(clips[:2], tmp_path / "out.png", Look(frame=0), ["one", "two"])
    corner = load_image(target)[:, :12, :20]
    assert corner.min() < 0.1
    assert corner.max() > 0.8


@pytest.mark.parametrize(
    ("arguments", "said", "status"),
    [
        (["--mode", "wide"], "choose from side, wipe", 2),
        (["--mode", "zoom", "--box", "120,0,40,40"], "inside it", 2),
        (["--mode", "zoom", "--box", "1,2"], "left,top,width,height", 2),
        (["--mode", "zoom", "--box", "0,0,--4,4"], "left,top,width,height", 2),
        (["--mode", "zoom", "--box", "²,0,4,4"], "left,top,width,height", 2),
        (["--mode", "difference", "--gain", "inf"], "gain is inf", 2),
        (["--mode", "profile", "--row", "-1"], "rows 0 to 95", 2),
        (["--mode", "profile", "--row", "500"], "rows 0 to 95", 2),
        (["--labels", "one"], "1 labels for 2 clips", 2),
        (["--frame", "99"], "frames 0 to 5", 2),
        (["--frame", "-1"], "frames 0 to 5", 2),
    ],
)
def test_wrong_calls(
    clips: list[Path],
    tmp_path: Path,
    arguments: list[str],
    said: str,
    status: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / "out.png"
    call = ["compare", *map(str, clips[:2]), "-o", str(target), *arguments]
    assert main(call) == status
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_clips_of_other_lengths_are_refused(
    clips: list[Path], tmp_path: Path, encode: Callable[..., Path]
) -> None:
    short = encode(tmp_path / "short.mkv", torch.zeros(3, 3, 96, 128), codec="ffv1", pixels="bgr0")
    target = tmp_path / "out.mp4"
    assert main(["compare", str(clips[0]), str(short), "-o", str(target)]) == 1
    assert main(["compare", str(clips[0]), "-o", str(target)]) == 2
    assert not target.exists()


@pytest.fixture
def stills(tmp_path: Path) -> Path:
    """Two pictures, each of them also the only frame of a folder, and links to them."""
    for name, level in (("a", 0.2), ("b", 0.7)):
        picture = encode_image(torch.full((3, 48, 64), level), ".png")
        (tmp_path / f"{name}.png").write_bytes(picture)
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(picture)
    (tmp_path / "link.png").symlink_to("a.png")
    (tmp_path / "hard.png").hardlink_to(tmp_path / "a.png")
    (tmp_path / "linked").symlink_to("a")
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "0.png").symlink_to("../a.png")
    return tmp_path


@pytest.mark.parametrize(
    ("first", "output"),
    [
        ("a.png", "a.png"),
        ("b.png", "a.png"),
        ("a.png", "b/../a.png"),
        ("a.png", "link.png"),
        ("link.png", "a.png"),
        ("a.png", "hard.png"),
        ("a", "a/0.png"),
        ("a", "linked/0.png"),
        ("a", "linked/new.png"),
        ("frames", "a.png"),
    ],
)
def test_a_source_is_never_replaced(
    stills: Path, first: str, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in stills.rglob("*.png")}
    second = "a.png" if first == "b.png" else "b.png"
    call = ["compare", str(stills / first), str(stills / second), "-o", str(stills / output)]
    assert main(call) == 2
    printed = capsys.readouterr().err
    assert output in printed
    assert printed.count("\n") == 1
    assert {path: path.read_bytes() for path in stills.rglob("*.png")} == before


def test_an_older_sheet_is_replaced(stills: Path) -> None:
    target = stills / "out.png"
    target.write_bytes(b"old")
    call = ["compare", str(stills / "a"), str(stills / "b"), "-o", str(target)]
    assert main([*call, "--quiet"]) == 0
    assert load_image(target).shape == (3, 48, 128)
