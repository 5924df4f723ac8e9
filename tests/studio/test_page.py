"""The page in a real browser: from a clip to a download, stopping, loading anew, its looks."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dloral.video.probe import probe
from tests.studio.conftest import write_clip
from tests.studio.pages import (
    BICUBIC,
    PATIENCE,
    RESTORED,
    Page,
    download,
    expect,
    frame_of,
    halves,
    previews,
    ready,
    restore,
    set_range,
    settle,
    upload,
)

pytestmark = pytest.mark.browser


def test_the_whole_way_from_a_clip_to_a_download(page: Page, tmp_path: Path):
    clip = write_clip(tmp_path / "bar.mp4", 60, sound=True)
    warning, said = page.locator("#warning"), {"warning": "This takes a while."}

    def plan(route) -> None:  # of a clip that would take a test too long
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | said)

    page.route("**/plan", plan)
    upload(page, clip)
    expect(warning).to_have_text("This takes a while.")
    expect(warning).to_be_visible()
    expect(page.locator("#facts")).to_contain_text("48 × 32 · 60 frames · 10 fps")
    expect(page.locator("#plan")).to_contain_text("192 × 128 · 60 frames")
    for control in ("consistency", "detail"):
        before = halves(page)
        count = previews(page)
        set_range(page, control, 0.25)
        page.wait_for_function(f"window.studioPage.preview.count > {count}")
        settle(page)
        after = halves(page)
        assert np.array_equal(before[BICUBIC], after[BICUBIC])
        assert not np.array_equal(before[RESTORED], after[RESTORED])
    set_range(page, "scale", 3)
    expect(page.locator("#plan")).to_contain_text("144 × 96")
    expect(page.locator("[data-size=own]")).to_have_attribute("aria-checked", "true")
    seen = restore(page)
    assert len(seen) >= 3
    assert seen == sorted(seen)
    kept = download(page, "#download", tmp_path)
    info = probe(kept)
    assert kept.name == "bar-restored.mp4"
    assert (info.width, info.height, info.num_frames, info.has_audio) == (144, 96, 60, True)
    settings = download(page, "#settings-file", tmp_path)
    assert json.loads(settings.read_text())["settings"]["detail"] == 0.25
    expect(page.locator("#made-with")).to_contain_text("consistency 0.25, detail 0.25")
    expect(page.locator("#moved")).to_be_hidden()
    expect(page.locator("#run")).to_have_text("Restore again")
    # advice on a run that is done helps nobody; what is wrong stays said
    expect(warning).to_be_hidden()
    said["error"] = "The disk is full."
    page.evaluate("window.studioPage.controls.plan()")
    expect(warning).to_have_text("The disk is full.")
    expect(warning).to_be_visible()
    del said["error"]
    page.evaluate("window.studioPage.controls.plan()")
    expect(warning).to_be_hidden()
    side = download(page, "#share", tmp_path)
    assert (probe(side).width, probe(side).num_frames) == (288, 60)
    page.select_option("#share-layout", "wipe")
    page.select_option("#share-format", "gif")
    loop = download(page, "#share", tmp_path)
    with Image.open(loop) as animation:
        assert animation.n_frames > 20
        assert animation.size == (144, 96)
    page.select_option("#share-format", "mp4")
    page.select_option("#share-layout", "after")  # all of it is what the download gives
    alone = probe(download(page, "#share", tmp_path))
    assert (alone.width, alone.duration, alone.has_audio) == (144, 4, False)
    page.click("#tuning summary")
    page.click("#steer-reset")
    expect(page.locator("#moved")).to_be_visible()  # the dials are not the result's any more
    expect(page.locator("#run")).to_have_text("Restore")
    expect(warning).to_be_visible()
    set_range(page, "scale", 2)
    page.set_input_files("#file", str(settings))
    expect(page.locator("#message")).to_contain_text("Settings loaded from")
    expect(page.locator("#moved")).to_be_hidden()
    assert page.locator("output[for=detail]").text_content() == "0.25"
    assert page.locator("#scale").input_value() == "3"


def test_cancel_keeps_a_part_and_the_page_goes_on(page: Page, long_clip: Path, tmp_path: Path):
    upload(page, long_clip)
    set_range(page, "scale", 1)
    # five of 240 seconds are chosen: the handles stand apart, more so where the strip is zoomed
    expect(page.locator("#part-words")).to_have_text("5 s of 4 min will be restored")
    ends = [page.locator(f"#trim-{which}") for which in ("start", "end")]

    def apart() -> float:
        first, last = (end.bounding_box() for end in ends)
        return last["x"] - first["x"] - first["width"]

    assert apart() >= 0
    page.click("#part-zoom")
    assert apart() > 300
    page.fill("#part-end", "4.5")
    page.keyboard.press("Tab")
    expect(page.locator("#part-words")).to_have_text("4.5 s of 4 min will be restored")
    page.click("#part-zoom")
    assert 0 <= apart() < 40
    page.focus("#trim-end")
    page.evaluate("window.studioPage.strip.set({start: 0, duration: null})")
    page.click("#run")
    expect(page.locator("#said")).to_contain_text("of 2400", timeout=PATIENCE)
    page.click("#cancel")
    expect(page.locator("#notes")).to_contain_text("a partial result", timeout=PATIENCE)
    expect(page.locator("#made-with")).to_contain_text("Partial result, ")
    part = probe(download(page, "#download", tmp_path))
    assert 0 < part.num_frames < 2400
    expect(page.locator("#run")).to_be_enabled()
    page.evaluate("window.studioPage.strip.set({start: 1, duration: 1})")
    restore(page)
    expect(page.locator("#where")).to_contain_text("of 10 ")


def test_a_reload_finds_the_running_job_and_then_its_result(page: Page, tmp_path: Path):
    clip = write_clip(tmp_path / "bar.mp4", 400)
    upload(page, clip)
    set_range(page, "scale", 2)
    set_range(page, "detail", 0.75)
    page.evaluate("window.studioPage.strip.set({start: 0, duration: null})")
    page.click("#run")
    expect(page.locator("#said")).to_contain_text("of 400", timeout=PATIENCE)
    page.reload()
    ready(page)
    expect(page.locator("#said")).to_contain_text("of 400", timeout=5000)
    expect(page.locator("#clip-name")).to_have_text("bar.mp4")
    assert page.locator("output[for=detail]").text_content() == "0.75"
    expect(page.locator("#results")).to_be_visible(timeout=PATIENCE)
    page.reload()
    ready(page)
    expect(page.locator("#results")).to_be_visible(timeout=PATIENCE)
    page.wait_for_function("window.studioPage.player.result !== null")
    expect(page.locator("#where")).to_contain_text("of 400")


def test_what_is_no_clip_is_said_in_place(page: Page, no_clip: Path, picture: Path, tmp_path: Path):
    (tmp_path / "large.mp4").write_bytes(b"\0" * 4_000_000)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "hls.mp4").write_text("#EXTM3U\n#EXTINF:9,\n/etc/passwd\n")
    message = page.locator("#message")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    for name, said in (
        ("large.mp4", "the limit here is 3 MB"),
        ("empty.mp4", "is empty"),
        ("other.json", "not a DLoRAL settings file"),
        ("hls.mp4", "it holds a playlist, which refers to other files"),
        (str(no_clip), "letter.mp4 is not a readable video or image"),
    ):
        page.set_input_files("#file", str(tmp_path / name))
        expect(message).to_contain_text(said, timeout=PATIENCE)
        assert "\n" not in message.inner_text().strip("×\n ")
        assert "/tmp" not in message.inner_text()
        if name == "large.mp4":
            assert not any("/clip" in url for url in sent)  # refused before it is sent
    expect(page.locator("#run")).to_be_disabled()
    upload(page, picture)
    expect(message).to_be_hidden()
    expect(page.locator("#facts")).to_contain_text("33 × 21 · PNG")
    page.evaluate("document.querySelector('#deinterlace').value = 'off'")  # as for a clip before
    restore(page)
    expect(page.locator("#run")).to_have_text("Restore again")
    kept = download(page, "#download", tmp_path)
    assert (probe(kept).width, probe(kept).height) == (132, 84)


def test_of_an_animated_picture_a_part_can_be_chosen(page: Page, tmp_path: Path):
    pages = [Image.new("L", (48, 32), 20 * number) for number in range(12)]
    pages[0].save(tmp_path / "a.webp", save_all=True, append_images=pages[1:], duration=100)
    upload(page, tmp_path / "a.webp")
    expect(page.locator("#facts")).to_have_text("48 × 32 · 12 frames · 10 fps · 1.2 s · WebP")
    page.fill("#part-end", "0.5")
    page.press("#part-end", "Enter")
    expect(page.locator("#plan")).to_contain_text("5 of 12 frames")


def test_trim_by_the_strips_ends(page: Page, clip: Path):
    upload(page, clip)
    page.focus("#trim-start")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.focus("#trim-end")
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    expect(page.locator("#plan")).to_contain_text("5 of 12 frames")
    restore(page)
    assert [frame_of(half) for half in halves(page)[:2]] == [3, 3]
    page.click("#measures-open")
    box = page.locator("#plot").bounding_box()
    page.mouse.click(box["x"] + box["width"] - 11, box["y"] + box["height"] / 2)
    expect(page.locator("#where")).to_contain_text("Frame 5 of 5")
    for name in ("flicker", "difference", "profile"):
        page.click(f"[data-curve={name}]")
        drawn = "document.querySelector('#plot').toDataURL().length"
        assert page.evaluate(drawn) > 2000


def test_a_recording_of_the_camera_is_a_clip(page: Page):
    page.click("#webcam")
    expect(page.locator("#clip-name")).to_have_text("webcam.webm", timeout=PATIENCE)
    page.wait_for_function("window.studioPage.preview.count > 0", timeout=PATIENCE)
    settle(page)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen_light_and_dark(open_page, width: int, scheme: str):
    page = open_page(width=width, height=844 if width == 390 else 800, color_scheme=scheme)
    page.click("#example-city")
    page.wait_for_function("window.studioPage.preview.count > 0", timeout=PATIENCE)
    settle(page)
    expect(page.locator("#plan")).to_contain_text("1024 × 576 · 75 frames")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    colour = page.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor")
    light = sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / 3
    assert (light > 200) == (scheme == "light")
    if width == 1280:
        assert page.evaluate("document.documentElement.scrollHeight") <= 800
        box = page.locator("#run").bounding_box()
        assert box["y"] + box["height"] < 800
    overflowing = page.evaluate("""() => {
      const shown = document.querySelectorAll('.studio :is(button, label, output, strong)');
      return [...shown].filter(e => e.offsetParent && e.id !== 'clip-name' && e.clientWidth)
        .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.id || e.textContent); }""")
    assert not overflowing
    # a model of a long name: two rows on a phone, one elsewhere, and the rest in its title
    chip, header = page.locator("#model-name"), page.locator(".studio > header")
    name = chip.inner_text().removeprefix("Model: ")
    expect(chip).to_have_attribute("title", f"Current model: {name}")
    chip.evaluate("chip => { chip.textContent = 'Model: ' + 'name-'.repeat(30); }")
    for narrow, most in ((390, 56), (320, 56)) if width == 390 else ((width, 40),):
        page.set_viewport_size({"width": narrow, "height": 800})
        assert header.bounding_box()["height"] < most
        assert page.evaluate("document.documentElement.scrollWidth") <= narrow
