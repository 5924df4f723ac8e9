"""What every call of the page keeps to, also when a stranger makes it."""

import json

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from dloral.studio.page import configuration
from dloral.studio.routes import build_routes
from tests.studio.conftest import send


@pytest.mark.parametrize(
    ("call", "body", "said"),
    [
        ("preview", {"frame": 0, "settings": {"scale": 99}}, "scale is 99"),
        ("preview", {"frame": 0, "settings": {"colour": 1}}, "'colour' is not a setting"),
        ("preview", {"frame": "x", "settings": {}}, "frame is 'x'"),
        ("preview", {"frame": float("inf"), "settings": {}}, "frame is 'inf'"),
        ("preview", {"pixels": float("nan"), "settings": {}}, "pixels is 'nan'"),
        ("preview", {"frame": 10**400, "settings": {}}, "frame is '1000"),
        ("preview", {"settings": 5}, "has no settings"),
        ("preview", [1], "not a JSON object"),
        ("plan", {"settings": {"detail": "much"}}, "detail is much"),
        ("plan", {"settings": {"start": float("1e400")}}, "start is inf"),
        ("plan", {"settings": {"start": 10**400}}, "start is 1000"),
        ("job", {"settings": {"format": "avi"}}, "format is 'avi'"),
        ("plan", {"settings": {"tile": -5}}, "is -5; give latent cells"),
        ("comparison?layout=x", {}, "'x' is not a layout"),
        ("comparison", {}, "the request has no layout"),
        ("example?name=../bar", {}, "is not an example"),
    ],
)
def test_nonsense_is_answered_in_one_line(browser, token, clip, call, body, said):
    send(browser, token, clip)
    headers = {"content-type": "application/json"}
    answer = browser.post(f"/{token}/{call}", content=json.dumps(body), headers=headers)
    assert answer.status_code == 200
    assert said in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("background?scale=2&frame=a", "frame is 'a'; give a whole number"),
        ("background?frame=0&scale=much", "scale is 'much'; give a number"),
        ("still", "the request has no frame"),
    ],
)
def test_nonsense_in_an_address_is_answered_in_one_line(browser, token, clip, call, said):
    answer = browser.get(f"/{token}/{call}")
    assert (answer.status_code, answer.json()) == (200, {"error": said})


def test_where_the_model_lies_is_told_to_nobody(browser, token, studio, tiny_model):
    told = browser.get(f"/{token}/state").text + json.dumps(configuration(studio))
    assert tiny_model.name in told
    assert str(tiny_model.parent) not in told


def test_a_call_that_is_no_json_is_refused(browser, token, clip):
    send(browser, token, clip)
    for headers in ({"content-type": "text/plain"}, {}):  # a foreign page may send both
        answer = browser.post(f"/{token}/plan", content=b'{"settings": {}}', headers=headers)
        assert "send application/json" in answer.json()["error"]


def test_the_pages_modules_are_served_and_looked_at_anew(studio, token):
    browser = TestClient(Starlette(routes=[Mount("/studio", build_routes(studio))]))
    for name in ("page.js", "pictures/wipe.mp4"):
        answer = browser.get(f"/studio/web/{name}")
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")
    assert browser.get(f"/studio/{token}/state").headers["cache-control"] == "private, no-store"
    for name in ("../page.py", "%2e%2e/page.py", "..%2fpage.py"):
        assert browser.get(f"/studio/web/{name}").status_code == 404
