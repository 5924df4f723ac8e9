"""Visitors in a real browser: several at once, gone, cut off, locked out."""

import zipfile
from pathlib import Path

import pytest

from dloral.video.probe import probe
from tests.studio.conftest import serving, wait_until, write_clip
from tests.studio.pages import PATIENCE, download, expect, previews, ready, set_range, upload

pytestmark = pytest.mark.browser


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
    expect(pages[1].locator("#said")).to_contain_text("1 clip ahead of yours")
    expect(pages[2].locator("#said")).to_contain_text("2 clips ahead of yours")
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
    assert page.locator("output[for=detail]").text_content() == "0.10"


def test_a_closed_page_takes_its_files_but_not_a_running_job(open_page, folder: Path, clip: Path):
    page = open_page()
    before = set(folder.with_suffix(".data").glob("sessions/*/*/bar.mp4"))
    upload(page, clip)
    own = set(folder.with_suffix(".data").glob("sessions/*/*/bar.mp4")) - before
    assert len(own) == 1
    page.close()
    wait_until(lambda: not any(path.exists() for path in own), 40)


def test_a_job_outlives_its_page_and_is_found_again(open_page, tmp_path: Path):
    """The page is closed while a clip is restored; one opened by its address shows it."""
    page = open_page()
    context = page.context
    upload(page, write_clip(tmp_path / "bar.mp4", 300))
    page.evaluate("window.studioPage.strip.set({start: 0, duration: null})")
    page.click("#run")
    expect(page.locator("#said")).to_contain_text("of 300", timeout=PATIENCE)
    address = page.url
    page.close()
    again = context.new_page()
    again.goto(address)
    ready(again)
    expect(again.locator("#clip-name")).to_have_text("bar.mp4", timeout=PATIENCE)
    expect(again.locator("#results")).to_be_visible(timeout=PATIENCE)
    again.wait_for_function("window.studioPage.player.result !== null", timeout=PATIENCE)
    # another clip leaves it among the results
    upload(again, tmp_path / "bar.mp4")
    expect(again.locator("#tray-list li")).to_have_count(1, timeout=PATIENCE)
    again.click("#close")
    expect(again.locator("#message")).to_contain_text("bar.mp4 closed")
    again.click("#undo")
    expect(again.locator("#clip-name")).to_have_text("bar.mp4")


def test_three_files_make_a_queue(open_page, tmp_path: Path):
    page = open_page()
    clips = [write_clip(tmp_path / f"file{index}.mp4", 8 + index) for index in range(3)]
    page.set_input_files("#file", [str(clip) for clip in clips])
    done = page.locator("#tray-list [data-act=download]")
    expect(done).to_have_count(3, timeout=PATIENCE)
    for clip in clips:
        expect(page.locator("#tray-list")).to_contain_text(clip.name)
    kept = download(page, "#tray-all", tmp_path)
    assert kept.name == "restored.zip"
    with zipfile.ZipFile(kept) as archive:
        archive.extractall(tmp_path / "kept")
    made = {path.name: probe(path) for path in (tmp_path / "kept").iterdir()}
    frames = {name: (info.width, info.height, info.num_frames) for name, info in made.items()}
    assert frames == {f"file{index}-restored.mp4": (192, 128, 8 + index) for index in range(3)}
    page.locator("#tray-list [data-act=open]").first.click()
    page.wait_for_function("window.studioPage.player.result !== null", timeout=PATIENCE)
    expect(page.locator("#tray-list li")).to_have_count(2)
    page.locator("#tray-list [data-act=compare]").first.click()
    expect(page.locator("#tag-a")).to_contain_text("Other: Natural", timeout=PATIENCE)


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
