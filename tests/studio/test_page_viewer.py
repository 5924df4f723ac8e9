"""The viewer and the steering in a real browser: what is drawn is what it says."""

from pathlib import Path

import numpy as np
import pytest

from tests.studio.pages import (
    BICUBIC,
    PATIENCE,
    PINNED,
    RESTORED,
    RESULT,
    Page,
    expect,
    frame_of,
    halves,
    previews,
    restore,
    set_range,
    settle,
    upload,
)

pytestmark = pytest.mark.browser


def test_both_halves_show_the_same_frame_however_it_is_reached(page: Page, clip: Path):
    upload(page, clip)
    page.focus("#stage")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    settle(page)
    assert [frame_of(half) for half in halves(page)[:2]] == [3, 3]
    restore(page)
    where = page.locator("#where")

    def at(frame: int) -> None:
        expect(where).to_contain_text(f"Frame {frame + 1} of 12 · {frame / 10:.2f} s")
        page.wait_for_function(f"window.studioPage.player.index === {frame}")
        assert [frame_of(half) for half in halves(page)[:2]] == [frame, frame]

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
        pair = [frame_of(half) for half in halves(page)[:2]]
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
    page.keyboard.press("0")  # one pixel to one, though all of it fits
    expect(page.locator("#zoom")).to_have_text("100 %")
    page.keyboard.press("Shift+Digit2")
    expect(page.locator("#zoom")).to_have_text("200 %")
    page.keyboard.press("0")
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
    page.click("#tuning summary")
    for name in ("consistency-on", "detail-on"):
        page.locator(f"#{name}").set_checked(False, force=True)
    set_range(page, "strength", 0)
    settle(page)
    page.wait_for_timeout(200)
    assert page.evaluate(drawn) < 0.3


def test_pad_strength_and_contact_sheet(page: Page, clip: Path):
    upload(page, clip)
    page.click("#tuning summary")
    pad = page.locator("#pad").bounding_box()
    knob = 14
    across, down = ((pad[side] - knob) / 4 + knob / 2 for side in ("width", "height"))
    page.mouse.click(pad["x"] + across, pad["y"] + down)
    assert page.locator("output[for=consistency]").inner_text() == "0.50"
    assert page.locator("output[for=detail]").inner_text() == "1.50"
    page.keyboard.press("ArrowUp")
    assert page.locator("output[for=detail]").inner_text() == "1.55"
    page.click("#sheet-open")
    expect(page.locator("#sheet .cells .ready")).to_have_count(9, timeout=PATIENCE)
    expect(page.locator("#sheet [aria-current]")).to_contain_text("consistency 0.50 · detail 1.55")
    page.locator("#sheet .cells button").first.click()
    assert page.locator("output[for=consistency]").inner_text() == "off"
    assert page.locator("output[for=detail]").inner_text() == "2.00"
    settle(page)
    count = previews(page)
    set_range(page, "strength", 0.5)
    page.wait_for_timeout(300)
    assert previews(page) == count  # mixed in the browser: nothing is computed
    assert page.evaluate("window.studioPage.viewer.strength") == 0.5


def test_a_burst_of_moves_computes_few_and_ends_at_the_last(page: Page, clip: Path):
    upload(page, clip)
    count = previews(page)
    # in one go, for a hand is faster than a driven browser
    page.locator("#detail").evaluate(
        "input => { for (let move = 0; move <= 30; move += 1) { input.value = move / 20;"
        " input.dispatchEvent(new Event('input', {bubbles: true})); } }"
    )
    settle(page)
    assert previews(page) - count <= 2
    made = page.evaluate("window.studioPage.settings().detail")
    assert made == 1.5


def test_the_result_is_compared_with_a_pinned_look_and_the_dials_of_now(page: Page, clip: Path):
    upload(page, clip)
    restore(page)
    page.click("[data-show=preview]")
    offered = page.locator("#side-a option")
    expect(offered).to_have_text(["Before", "Current settings", "Result"])
    page.click("#pin")
    page.keyboard.press("ArrowRight")  # the next frame
    page.select_option("#side-b", label="Result")
    page.wait_for_function("window.studioPage.viewer.halves[3].width === 192")
    settle(page)
    assert page.evaluate("window.studioPage.viewer.pair") == [PINNED, RESULT]
    expect(page.locator("#tag-b")).to_contain_text("Result: Natural")
    page.click("[data-show=result]")
    assert page.evaluate("window.studioPage.viewer.pair") == [BICUBIC, RESTORED]


def test_a_pinned_look_is_compared_with_the_dials_of_now(page: Page, clip: Path):
    upload(page, clip)
    pinned = halves(page)[RESTORED]
    page.click("#pin")
    count = previews(page)
    page.click("#look [data-look=Crisp]")
    page.wait_for_function(f"window.studioPage.preview.count > {count}")
    settle(page)
    now = halves(page)
    assert np.array_equal(now[PINNED], pinned)
    assert not np.array_equal(now[RESTORED], pinned)
    expect(page.locator("#tag-a")).to_contain_text("Pinned: Natural")
    expect(page.locator("#tag-b")).to_contain_text("Current: Crisp")
    # another frame: both looks are made of it
    page.keyboard.press("End")
    page.wait_for_function("window.studioPage.frame === 11")
    settle(page)
    assert [frame_of(half) for half in halves(page)] == [11, 11, 11]
    page.click("#pin")
    expect(page.locator("#tag-a")).to_contain_text("Before")


def test_keys_work_after_a_press_on_any_button(page: Page, clip: Path):
    upload(page, clip)
    for button, key, mode in (
        ("#zoom-in", "3", "side"),
        ("#look [data-look=Calm]", "4", "flip"),
        ("#loop", "2", "wipe-h"),
    ):
        page.locator(button).click(force=True)
        page.keyboard.press(key)
        expect(page.locator("#stage")).to_have_attribute("data-mode", mode)
    page.focus("#part-start")
    page.keyboard.press("1")  # a digit of the number
    expect(page.locator("#stage")).to_have_attribute("data-mode", "wipe-h")


def test_the_rest_of_the_frame_is_restored_while_nothing_else_is_wanted(page: Page, picture: Path):
    page.evaluate("window.studioPage.preview.pixels = 64 * 40")
    upload(page, picture)
    page.wait_for_function("window.studioPage.preview.isWhole", timeout=PATIENCE)
    expect(page.locator("#tag-b")).to_have_text("Restored")
    before, after = halves(page)[:2]
    assert after.shape == (84, 132, 3)
    assert (np.abs(after.astype(int) - before).reshape(-1, 3).max(axis=1) > 0).mean() > 0.5
    # a press on what is not restored moves the part there
    page.evaluate("window.studioPage.preview.mayFill = () => false")
    count = previews(page)
    set_range(page, "detail", 0.3)
    page.wait_for_function(f"window.studioPage.preview.count > {count}")
    settle(page)
    expect(page.locator("#tag-b")).to_contain_text("so far")
    region = page.evaluate("window.studioPage.preview.region")
    stage = page.locator("#stage").bounding_box()
    x = 0.2 if region["x"] > 30 else 0.8
    page.mouse.click(stage["x"] + x * stage["width"], stage["y"] + 0.85 * stage["height"])
    page.wait_for_function(f"window.studioPage.preview.region.x !== {region['x']}")


def test_a_second_of_the_preview_is_played(page: Page, clip: Path):
    upload(page, clip)
    page.click("#play")  # there is nothing else to play yet
    expect(page.locator("#motion")).to_have_text("Back to the frame", timeout=PATIENCE)
    numbers = set()
    for _ in range(40):
        numbers.add(frame_of(halves(page)[RESTORED]))
        page.wait_for_timeout(25)
    assert len(numbers) >= 3
    page.click("#motion")
    settle(page)
    assert [frame_of(half) for half in halves(page)[:2]] == [0, 0]
