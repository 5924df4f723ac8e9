"""Results as they are fetched and compared: by their visitor alone, as long as they last."""

import io

import pytest
from PIL import Image

from dloral.studio.face import FULL
from tests.studio.conftest import finish, send
from tests.studio.routes.conftest import no_space


def test_a_stranger_gets_nothing(browser, studio, token, clip):
    send(browser, token, clip)
    browser.post(f"/{token}/job", json={"settings": {"scale": 1}})
    result = finish(browser, token)["result"]
    other = studio.sessions.open()
    for name in (result["file"], result["viewer"]):
        assert browser.get(f"/{token}/files/{name}").status_code == 200
        assert browser.get(f"/{other}/files/{name}").status_code == 404
        assert browser.get(f"/nobody/files/{name}").status_code == 404
    assert browser.get("/nobody/state").json() == {"gone": True}
    assert browser.get(f"/{other}/state").json()["clip"] is None
    for call in ("thumbnails", "still?frame=0", "background?frame=0&scale=2"):
        assert "error" in browser.get(f"/{other}/{call}").json()


@pytest.mark.parametrize(
    "name", ["..%2F..%2Fsecret.txt", "%2Fetc%2Fpasswd", "..", "bar.mp4", "job.json"]
)
def test_no_other_file_can_be_named(browser, token, clip, name):
    send(browser, token, clip)
    browser.post(f"/{token}/job", json={"settings": {"scale": 1}})
    finish(browser, token)
    assert browser.get(f"/{token}/files/{name}").status_code in (404, 405)


def test_a_result_can_be_asked_about_and_fetched_in_parts(browser, token, clip):
    """As download managers and players do."""
    send(browser, token, clip)
    browser.post(f"/{token}/job", json={"settings": {"scale": 1}})
    address = f"/{token}/files/{finish(browser, token)['result']['file']}"
    whole, asked = browser.get(address), browser.head(address)
    assert (asked.status_code, asked.content) == (200, b"")
    assert asked.headers["content-length"] == str(len(whole.content))
    assert asked.headers["accept-ranges"] == "bytes"
    part = browser.get(address, headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole.content[100:200])
    assert browser.head(address + "x").status_code == 404


@pytest.mark.parametrize("kept_as", ["gif", "webp"])
def test_a_comparison_is_a_short_loop(browser, token, clip, kept_as):
    send(browser, token, clip)
    browser.post(f"/{token}/job", json={"settings": {"scale": 2}})
    finish(browser, token)
    made = browser.post(f"/{token}/comparison?layout=side&format={kept_as}").json()["file"]
    assert made == f"bar-comparison-side-loop.{kept_as}"
    with Image.open(io.BytesIO(browser.get(f"/{token}/files/{made}").content)) as loop:
        assert loop.size == (192, 64)
        assert loop.n_frames >= 10
        assert loop.info["loop"] == 0


def test_a_disk_that_is_full_for_a_comparison_is_said(browser, token, clip, monkeypatch):
    send(browser, token, clip)
    browser.post(f"/{token}/job", json={"settings": {"scale": 1}})
    finish(browser, token)
    monkeypatch.setattr("dloral.studio.comparison.open_writer", no_space)
    made = browser.post(f"/{token}/comparison?layout=side")
    assert made.json() == {"error": FULL}


@pytest.mark.parametrize("how", ["too old", "removed"])
def test_a_result_that_is_gone_is_said_by_every_call(browser, token, clip, studio, how):
    send(browser, token, clip)
    browser.post(f"/{token}/job", json={"settings": {"scale": 1}})
    result = finish(browser, token)["result"]
    session = studio.sessions.find(token)
    if how == "too old":
        session.forget_old_result(10, 1)
        session.forget_old_result(10, 12)
    else:
        session.result.file.unlink()
    gone = {"error": "The result no longer exists; restore the clip again."}
    assert browser.get(f"/{token}/still?frame=0").json() == gone
    assert browser.get(f"/{token}/thumbnail").json() == gone
    assert browser.post(f"/{token}/comparison?layout=wipe").json() == gone
    assert browser.get(f"/{token}/files/{result['file']}").status_code == 404
    state = browser.get(f"/{token}/state").json()
    assert (state["result"], state["clip"]["name"]) == (None, "bar.mp4")
    shown = browser.post("/visits", json={"tokens": [token]}).json()["visits"][token]
    assert shown["result"] is None
