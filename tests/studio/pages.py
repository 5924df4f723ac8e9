"""Driving the page in a real Chromium, for the tests that do."""

import base64
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.studio.conftest import wait_until

sync_api = pytest.importorskip("playwright.sync_api")
Page = sync_api.Page
expect = sync_api.expect

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
SWITCHES = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
]
PATIENCE = 60_000
BICUBIC, RESTORED, PINNED, RESULT = 0, 1, 2, 3

READ_HALVES = """() => {
  const { halves, isPinned } = window.studioPage.viewer;
  return halves.slice(0, isPinned ? 3 : 2).map(canvas => {
    const { width, height } = canvas;
    const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
    let bytes = "";
    for (let at = 0; at < data.length; at += 32768) {
      bytes += String.fromCharCode(...data.subarray(at, at + 32768));
    }
    return { width, height, data: btoa(bytes) };
  });
}"""


def ready(page: Any) -> None:
    page.wait_for_selector("#studio [data-ready=true], #studio[data-ready=true]", timeout=PATIENCE)


def upload(page: Any, path: Path) -> None:
    before = previews(page)
    page.set_input_files("#file", str(path))
    page.wait_for_function(f"window.studioPage.preview.count > {before}", timeout=PATIENCE)
    settle(page)


def previews(page: Any) -> int:
    return page.evaluate("window.studioPage.preview.count")


def settle(page: Any) -> None:
    """Until no preview is computed any more."""
    page.wait_for_function("!window.studioPage.preview.running", timeout=PATIENCE)


def halves(page: Any) -> list[np.ndarray]:
    """The pictures that the viewer draws, (H,W,3) each: before, after, and a pinned look."""
    return [
        np.frombuffer(base64.b64decode(half["data"]), np.uint8).reshape(
            half["height"], half["width"], 4
        )[..., :3]
        for half in page.evaluate(READ_HALVES)
    ]


def set_range(page: Any, control: str, value: float) -> None:
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


def restore(page: Any) -> list[int]:
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
    shown = page.locator("[data-show=result]")
    expect(shown).to_have_text("Result", timeout=PATIENCE)  # no longer "Running": it is loaded
    expect(shown).to_have_attribute("aria-checked", "true")
    return seen


def download(page: Any, press: str, folder: Path) -> Path:
    with page.expect_download() as found:
        page.click(press)
    target = folder / found.value.suggested_filename
    found.value.save_as(target)
    return target
