"""The page in a real browser: upload, steer, restore, compare, download, cancel, bad input."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dloral.video.probe import probe

sync_api = pytest.importorskip("playwright.sync_api")
Page = sync_api.Page
expect = sync_api.expect

pytestmark = pytest.mark.browser

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
SWITCHES = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
ROOT = Path(__file__).parents[2]
PATIENCE = 60_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page keeps its files."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def address(tiny_model: Path, folder: Path) -> Iterator[str]:
    """``app.py`` in a process of its own; at its end no file of it is left."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder.with_suffix(".log")
    call = [sys.executable, str(ROOT / "app.py"), "--model", str(tiny_model), "--port", str(port)]
    environment = os.environ | {"GRADIO_TEMP_DIR": str(folder)}
    with log.open("w") as out:
        app = subprocess.Popen(call, cwd=ROOT, env=environment, stdout=out, stderr=out)
    try:
        _wait_until(lambda: "DLoRAL is at" in log.read_text() or app.poll() is not None)
        assert app.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}/"
    finally:
        app.send_signal(signal.SIGTERM)
        app.wait(30)
    assert "Traceback" not in log.read_text(), log.read_text()
    assert not list(folder.iterdir())


def _wait_until(is_so, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield started
        started.close()


@pytest.fixture
def page(browser, address: str) -> Iterator[Page]:
    """The opened page; afterwards: no console error, no failed and no foreign request."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    opened = context.new_page()
    faults: list[str] = []

    def on_console(message) -> None:
        if message.type == "error":
            faults.append(f"console: {message.text}")

    def on_failed(request) -> None:
        # a video that is replaced, and the event stream that is done, are broken off on purpose
        if request.failure != "net::ERR_ABORTED":
            faults.append(f"failed: {request.url} {request.failure}")

    def on_request(request) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            faults.append(f"left the machine: {request.url}")

    def on_response(response) -> None:
        if response.status >= 400:
            faults.append(f"{response.status}: {response.url}")

    opened.on("console", on_console)
    opened.on("pageerror", lambda error: faults.append(f"page: {error}"))
    opened.on("requestfailed", on_failed)
    opened.on("request", on_request)
    opened.on("response", on_response)
    opened.goto(address)
    expect(opened.locator("#run")).to_be_visible(timeout=PATIENCE)
    yield opened
    context.close()
    assert not faults


def upload(page: Page, path: Path) -> None:
    page.locator("#source input[type=file]").set_input_files(str(path))


def set_number(page: Page, control: str, value: float) -> None:
    box = page.locator(f"#{control} input[type=number]")
    box.fill(str(value))
    box.press("Tab")


def frames_shown(page: Page, until: str, seconds: float = 60) -> list[int]:
    """The frame numbers that the caption said, until ``until`` is visible."""
    seen: list[int] = []
    end = time.monotonic() + seconds
    while not page.locator(until).is_visible():
        assert time.monotonic() < end, f"no {until}; frames seen: {seen}"
        captions = page.locator(".caption").all_inner_texts()
        found = re.search(r"Frame (\d+) of \d+", captions[0]) if captions else None
        if found and int(found[1]) not in seen:
            seen.append(int(found[1]))
        page.wait_for_timeout(50)
    return seen


def test_a_clip_is_restored_compared_and_downloaded(page: Page, long_clip: Path, tmp_path: Path):
    upload(page, long_clip)
    expect(page.locator("#facts")).to_contain_text("48 × 32 · 2400 frames", timeout=PATIENCE)
    expect(page.locator("#plan")).to_contain_text("192 × 128, 50 of 2400 frames")
    set_number(page, "consistency", 0.5)
    set_number(page, "detail", 1.25)
    set_number(page, "scale", 3)
    set_number(page, "seconds", 12)
    expect(page.locator("#plan")).to_contain_text("144 × 96, 120 of 2400 frames")
    page.click("#run")
    seen = frames_shown(page, "#download")
    assert len(seen) >= 3
    assert seen == sorted(seen)
    expect(page.locator("#pair img").first).to_be_visible()
    sources = pair_sources(page)
    set_number(page, "frame", 40)
    _wait_until(lambda: page.wait_for_timeout(50) or pair_sources(page) != sources, 20)
    page.get_by_role("tab", name="Play both").click()
    for player in ("bicubic", "restored"):
        ready = f"document.querySelector('#{player}-player video').readyState >= 2"
        page.wait_for_function(ready)
        width = page.evaluate(f"document.querySelector('#{player}-player video').videoWidth")
        assert width == 144
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "long-restored.mp4"
    download.value.save_as(tmp_path / "out.mp4")
    info = probe(tmp_path / "out.mp4")
    assert (info.width, info.height, info.num_frames, info.duration) == (144, 96, 120, 12)


def pair_sources(page: Page) -> list[str]:
    return page.evaluate("[...document.querySelectorAll('#pair img')].map(img => img.src)")


def test_cancel_stops_and_the_page_goes_on(page: Page, long_clip: Path, clip: Path):
    upload(page, long_clip)
    expect(page.locator("#facts")).to_contain_text("2400 frames", timeout=PATIENCE)
    set_number(page, "scale", 2)
    set_number(page, "seconds", 0)
    expect(page.locator("#plan")).to_contain_text("all 2400 frames")
    page.click("#run")
    expect(page.locator(".caption")).to_contain_text("of 2400", timeout=PATIENCE)
    page.click("#cancel")
    expect(page.locator("#message")).to_have_text("Stopped; nothing was kept.", timeout=10_000)
    expect(page.locator("#download")).not_to_be_visible()
    page.locator("#source button[aria-label='Clear']").or_(
        page.locator("#source button[aria-label='Remove this file']")
    ).first.click()
    expect(page.locator("#run")).to_be_disabled()
    upload(page, clip)
    expect(page.locator("#facts")).to_contain_text("12 frames", timeout=PATIENCE)
    page.click("#run")
    frames_shown(page, "#download")
    assert page.locator("#message .message").count() == 0


def test_no_clip_is_said_in_one_line_and_the_page_goes_on(
    page: Page, no_clip: Path, picture: Path, tmp_path: Path
):
    upload(page, no_clip)
    said = page.get_by_role("alert")
    expect(said).to_contain_text("letter.mp4 is no video or image", timeout=PATIENCE)
    assert "/" not in said.inner_text()
    expect(page.locator("#run")).to_be_disabled()
    page.locator("#source button[aria-label='Clear']").or_(
        page.locator("#source button[aria-label='Remove this file']")
    ).first.click()
    expect(said).to_have_count(0)
    upload(page, picture)
    expect(page.locator("#facts")).to_contain_text("33 × 21 · PNG", timeout=PATIENCE)
    page.click("#run")
    frames_shown(page, "#download")
    expect(page.get_by_role("tab", name="Play both")).not_to_be_visible()
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "out.png")
    assert (probe(tmp_path / "out.png").width, probe(tmp_path / "out.png").height) == (132, 84)


def test_a_closed_page_takes_its_files(browser, address: str, folder: Path, long_clip: Path):
    others = set(folder.glob("*/sessions/*"))
    page = browser.new_page()
    page.goto(address)
    upload(page, long_clip)
    expect(page.locator("#facts")).to_contain_text("2400 frames", timeout=PATIENCE)
    page.click("#run")
    expect(page.locator(".caption")).to_contain_text("Frame", timeout=PATIENCE)
    own = set(folder.glob("*/sessions/*")) - others
    assert len(own) == 1
    page.close()
    _wait_until(lambda: not any(place.exists() for place in own), 30)


@pytest.mark.parametrize("width", [390, 1280])
def test_an_example_fits_the_screen(page: Page, width: int):
    page.set_viewport_size({"width": width, "height": 800})
    page.click("#ex-city")
    expect(page.locator("#facts")).to_contain_text("256 × 144 · 75 frames", timeout=PATIENCE)
    expect(page.locator("#plan")).to_contain_text("1024 × 576, all 75 frames")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 1280:
        assert page.locator("#run").bounding_box()["y"] < 760
