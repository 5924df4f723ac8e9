"""The page in a real browser: open, steer, restore, compare, download, reload, bad input."""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dloral.video.probe import probe
from tests.studio.conftest import serving, wait_until, write_clip

sync_api = pytest.importorskip("playwright.sync_api")
Page = sync_api.Page
expect = sync_api.expect

pytestmark = pytest.mark.browser

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
SWITCHES = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
]
PATIENCE = 60_000
BICUBIC, RESTORED = 0, 1

READ_HALVES = """() => {
  const { halves } = window.studioPage.viewer;
  return halves.map(canvas => {
    const { width, height } = canvas;
    const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
    return { width, height, data: Array.from(data) };
  });
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def address(tiny_model: Path, folder: Path) -> Iterator[str]:
    with serving(tiny_model, folder, "--max-upload", "3mb") as served:
        yield served


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield started
        started.close()


@pytest.fixture
def open_page(browser, address: str) -> Iterator[Callable[..., Page]]:
    """Opens pages; afterwards: no console error, no failed and no foreign request in any."""
    faults: list[str] = []
    contexts = []

    def on_request(request) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            faults.append(f"left the machine: {request.url}")

    def on_failed(request) -> None:
        # a video that is replaced, and the event stream that is done, are broken off on purpose
        if request.failure != "net::ERR_ABORTED":
            faults.append(f"failed: {request.url} {request.failure}")

    def open_one(width: int = 1280, height: int = 800, strict: bool = True, **context) -> Page:
        made = browser.new_context(viewport={"width": width, "height": height}, **context)
        contexts.append(made)
        page = made.new_page()
        if strict:
            page.on(
                "console",
                lambda said: said.type == "error" and faults.append(f"console: {said.text}"),
            )
            page.on("pageerror", lambda error: faults.append(f"page: {error}"))
            page.on("requestfailed", on_failed)
            page.on(
                "response",
                lambda got: got.status >= 400 and faults.append(f"{got.status}: {got.url}"),
            )
        page.on("request", on_request)
        page.goto(address)
        ready(page)
        return page

    yield open_one
    for made in contexts:
        made.close()
    assert not faults


@pytest.fixture
def page(open_page) -> Page:
    return open_page()


def ready(page: Page) -> None:
    page.wait_for_selector("#studio [data-ready=true], #studio[data-ready=true]", timeout=PATIENCE)


def upload(page: Page, path: Path) -> None:
    before = previews(page)
    page.set_input_files("#file", str(path))
    page.wait_for_function(f"window.studioPage.preview.count > {before}", timeout=PATIENCE)
    settle(page)


def previews(page: Page) -> int:
    return page.evaluate("window.studioPage.preview.count")


def settle(page: Page) -> None:
    """Until no preview is computed any more."""
    page.wait_for_function("!window.studioPage.preview.running", timeout=PATIENCE)


def halves(page: Page) -> list[np.ndarray]:
    """The two pictures that the viewer draws, (H,W,3) each."""
    return [
        np.array(half["data"], np.uint8).reshape(half["height"], half["width"], 4)[..., :3]
        for half in page.evaluate(READ_HALVES)
    ]


def set_range(page: Page, control: str, value: float) -> None:
    page.locator(f"#{control}").evaluate(
        "(input, value) => { input.value = value;"
        " input.dispatchEvent(new Event('input', {bubbles: true})); }",
        value,
    )


def bar(half: np.ndarray) -> int:
    """How many columns are light: 2k + 1 of 48 in frame k."""
    return int((half[len(half) // 2, :, 0] > 120).sum())


def frame_of(half: np.ndarray) -> int:
    return round((bar(half) * 48 / half.shape[1] - 1) / 2)


def restore(page: Page) -> list[int]:
    """Press Restore and wait; the frame numbers that were said on the way."""
    page.click("#run")
    seen: list[int] = []

    def ended() -> bool:
        page.wait_for_timeout(30)
        said = re.search(r"Restoring (\d+) of \d+", page.locator("#said").inner_text())
        if said and int(said[1]) not in seen:
            seen.append(int(said[1]))
        return page.locator("#results").is_visible()

    wait_until(ended)
    expect(page.locator("[data-show=result]")).to_have_attribute("aria-checked", "true")
    return seen


def download(page: Page, press: str, folder: Path) -> Path:
    with page.expect_download() as found:
        page.click(press)
    target = folder / found.value.suggested_filename
    found.value.save_as(target)
    return target


def test_the_whole_way_from_a_clip_to_a_download(page: Page, tmp_path: Path):
    clip = write_clip(tmp_path / "bar.mp4", 60, sound=True)
    upload(page, clip)
    expect(page.locator("#facts")).to_contain_text("48 × 32 · 60 frames · 10 fps")
    expect(page.locator("#plan")).to_contain_text("192 × 128 · 50 of 60 frames")
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
    seen = restore(page)
    assert len(seen) >= 3
    assert seen == sorted(seen)
    kept = download(page, "#download", tmp_path)
    info = probe(kept)
    assert kept.name == "bar-restored.mp4"
    assert (info.width, info.height, info.num_frames, info.has_audio) == (144, 96, 50, True)
    settings = download(page, "#settings-file", tmp_path)
    assert json.loads(settings.read_text())["settings"]["detail"] == 0.25
    side = download(page, "#compare-side", tmp_path)
    assert (probe(side).width, probe(side).num_frames) == (288, 50)
    page.click("#steer-reset")
    set_range(page, "scale", 2)
    page.set_input_files("#file", str(settings))
    expect(page.locator("#message")).to_contain_text("are back")
    assert page.locator("output[for=detail]").inner_text() == "0.25"
    assert page.locator("#scale").input_value() == "3"


def test_both_halves_show_the_same_frame_however_it_is_reached(page: Page, clip: Path):
    upload(page, clip)
    page.focus("#stage")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    settle(page)
    assert [frame_of(half) for half in halves(page)] == [3, 3]
    restore(page)
    where = page.locator("#where")

    def at(frame: int) -> None:
        expect(where).to_contain_text(f"Frame {frame + 1} of 12 · {frame / 10:.2f} s")
        page.wait_for_function(f"window.studioPage.player.index === {frame}")
        assert [frame_of(half) for half in halves(page)] == [frame, frame]

    page.focus("#stage")
    for frame in (1, 2, 3, 4):
        page.keyboard.press("ArrowRight")
        at(frame)
    page.keyboard.press("ArrowLeft")
    at(3)
    # standing still it becomes every exact pixel, of the same frame
    page.wait_for_function("window.studioPage.player.exact !== null")
    at(3)
    page.keyboard.press("End")
    at(11)
    page.keyboard.press("ArrowRight")
    at(0)
    page.keyboard.press(" ")
    numbers = set()
    for _ in range(40):  # while it plays: never two different frames
        pair = [frame_of(half) for half in halves(page)]
        assert pair[0] == pair[1]
        numbers.add(pair[0])
        page.wait_for_timeout(25)
    assert len(numbers) >= 4
    page.keyboard.press(" ")
    expect(page.locator("#play")).to_have_attribute("aria-label", "Play")


def test_the_viewer_wipes_by_mouse_and_keyboard_and_has_its_modes(page: Page, clip: Path):
    upload(page, clip)
    stage = page.locator("#stage").bounding_box()
    middle = stage["y"] + stage["height"] / 2
    page.mouse.move(stage["x"] + stage["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(stage["x"] + stage["width"] / 4, middle, steps=4)
    page.mouse.up()
    handle = page.locator("#handle")
    expect(handle).to_have_attribute("aria-valuenow", "25")
    handle.focus()
    page.keyboard.press("ArrowRight")
    expect(handle).to_have_attribute("aria-valuenow", "27")
    for key, mode in zip(
        "654321", ("loupe", "difference", "flip", "side", "wipe-h", "wipe"), strict=True
    ):
        page.keyboard.press(key)
        expect(page.locator("#stage")).to_have_attribute("data-mode", mode)
    page.keyboard.press("x")
    expect(page.locator("#tag-a")).to_be_visible()
    page.keyboard.press("x")
    expect(page.locator("#tag-b")).to_be_visible()
    before = page.evaluate("window.studioPage.viewer.zoom")
    page.mouse.move(stage["x"] + 300, middle)
    page.mouse.wheel(0, -400)
    page.wait_for_function(f"window.studioPage.viewer.zoom > {before}")
    centre = page.evaluate("window.studioPage.viewer.centre.x")
    page.mouse.down()
    page.mouse.move(stage["x"] + 200, middle, steps=3)
    page.mouse.up()
    assert page.evaluate("window.studioPage.viewer.centre.x") > centre
    page.keyboard.press("0")
    assert page.evaluate("window.studioPage.viewer.zoom") == 1
    page.keyboard.press("f")
    page.wait_for_function("document.fullscreenElement !== null")
    page.keyboard.press("f")
    page.wait_for_function("document.fullscreenElement === null")


def test_the_difference_is_what_the_halves_differ_by(page: Page, clip: Path):
    upload(page, clip)
    page.keyboard.press("5")
    drawn = """() => { const { canvas } = window.studioPage.viewer;
      const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      let sum = 0;
      for (let i = 0; i < data.length; i += 4) sum += data[i];
      return sum / data.length; }"""
    page.select_option("#gain", "2")
    little = page.evaluate(drawn)
    page.select_option("#gain", "8")
    assert page.evaluate(drawn) > 1.5 * little > 0
    for name in ("consistency-on", "detail-on"):
        page.locator(f"#{name}").set_checked(False, force=True)
    set_range(page, "strength", 0)
    settle(page)
    page.wait_for_timeout(200)
    assert page.evaluate(drawn) < 0.3


def test_pad_strength_and_contact_sheet(page: Page, clip: Path):
    upload(page, clip)
    pad = page.locator("#pad").bounding_box()
    page.mouse.click(pad["x"] + pad["width"] / 3, pad["y"] + pad["height"] / 3)
    assert page.locator("output[for=consistency]").inner_text() == "0.50"
    assert page.locator("output[for=detail]").inner_text() == "1.00"
    page.keyboard.press("ArrowUp")
    assert page.locator("output[for=detail]").inner_text() == "1.05"
    page.click("#sheet-open")
    expect(page.locator("#sheet .cells .ready")).to_have_count(16, timeout=PATIENCE)
    page.locator("#sheet .cells button").first.click()
    assert page.locator("output[for=consistency]").inner_text() == "off"
    assert page.locator("output[for=detail]").inner_text() == "1.50"
    settle(page)
    count = previews(page)
    set_range(page, "strength", 0.5)
    page.wait_for_timeout(300)
    assert previews(page) == count  # mixed in the browser: nothing is computed
    assert page.evaluate("window.studioPage.viewer.strength") == 0.5


def test_a_burst_of_moves_computes_few_and_ends_at_the_last(page: Page, clip: Path):
    upload(page, clip)
    count = previews(page)
    for value in np.linspace(0, 1.5, 31):
        set_range(page, "detail", round(float(value), 2))
    settle(page)
    assert previews(page) - count < 25
    made = page.evaluate("window.studioPage.settings().detail")
    assert made == 1.5


def test_cancel_stops_and_the_page_goes_on(page: Page, long_clip: Path, clip: Path):
    upload(page, long_clip)
    set_range(page, "scale", 1)
    page.focus("#trim-end")
    page.evaluate("window.studioPage.strip.set({start: 0, duration: null})")
    page.click("#run")
    expect(page.locator("#said")).to_contain_text("of 2400", timeout=PATIENCE)
    page.click("#cancel")
    expect(page.locator("#message")).to_contain_text("Stopped; nothing was kept", timeout=5000)
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
    assert page.locator("output[for=detail]").inner_text() == "0.75"
    expect(page.locator("#results")).to_be_visible(timeout=PATIENCE)
    page.reload()
    ready(page)
    expect(page.locator("#results")).to_be_visible(timeout=PATIENCE)
    page.wait_for_function("window.studioPage.player.result !== null")
    expect(page.locator("#where")).to_contain_text("of 400")


def test_three_tabs_at_once(open_page, folder: Path, tmp_path: Path, long_clip: Path):
    """Each its own clip and settings; jobs in order; previews live while another's job runs."""
    pages = [open_page() for _ in range(3)]
    clips = [long_clip, *(write_clip(tmp_path / f"own{index}.mp4", 12 + index) for index in (1, 2))]
    for index, (page, clip) in enumerate(zip(pages, clips, strict=True)):
        upload(page, clip)
        set_range(page, "scale", 1 + index / 2)
        expect(page.locator("#clip-name")).to_have_text(clip.name)
    pages[0].evaluate("window.studioPage.strip.set({start: 0, duration: null})")
    for page in pages:
        page.click("#run")
        page.wait_for_function("window.studioPage.run.isRunning")
    expect(pages[0].locator("#said")).to_contain_text("of 2400", timeout=PATIENCE)
    expect(pages[1].locator("#said")).to_contain_text("One clip is before yours")
    expect(pages[2].locator("#said")).to_contain_text("2 clips are before yours")
    count = previews(pages[2])
    set_range(pages[2], "detail", 0.3)
    pages[2].wait_for_function(f"window.studioPage.preview.count > {count}", timeout=5000)
    assert pages[0].evaluate("window.studioPage.run.isRunning")
    pages[0].click("#cancel")
    for page, frames in ((pages[1], 13), (pages[2], 14)):
        expect(page.locator("#results")).to_be_visible(timeout=PATIENCE)
        page.wait_for_function("window.studioPage.player.result !== null")
        assert page.evaluate("window.studioPage.state.result.times.length") == frames
    assert pages[1].evaluate("window.studioPage.state.result.width") == 72
    assert pages[2].evaluate("window.studioPage.state.result.width") == 96
    # one's address with another's token opens nothing
    mine, other = (page.evaluate("window.studioPage.link.token") for page in pages[1:])
    assert mine != other
    stolen = pages[2].evaluate(
        "name => fetch(window.studioPage.link.url('state')).then(r => r.json()).then("
        "s => s.result.file === name)",
        "own1-restored.mp4",
    )
    assert stolen is False


def test_what_is_no_clip_is_said_in_place(page: Page, no_clip: Path, picture: Path, tmp_path: Path):
    (tmp_path / "large.mp4").write_bytes(b"\0" * 4_000_000)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "hls.mp4").write_text("#EXTM3U\n#EXTINF:9,\n/etc/passwd\n")
    message = page.locator("#message")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    for name, said in (
        ("large.mp4", "this page takes 3 MB at most"),
        ("empty.mp4", "is empty"),
        ("other.json", "no settings file of ours"),
        ("hls.mp4", "it holds a playlist, which leads to other files"),
        (str(no_clip), "letter.mp4 is no video or image"),
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
    restore(page)
    kept = download(page, "#download", tmp_path)
    assert (probe(kept).width, probe(kept).height) == (132, 84)


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
    assert [frame_of(half) for half in halves(page)] == [3, 3]
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


def test_a_lost_connection_is_said_and_recovered_from(open_page, clip: Path):
    page = open_page(strict=False)
    upload(page, clip)
    page.context.set_offline(True)
    set_range(page, "detail", 0.1)
    expect(page.locator("#lost")).to_be_visible(timeout=10_000)
    count = previews(page)
    page.context.set_offline(False)
    expect(page.locator("#lost")).to_be_hidden(timeout=10_000)
    page.wait_for_function(f"window.studioPage.preview.count > {count}", timeout=PATIENCE)
    assert page.locator("output[for=detail]").inner_text() == "0.10"


def test_a_closed_page_takes_its_files(open_page, folder: Path, long_clip: Path):
    page = open_page()
    before = set(folder.glob("*/sessions/*/*/long.mp4"))
    upload(page, long_clip)
    page.click("#run")
    expect(page.locator("#said")).to_contain_text("Restoring", timeout=PATIENCE)
    own = set(folder.glob("*/sessions/*/*/long.mp4")) - before
    assert len(own) == 1
    page.close()
    wait_until(lambda: not any(path.exists() for path in own), 40)


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


def test_only_who_knows_the_password_gets_in(browser, tiny_model: Path, tmp_path: Path):
    with serving(tiny_model, tmp_path / "locked", "--auth", "ann:secret") as address:
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        page.get_by_label("username", exact=False).fill("ann")
        page.get_by_label("password", exact=False).fill("secret")
        answer = page.request.post(
            f"{address}gradio_api/component_server/",
            data={"data": "", "component_id": 1, "fn_name": "open_session", "session_hash": "x"},
        )
        assert answer.status == 401
        page.get_by_role("button", name="Login").click()
        ready(page)
        page.click("#example-city")
        page.wait_for_function("window.studioPage.preview.count > 0", timeout=PATIENCE)
        context.close()
