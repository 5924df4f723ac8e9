"""A Hub on this machine: the routes that the client library uses, over real files, with faults.

Large files are answered as on the Hub: a redirect that names hash and size, then the bytes, by
range where asked.
"""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGE = (".pkl", ".pth", ".safetensors", ".bin")
"""Files that the Hub keeps apart, known by their SHA-256."""

COMMIT = "c0ffee" + 34 * "0"


def etag_of(name: str, content: bytes) -> str:
    if name.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repo:
    """``files``: name -> bytes. ``status``: answered to everything instead of them.

    ``break_after``: bytes after which a download of a large file breaks off, once for each number.
    ``sends``: name -> bytes sent instead of those whose hash is promised. ``sizes``: name -> size
    that is claimed.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    status: int | None = None
    error_code: str = ""
    break_after: list[int] = field(default_factory=list)
    sends: dict[str, bytes] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


def repo_of(folder: Path, prefix: str = "") -> Repo:
    """A repository that holds a folder's files."""
    return Repo(
        {
            prefix + path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
    )


class Hub:
    """``repos``: "owner/name" or "spaces/owner/name" -> :class:`Repo`; ``log``: what was asked."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.log: list[str] = []
        self.pushed: dict[str, dict[str, bytes]] = {}
        self.tokens: set[str] = set()
        self.refuses_pushes = False
        self.url = ""
        self.other_host = ""  # the client follows redirects of one host itself

    def asked(self, method: str, part: str) -> list[str]:
        return [line for line in self.log if line.startswith(method) and part in line]


@contextmanager
def serve() -> Iterator[Hub]:
    """A running Hub on a free port of this machine."""
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    hub.other_host = hub.url.replace("127.0.0.1", "localhost")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer()

    def do_POST(self) -> None:
        self._body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        wanted = self.headers.get("Range")
        self.hub.log.append(f"{self.command} {path}" + (f" {wanted}" if wanted else ""))
        routes: list[tuple[str, Callable[..., None]]] = [
            (r"/((?:spaces/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
            (r"/cdn/((?:spaces/)?[^/]+/[^/]+)/(.+)", self._cdn),
            (r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?", self._info),
            (r"/api/models/([^/]+/[^/]+)/tree/.+", self._tree),
            (r"/api/repos/create", self._create),
            (r"/api/validate-yaml", self._validate),
            (r"/api/models/([^/]+/[^/]+)/preupload/.+", self._preupload),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            (r"/upload/([^/]+/[^/]+)/([0-9a-f]+)", self._upload),
            (r"/api/models/([^/]+/[^/]+)/commit/.+", self._commit),
        ]
        for pattern, answer in routes:
            if match := re.fullmatch(pattern, path):
                return answer(*match.groups())
        return self._send(404, b"")

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: object, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _repo(self, name: str) -> Repo | None:
        """The repository, or None where an error was answered."""
        repo = self.hub.repos.get(name)
        if repo is None:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "not found"})
        elif repo.status is not None:
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if token in self.hub.tokens:
                return repo
            code = {"X-Error-Code": repo.error_code} if repo.error_code else {}
            self._send(repo.status, b"", code)
            return None
        return repo

    def _resolve(self, name: str, revision: str, file: str) -> None:
        repo = self._repo(name)
        if repo is None:
            return
        commit = revision if re.fullmatch("[0-9a-f]{40}", revision) else COMMIT
        headers = {"X-Repo-Commit": commit}
        if file not in repo.files:
            self._send(404, b"", headers | {"X-Error-Code": "EntryNotFound"})
            return
        content = repo.files[file]
        etag = etag_of(file, content)
        if not file.endswith(LARGE):
            self._send(200, repo.sends.get(file, content), headers | {"ETag": f'"{etag}"'})
            return
        linked = {
            "X-Linked-ETag": f'"{etag}"',
            "X-Linked-Size": str(repo.sizes.get(file, len(content))),
            "Location": f"{self.hub.other_host}/cdn/{name}/{file}",
        }
        self._send(302, b"", headers | linked)

    def _cdn(self, name: str, file: str) -> None:
        repo = self.hub.repos[name]
        content = repo.sends.get(file, repo.files[file])
        start, status = 0, 200
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start, status = int(match[1]), 206
        headers = {"Content-Length": str(len(content) - start)}
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if repo.break_after:
            # Promises all, sends some, hangs up.
            count = repo.break_after.pop(0)
            self._send(status, content[start : start + count], headers)
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        self._send(status, content[start:], headers)

    def _info(self, name: str) -> None:
        if repo := self._repo(name):
            files = [{"rfilename": file} for file in repo.files]
            self._json({"id": name, "sha": COMMIT, "siblings": files, "private": False})

    def _tree(self, name: str) -> None:
        if repo := self._repo(name):
            entries = []
            for file, content in repo.files.items():
                etag = etag_of(file, content)
                entry = {"type": "file", "path": file, "size": len(content), "oid": etag[:40]}
                if file.endswith(LARGE):
                    entry["lfs"] = {"oid": etag, "size": len(content), "pointerSize": 130}
                entries.append(entry)
            self._json(entries)

    # Pushing ---------------------------------------------------------------------------------

    def _create(self) -> None:
        if self.hub.refuses_pushes:
            self._send(401, b"")
            return
        asked = json.loads(self._body)
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else ""
        self.hub.pushed.setdefault(name, {})
        self._json({"url": f"{self.hub.url}/{name}", "name": name})

    def _validate(self) -> None:
        self._json({"errors": [], "warnings": []})

    def _preupload(self, _: str) -> None:
        files = json.loads(self._body)["files"]
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for file in files
        ]
        self._json({"files": modes})

    def _batch(self, name: str) -> None:
        objects = [
            {
                **wanted,
                "actions": {"upload": {"href": f"{self.hub.url}/upload/{name}/{wanted['oid']}"}},
            }
            for wanted in json.loads(self._body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _upload(self, name: str, oid: str) -> None:
        assert hashlib.sha256(self._body).hexdigest() == oid
        self.hub.pushed[name][oid] = self._body
        self._send(200, b"")

    def _commit(self, name: str) -> None:
        import base64

        uploaded = self.hub.pushed[name]
        files = {}
        for line in self._body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = uploaded[value["oid"]]
        self.hub.repos[name] = Repo(files)
        self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT})
