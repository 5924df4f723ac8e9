"""WCAG 2.2 AA by axe-core, in nine states of the page, light and dark; focus and motion."""

from pathlib import Path

import pytest

from tests.studio.conftest import ROOT, write_clip
from tests.studio.pages import PATIENCE, Page, expect, ready, restore, upload

pytestmark = pytest.mark.browser

AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"

RUN_AXE = """async () => {
  const found = await axe.run(document, {
    runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    resultTypes: ["violations"],
  });
  const words = ({ target, failureSummary }) => `${target} ${failureSummary.split("\\n")[1] ?? ""}`;
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map(words).join(" | ")}`);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_nine_states(open_page, scheme: str, tmp_path: Path, no_clip: Path):
    if not AXE.is_file():
        pytest.skip("axe-core is not there; `npm ci` brings it")
    page = open_page(color_scheme=scheme)
    page.add_script_tag(path=str(AXE))
    found: dict[str, list[str]] = {}

    def look(state: str) -> None:
        page.wait_for_timeout(250)  # transitions of colours
        if violations := page.evaluate(RUN_AXE):
            found[state] = violations

    look("first screen")
    page.set_input_files("#file", str(no_clip))
    expect(page.locator("#message")).to_contain_text("letter.mp4", timeout=PATIENCE)
    look("error")
    upload(page, write_clip(tmp_path / "bar.mp4", 160))
    look("clip")
    page.click("#tuning summary")
    page.click("#advanced summary")
    look("everything open")
    page.click("#pin")
    page.keyboard.press("3")
    look("side by side with a pinned look")
    page.click("#sheet-open")
    expect(page.locator("#sheet .ready")).to_have_count(9, timeout=PATIENCE)
    look("contact sheet")
    page.keyboard.press("Escape")
    page.click("#run")
    expect(page.locator("#said")).to_contain_text("Restoring", timeout=PATIENCE)
    look("running")
    expect(page.locator("#results")).to_be_visible(timeout=PATIENCE)
    page.click("#measures-open")
    look("result")
    page.click("#close")
    expect(page.locator("#tray-list li")).to_have_count(1, timeout=PATIENCE)
    look("tray")
    assert not found


def test_each_group_is_one_stop_of_the_tab_key_and_focus_is_kept(page: Page, clip: Path):
    page.focus("#choose")
    upload(page, clip)
    expect(page.locator("#run")).to_be_focused()
    for group in ("size", "look", "modes", "shown"):
        assert page.locator(f"#{group} [tabindex='0']").count() == 1
    page.focus("#modes [tabindex='0']")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#modes [data-mode=wipe-h]")).to_be_focused()
    expect(page.locator("#stage")).to_have_attribute("data-mode", "wipe-h")
    assert (
        page.locator("#handle")
        .get_attribute("aria-valuetext")
        .endswith("Before (plain enlargement)")
    )
    assert page.locator("#seek").get_attribute("aria-valuetext") == "frame 1 of 12, 0.0 seconds"
    page.focus("#run")
    restore(page)
    assert page.evaluate("document.activeElement.id") in ("results", "run", "cancel")


def test_who_wants_little_motion_gets_a_still_picture(open_page):
    page = open_page(reduced_motion="reduce")
    ready(page)
    assert page.evaluate("document.querySelector('#wipe').paused")
    expect(page.locator("#wipe-pause")).to_have_attribute("aria-label", "Play the animation")
