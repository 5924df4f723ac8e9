"""The queue in a real browser: its order, pauses, settings of its own, files of this machine."""

from pathlib import Path

import pytest

from tests.studio.conftest import write_clip
from tests.studio.pages import PATIENCE, Page, expect, previews, upload

pytestmark = pytest.mark.browser


def entry(page: Page, name: str):
    return page.locator("#tray-list li", has_text=name)


def names(page: Page) -> list[str]:
    return page.locator("#tray-list strong").all_inner_texts()


def press(page: Page, name: str, act: str) -> None:
    entry(page, name).locator(f"[data-act={act}]").click()


def test_a_queue_is_paused_arranged_and_each_file_has_its_settings(
    page: Page, long_clip: Path, tmp_path: Path
):
    clips = [write_clip(tmp_path / f"file{index}.mp4", 8) for index in (1, 2)]
    page.set_input_files("#file", [str(long_clip), *map(str, clips)])
    expect(entry(page, "file2.mp4")).to_contain_text("2 clips ahead of yours", timeout=PATIENCE)
    assert names(page) == ["long.mp4", "file1.mp4", "file2.mp4"]
    press(page, "file2.mp4", "up")
    expect(page.locator("#tray-list strong").nth(1)).to_have_text("file2.mp4")
    expect(entry(page, "file2.mp4").locator("[data-act=down]")).to_be_enabled()

    # one of them is opened and gets a look of its own while it waits
    press(page, "file1.mp4", "open")
    expect(page.locator("#clip-name")).to_have_text("file1.mp4")
    expect(page.locator("#change")).to_be_hidden()
    page.click("[data-look=Calm]")
    page.click("#change")
    expect(page.locator("#change")).to_be_hidden()

    # what runs is paused, and the next begin
    press(page, "long.mp4", "pause")
    expect(entry(page, "long.mp4")).to_contain_text("Paused", timeout=PATIENCE)
    expect(page.locator("#made-with")).to_contain_text("Made with: Calm", timeout=PATIENCE)
    done = entry(page, "file2.mp4").locator("[data-act=download]")
    expect(done).to_be_visible(timeout=PATIENCE)
    press(page, "long.mp4", "resume")
    expect(entry(page, "long.mp4")).to_contain_text("Restoring", timeout=PATIENCE)
    press(page, "long.mp4", "cancel")
    expect(entry(page, "long.mp4").locator("[data-act=download]")).to_be_visible(timeout=PATIENCE)


def test_a_file_that_vanished_is_named_and_the_rest_goes_on(open_page, tmp_path: Path):
    page = open_page(strict=False)
    clips = [write_clip(tmp_path / f"file{index}.mp4", 8) for index in (1, 2, 3)]
    page.route("**/clip?name=file1.mp4", lambda route: (clips[1].unlink(), route.continue_()))
    page.set_input_files("#file", [str(clip) for clip in clips])
    message = page.locator("#message")
    expect(message).to_contain_text("file2.mp4 was moved or changed", timeout=PATIENCE)
    expect(page.locator("#tray-list [data-act=download]")).to_have_count(2, timeout=PATIENCE)
    expect(page.locator("#lost")).to_be_hidden()


def test_clips_of_this_machine_are_chosen_without_being_sent(page: Page, tmp_path: Path):
    (tmp_path / "clips").mkdir()
    write_clip(tmp_path / "clips" / "here.mp4", 8)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    page.click("#places-open")
    page.fill("#places-path", str(tmp_path / "nowhere"))
    page.keyboard.press("Enter")
    expect(page.locator("#places-says")).to_contain_text("cannot be opened")
    page.fill("#places-path", str(tmp_path))
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Folder clips").click()
    page.get_by_label("here.mp4").check()
    before = previews(page)
    page.click("#places-take")
    page.wait_for_function(f"window.studioPage.preview.count > {before}", timeout=PATIENCE)
    expect(page.locator("#clip-name")).to_have_text("here.mp4")
    assert not any("/clip?" in url for url in sent)
    # and a result goes into a folder of it
    page.click("#run")
    expect(page.locator("#results")).to_be_visible(timeout=PATIENCE)
    page.click("#close")
    page.click("#tray-keep")
    page.click("#places-take")
    expect(page.locator("#message")).to_contain_text("here-restored.mp4 saved in")
    assert (tmp_path / "clips" / "here-restored.mp4").is_file()


def test_a_job_that_is_shown_is_paused_and_resumed(page: Page, long_clip: Path):
    upload(page, long_clip)
    page.evaluate("window.studioPage.strip.set({start: 0, duration: null})")
    page.click("#run")
    expect(page.locator("#said")).to_contain_text("of 2400", timeout=PATIENCE)
    expect(page.locator("#warning")).to_be_hidden()
    page.click("#pause")
    expect(page.locator("#said")).to_contain_text("Paused at", timeout=PATIENCE)
    page.reload()
    expect(page.locator("#pause")).to_have_text("Resume", timeout=PATIENCE)
    page.click("#pause")
    expect(page.locator("#said")).to_contain_text("of 2400", timeout=PATIENCE)
    page.click("#cancel")
    expect(page.locator("#made-with")).to_contain_text("Partial result, ", timeout=PATIENCE)
