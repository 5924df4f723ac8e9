"""Which pages may call the server: its own, by whatever name it is reached, and no other site's."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dloral.studio.origins import Origins, own_addresses
from dloral.studio.server import build_page, build_parser, build_studio, hygiene, launch_page

ADDRESS = "127.0.0.1:7860"
TOKEN = "/gradio_api/token"


@pytest.mark.parametrize(
    ("origin", "headers", "is_own"),
    [
        ("http://127.0.0.1:7860", {"host": ADDRESS}, True),
        ("http://[::1]:7860", {"host": "[::1]:7860"}, True),
        ("http://localhost:7860", {"host": ADDRESS}, False),
        ("http://127.0.0.1:9000", {"host": ADDRESS}, False),
        ("null", {"host": ADDRESS}, False),
        ("null", {"host": "null"}, False),
        ("", {}, False),
        ("http://", {}, False),
        ("chrome-extension://127.0.0.1:7860", {"host": ADDRESS}, False),
        ("http://[::1", {"host": "[::1"}, False),
        # behind nginx, which ends the encryption and passes the name on
        ("https://restore.example.org", {"host": "restore.example.org"}, True),
        ("https://Restore.example.org", {"host": "restore.example.org:443"}, True),
        (
            "https://restore.example.org",
            {"host": ADDRESS, "x-forwarded-host": "restore.example.org, inner.example"},
            True,
        ),
        ("https://evil.example", {"host": ADDRESS, "x-forwarded-host": "a.example"}, False),
        ("https://example.org", {"host": "restore.example.org"}, False),
        # through Gradio's tunnel, which leaves the name as it is
        ("https://0123abcd.gradio.live", {"host": "0123abcd.gradio.live"}, True),
        ("https://another.gradio.live", {"host": "0123abcd.gradio.live"}, False),
    ],
)
def test_a_page_is_the_servers_own_by_the_name_that_it_called(origin, headers, is_own):
    assert Origins().is_own(origin, headers) == is_own


def test_names_that_the_page_is_known_by_are_its_own(monkeypatch):
    for name in ("SPACE_HOST", "GRADIO_ROOT_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert own_addresses() == []
    monkeypatch.setenv("GRADIO_ROOT_PATH", "/restore")
    assert own_addresses() == []
    monkeypatch.setenv("GRADIO_ROOT_PATH", "https://all.example/restore")
    monkeypatch.setenv("SPACE_HOST", "ann-page.hf.space")
    origins = Origins(own_addresses())
    origins.add("https://0123abcd.gradio.live")
    inner = {"host": ADDRESS}
    assert origins.is_own("https://all.example", inner)
    assert origins.is_own("https://ann-page.hf.space", inner)
    assert origins.is_own("https://0123abcd.gradio.live", inner)
    assert not origins.is_own("https://bob-page.hf.space", inner)


@pytest.mark.parametrize(
    ("origin", "is_guest"),
    [
        ("https://huggingface.co", True),
        ("https://ann-page.hf.space", True),
        ("http://ann-page.hf.space", False),
        ("https://hf.space", False),
        ("https://evilhf.space", False),
        ("https://huggingface.co.evil.example", False),
        ("https://ann.hf.space:8443", False),
        ("null", False),
        ("", False),
    ],
)
def test_hugging_faces_pages_are_guests_where_they_may_frame_the_page(origin, is_guest):
    assert hygiene(options("--allow-framing"))["origins"].is_guest(origin) == is_guest
    assert not hygiene(options())["origins"].is_guest(origin)


def test_nobodys_space_is_a_guest_of_a_page_with_a_login():
    origins = hygiene(options("--allow-framing", "--auth", "me:secret"))["origins"]
    assert origins.is_guest("https://huggingface.co")
    assert not origins.is_guest("https://ann-page.hf.space")


def options(*arguments: str):
    return build_parser().parse_args(arguments)


@contextmanager
def served(folder: Path, *arguments: str) -> Iterator[str]:
    """A whole page in this process, Gradio's part of it too; its address."""
    chosen = options(*arguments)
    studio = build_studio(folder / "sessions", chosen)
    blocks = build_page(studio)
    launch_page(blocks, studio, chosen)
    try:
        yield blocks.local_url
    finally:
        blocks.close(verbose=False)
        studio.sessions.close_all()


def call(address: str, method: str, path: str, body: str = "", **headers: str):
    """Status, headers and text of an answer; underlines in names of headers stand for dashes."""
    url = urlsplit(address)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, {"host": url.netloc} | given)
    response = connection.getresponse()
    found = response.status, response.headers, response.read().decode()
    connection.close()
    return found


def may_read(headers: http.client.HTTPMessage) -> bool:
    """Whether a browser lets another site's page read an answer."""
    return any(name.lower().startswith("access-control-") for name in headers)


def test_no_other_site_reads_a_visitors_login(tmp_path: Path):
    """With Gradio's own CORS rules in place, which let any site read it under a public name."""
    page = "restore.example.org"
    with served(tmp_path, "--auth", "me:secret", "--allow-host", page) as address:
        form = {"content_type": "application/x-www-form-urlencoded", "host": page}
        form |= {"origin": f"https://{page}"}
        login = "username=me&password=secret"
        status, headers, _ = call(address, "POST", "/login", login, **form)
        assert status == 200
        cookie = headers.get_all("set-cookie")[0].partition(";")[0]  # of SameSite=None

        own = {"host": page, "cookie": cookie, "origin": f"https://{page}"}
        assert call(address, "GET", TOKEN, **own)[0] == 200
        del own["origin"]  # as browsers do for what they get, and as other programs do
        status, headers, text = call(address, "GET", TOKEN, **own)
        assert (status, json.loads(text)["user"]) == (200, "me")
        assert not may_read(headers)

        for origin in ("https://evil.example", "null"):
            status, headers, text = call(address, "GET", TOKEN, **own, origin=origin)
            assert status == 403
            assert json.loads(text)["error"].startswith("another site's page cannot call")
            assert not may_read(headers)
            asked = {"access_control_request_method": "POST", "origin": origin}
            status, headers, _ = call(address, "OPTIONS", TOKEN, **own, **asked)
            assert status == 403
            assert not may_read(headers)
            assert call(address, "POST", "/login", login, **form | {"origin": origin})[0] == 403
        assert "content-security-policy" in headers


def test_a_guests_page_reads_what_it_asks_for(tmp_path: Path):
    guest = {"origin": "https://ann-page.hf.space", "host": "restore.example.org"}
    with served(tmp_path, "--allow-framing", "--host", "0.0.0.0") as address:
        status, headers, _ = call(address, "GET", "/gradio_api/info", **guest)
        assert status == 200
        assert headers["access-control-allow-origin"] == guest["origin"]


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_a_page_is_served_by_ipv6(tmp_path: Path, host: str):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:  # built in, but the machine has no address
        pytest.skip("needs IPv6")
    with served(tmp_path, "--host", host) as address:
        assert address.startswith("http://[::1]:")
        status, _, text = call(address, "GET", "/healthz")
        assert (status, json.loads(text)["status"]) == (200, "ok")
        origin = address.rstrip("/")
        assert call(address, "GET", "/gradio_api/info", origin=origin)[0] == 200
