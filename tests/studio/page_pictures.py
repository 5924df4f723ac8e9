"""The README's pictures of the page, taken in a real Chromium with the compact model.

python -m tests.studio.page_pictures        # from the root of the repository; about a minute
"""

import io
import os
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
EXAMPLES, PICTURES = Path("examples"), Path("docs/pictures")
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 1157}
SECONDS = 0.4
"""Of the clip that is restored."""


def take_pictures() -> None:
    from playwright.sync_api import sync_playwright

    from tests.studio.conftest import serving

    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        with serving("compact", Path(place)) as address:
            page = opened(browser, address, "butterfly")
            page.evaluate(f"window.studioPage.strip.set({{start: 0, duration: {SECONDS}}})")
            page.click("#run")
            page.wait_for_function("window.studioPage.run.job?.frame >= 4", timeout=120_000)
            keep(page, "page_running")
            page.wait_for_function("!window.studioPage.run.isRunning", timeout=120_000)
            page.wait_for_timeout(2000)
            keep(page, "page")
            page.close()
            page = opened(browser, address, "film", color_scheme="dark")
            page.click("[data-mode=side]")
            page.wait_for_timeout(1000)
            keep(page, "page_dark")
            page.close()
            page = opened(browser, address, "city", viewport=NARROW)
            keep(page, "page_narrow")
        browser.close()


def opened(browser: Any, address: str, example: str, **look: Any) -> Any:
    """The page with an example of which a part has been restored."""
    page = browser.new_context(**{"viewport": WIDE, **look}).new_page()
    page.goto(address)
    page.wait_for_selector("[data-ready=true]", timeout=60_000)
    page.set_input_files("#file", str(EXAMPLES / f"{example}.mp4"))
    page.wait_for_function("window.studioPage.preview.count >= 1", timeout=60_000)
    page.wait_for_timeout(4000)
    return page


def keep(page: Any, name: str) -> None:
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.save(PICTURES / f"{name}.jpg", quality=85)


if __name__ == "__main__":
    take_pictures()
