"""Clips at a web address, from a server of this machine whose host is taken for a public one."""

import asyncio
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gradio as gr
import pytest
import safehttpx

from dloral.errors import InputError
from dloral.studio.checked_calls import CheckedBlocks
from dloral.studio.disk import Disk
from dloral.studio.fetching import fetch_clip
from dloral.studio.limits import Limits


class Server(SimpleHTTPRequestHandler):
    """Its files; ``/endless``, of no length; ``/moved``, which leads to another host."""

    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("location", "http://secret.example/bar.mp4")
            self.end_headers()
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(100_000))
            except OSError:
                return
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def address(clip: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    async def ip_of(host: str) -> str:
        if host != "clips.example":
            raise ValueError(f"Hostname {host} failed validation")
        return "127.0.0.1"

    monkeypatch.setattr(safehttpx, "async_validate_url", ip_of)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=str(clip.parent)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://clips.example:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(address: str, folder: Path, limits: Limits) -> Path:
    return asyncio.run(fetch_clip(address, folder, limits))


def test_a_file_is_fetched_under_its_name(address, clip, tmp_path):
    found = fetch(f"{address}bar.mp4?x=1", tmp_path, Limits(10**6))
    assert found.name == "bar.mp4"
    assert found.read_bytes() == clip.read_bytes()


def test_a_call_may_name_an_address(address, clip, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with CheckedBlocks(Limits(10**6)) as blocks:
        gr.Button().click(str, gr.File(label="clip"), gr.File())
    given = {"path": f"{address}bar.mp4", "meta": {"_type": "gradio.FileData"}}
    (found,) = asyncio.run(blocks.preprocess_data(blocks.fns[0], [given], None))
    assert Path(found).read_bytes() == clip.read_bytes()
    assert tmp_path in Path(found).parents


@pytest.mark.parametrize(
    ("path", "limits", "said"),
    [
        ("endless", Limits(10**6), "exceeds the limit of 1 MB"),
        ("bar.mp4", Limits(100), "exceeds the limit of 0.0001 MB"),
        ("bar.mp4", "full", "disk space"),
        ("none.mp4", Limits(10**6), "clips.example is not available .status 404.; check"),
        ("moved", Limits(10**6), "the host is unknown or not public"),
    ],
)
def test_what_is_not_to_be_had_leaves_nothing(address, tmp_path, path, limits, said):
    if limits == "full":
        limits = Limits(10**6, disk=Disk([tmp_path], most=0))
    with pytest.raises(InputError, match=said) as caught:
        fetch(address + path, tmp_path, limits)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
