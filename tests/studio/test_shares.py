"""What one visitor and one address may have under way at once."""

import asyncio

import pytest

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


@pytest.mark.parametrize(
    ("client", "headers", "address"),
    [
        ("9.9.9.9", {"x-forwarded-for": "1.1.1.1"}, "9.9.9.9"),  # anybody can send that
        ("127.0.0.1", {"x-forwarded-for": "6.6.6.6, 1.1.1.1"}, "1.1.1.1"),
        ("127.0.0.1", {}, ""),
    ],
)
def test_the_address_is_the_proxys_word_only_where_that_is_on_this_machine(
    client, headers, address
):
    assert address_of(client, headers) == address


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
