"""What one visitor and one address may have under way at once."""

import asyncio

import pytest
from uvicorn import Config

from dloral.errors import InputError
from dloral.studio import sessions, shares
from dloral.studio.models import Models
from dloral.studio.runtime import JobQueue, Model
from dloral.studio.sessions import Sessions
from dloral.studio.shares import BusyError, Shares, address_of


def run(calls, seconds=0.05):
    """How many of the calls (path, address) were at work at once, in all and by path."""
    most: dict[str, int] = {}
    now: dict[str, int] = {}

    async def call(places, path, address):
        async with places.place(path, address):
            for name in (path, "all"):
                now[name] = now.get(name, 0) + 1
                most[name] = max(most.get(name, 0), now[name])
            await asyncio.sleep(seconds)
            for name in (path, "all"):
                now[name] -= 1

    async def every():
        places = Shares()
        found = await asyncio.gather(
            *(call(places, *each) for each in calls), return_exceptions=True
        )
        assert not places._places
        return found

    return most, asyncio.run(every())


def test_one_visitor_has_four_heavy_calls_and_others_have_theirs():
    one, two = "/studio/abc/thumbnails", "/studio/def/preview"
    most, found = run([(one, "")] * 10 + [(two, "")] * 3)
    assert most == {one: 4, two: 3, "all": 7}
    assert found == [None] * 13


@pytest.mark.parametrize("path", ["/studio/abc/job/resume", "/studio/abc/job/retry"])
def test_calls_that_wait_for_their_visit_take_no_more_threads_than_others(path: str):
    """Else who sends many of them while a file is looked at would have every thread."""
    most, _ = run([(path, "")] * 10)
    assert most["all"] == shares.OF_VISITOR
    assert not shares.uses_file(path)


def test_light_calls_wait_for_nobody():
    most, _ = run([("/studio/abc/state", "1.2.3.4")] * 100)
    assert most["all"] == 100


def test_visitors_of_one_address_share_its_places_and_all_share_the_servers():
    of_one = [(f"/studio/{name}/still", "1.2.3.4") for name in "abcd" for _ in range(4)]
    assert run(of_one)[0]["all"] == shares.OF_ADDRESS
    everybody = [(f"/studio/{name}/still", f"1.2.3.{name}") for name in "abcdef" for _ in range(4)]
    assert run(everybody)[0]["all"] == shares.OF_ALL


def test_a_flood_of_one_visitor_is_refused_in_part():
    _, found = run([("/studio/abc/thumbnails", "")] * 100, 0.001)
    refused = [one for one in found if isinstance(one, BusyError)]
    assert len(refused) == 100 - shares.OF_VISITOR - shares.MOST_WAITING


def address_behind_uvicorn(peer: str, headers: dict[str, str]) -> str:
    """The address of a call from ``peer``, which uvicorn takes in as it does for the page."""
    found = []

    async def app(scope, receive, send) -> None:
        names = {name.decode(): value.decode() for name, value in scope["headers"]}
        found.append(address_of(scope["client"][0], names))

    server = Config(app, lifespan="off", log_config=None)
    server.load()
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "client": (peer, 4711), "headers": pairs}
    asyncio.run(server.loaded_app(scope, None, None))
    return found[0]


HERE, HTTPS = {"host": "127.0.0.1:7860"}, {"x-forwarded-proto": "https"}
THERE = {"host": "restore.example.org"}


@pytest.mark.parametrize(
    ("peer", "headers", "address"),
    [
        ("9.9.9.9", {"x-forwarded-for": "1.1.1.1"}, "9.9.9.9"),  # anybody can send that
        ("127.0.0.1", {"x-forwarded-for": "6.6.6.6, 1.1.1.1"}, "1.1.1.1"),
        ("127.0.0.1", {"x-forwarded-for": "6.6.6.6, 2001:db8::7"}, "2001:db8::7"),
        ("127.0.0.1", {"x-forwarded-for": "6.6.6.6, 1.1.1.1, 127.0.0.1"}, "1.1.1.1"),
        ("127.0.0.1", {"x-forwarded-for": "127.0.0.1"}, "127.0.0.1"),
        ("127.0.0.1", HERE, ""),
        ("::1", {"host": "[::1]:7860"}, ""),
        ("127.0.0.1", THERE, "127.0.0.1"),  # a proxy that says nothing else, such as --share's
        ("127.0.0.1", HERE | HTTPS, "127.0.0.1"),
    ],
)
def test_the_address_is_the_last_that_a_proxy_on_this_machine_added(peer, headers, address):
    assert address_behind_uvicorn(peer, headers) == address


@pytest.mark.parametrize(
    ("variables", "peer", "told", "address"),
    [
        ({"FORWARDED_ALLOW_IPS": "172.17.0.1"}, "172.17.0.1", "6.6.6.6, 1.1.1.1", "1.1.1.1"),
        ({"FORWARDED_ALLOW_IPS": "*"}, "172.17.0.1", "6.6.6.6, 1.1.1.1:4711", "1.1.1.1"),
        ({"FORWARDED_ALLOW_IPS": "*"}, "172.17.0.1", "127.0.0.1, [2001:db8::7]:1", "2001:db8::7"),
        ({"FORWARDED_ALLOW_IPS": "*"}, "9.9.9.9", "", "9.9.9.9"),
        ({}, "10.16.3.80", "6.6.6.6, 1.1.1.1", "10.16.3.80"),
        ({"SPACE_ID": "ann/page"}, "10.16.3.80", "6.6.6.6, 1.1.1.1", "1.1.1.1"),
        ({"SPACE_ID": "ann/page"}, "10.16.3.80", "6.6.6.6, 1.1.1.1, 10.0.0.3", "1.1.1.1"),
        ({"SPACE_ID": "ann/page"}, "10.16.3.80", "", "10.16.3.80"),
        ({"SPACE_ID": "ann/page"}, "9.9.9.9", "1.1.1.1", "9.9.9.9"),
    ],
)
def test_proxies_elsewhere_are_those_of_the_environment(
    variables, peer, told, address, monkeypatch
):
    for name in ("FORWARDED_ALLOW_IPS", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    headers = THERE | HTTPS | ({"x-forwarded-for": told} if told else {})
    assert address_behind_uvicorn(peer, headers) == address


def test_an_address_has_so_many_visits_and_empty_ones_go_first(tmp_path, clip, monkeypatch):
    monkeypatch.setattr(sessions, "MOST_OF_ADDRESS", 3)
    everybody = Sessions(tmp_path / "s", Models(Model("unused")), JobQueue())
    try:
        first = everybody.open("1.2.3.4")
        everybody.find(first).open_clip("a.mp4", lambda copy: copy.write_bytes(clip.read_bytes()))
        second = everybody.open("1.2.3.4")
        for _ in range(20):
            last = everybody.open("1.2.3.4")
        assert len(everybody) == 3
        assert everybody.find(first)
        assert everybody.find(last)
        assert not everybody.find(second)
        assert everybody.find(everybody.open("5.6.7.8"))
        for _ in range(5):
            everybody.open("")  # of this machine itself
        token = everybody.open("7.7.7.7")
        everybody.find(token).open_clip("a.mp4", lambda copy: copy.write_bytes(clip.read_bytes()))
        monkeypatch.setattr(sessions, "MOST_OF_ADDRESS", 1)
        with pytest.raises(InputError, match="1 visits are open, which is the limit"):
            everybody.open("7.7.7.7")
    finally:
        everybody.close_all()
