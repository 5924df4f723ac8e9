"""The menu of models and the scenes' prompts in a real browser, with a Hub on this machine."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub, serve
from released import RELEASE, released_repos

from tests.studio.conftest import ROOT, serving
from tests.studio.pages import (
    PATIENCE,
    RESTORED,
    Page,
    download,
    expect,
    halves,
    previews,
    restore,
    set_range,
    settle,
    upload,
)

pytestmark = pytest.mark.browser

PAGE = ROOT / "tests" / "support" / "page_line.py"


@pytest.fixture(scope="module")
def far_hub() -> Iterator[Hub]:
    with serve() as hub:
        hub.repos = released_repos()
        yield hub


@pytest.fixture(scope="module")
def address(tiny_model: Path, tmp_path_factory, far_hub: Hub) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    home = str(tmp_path_factory.mktemp("home"))
    where = {"HF_ENDPOINT": far_hub.url, "HF_HOME": home, "HF_HUB_OFFLINE": "0"}
    with serving(tiny_model, folder, program=PAGE, **where) as served:
        yield served


def test_a_model_is_fetched_and_its_prompts_are_edited(
    page: Page, far_hub: Hub, cut_clip: Path, tmp_path: Path
):
    upload(page, cut_clip)
    set_range(page, "scale", 1)
    page.click("#advanced summary")
    expect(page.locator("#scenes")).to_be_hidden()  # this model has no text side
    offer, says = page.locator("#offer"), page.locator("#offer-says")

    # what would come is said, and nothing comes
    files = [pair for repo in far_hub.repos.values() for pair in repo.files.items()]
    whole = sum(len(content) for _, content in files)
    tagger = sum(len(content) for name, content in files if name.endswith(".pth"))
    size, bare = f"{whole / 1e6:.1f} MB", f"{(whole - tagger) / 1e6:.1f} MB"
    page.select_option("#model", "sd21")
    expect(says).to_contain_text(f"{size} to download")
    expect(says).to_contain_text("CreativeML Open RAIL++-M")
    page.click("#offer-more input")
    expect(says).to_contain_text(f"{bare} to download")
    page.click("#offer-leave")
    expect(offer).to_be_hidden()
    assert not far_hub.asked("GET", "/cdn/")

    # a source that is gone is one line in place, and the model in use stays
    gone = far_hub.repos.pop(RELEASE)
    page.select_option("#model", "sd21")
    expect(says).to_contain_text(RELEASE)
    far_hub.repos[RELEASE] = gone
    page.click("#offer-leave")
    page.select_option("#model", "sd21")
    expect(page.locator("#offer-take")).to_have_text(f"Download {size}")
    before = halves(page)[RESTORED]
    page.click("#offer-take")
    expect(page.locator("#model-name")).to_have_text("Model: sd21 (large)", timeout=PATIENCE)
    expect(offer).to_be_hidden()
    expect(page.locator("#scenes")).to_be_visible()
    settle(page)
    assert (halves(page)[RESTORED] != before).any()

    page.click("#scenes-find")
    prompts = page.locator("#scene-list input")
    expect(prompts).to_have_count(2, timeout=PATIENCE)
    expect(page.locator("#scenes-find")).to_have_text("Find again")
    labels = page.locator("#scene-list span")
    assert labels.all_inner_texts() == ["Frames 1 to 3", "Frames 4 to 6"]
    settle(page)
    count = previews(page)
    prompts.first.fill("a cat, at night,")
    prompts.first.press("Tab")
    page.wait_for_function(f"window.studioPage.preview.count > {count}")
    restore(page)
    kept = json.loads(download(page, "#settings-file", tmp_path).read_text())
    assert [scene["start"] for scene in kept["settings"]["scenes"]] == ["0", "3/5"]
    assert kept["settings"]["scenes"][0]["prompt"] == "a cat, at night,"
    assert kept["settings"]["scenes"][1]["prompt"] == prompts.nth(1).input_value()

    # as they were after a reload; and gone with the model that read them
    page.reload()
    page.wait_for_function("window.studioPage?.scenes.starts.length === 2", timeout=PATIENCE)
    assert page.locator("#scene-list input").first.input_value() == "a cat, at night,"
    expect(page.locator("#model")).to_be_visible()  # folds stay as they were left
    page.select_option("#model", "compact")
    expect(page.locator("#model-name")).to_have_text("Model: compact (fast)", timeout=PATIENCE)
    expect(page.locator("#scenes")).to_be_hidden()
    settle(page)
