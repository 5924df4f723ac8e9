"""The headers of every response, and which calls the server refuses before anything else.

Pure ASGI, so that streams are not held up. docs/deployment.md says what each rule guards against.
"""

import asyncio
import json
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dloral.studio.disk import Disk
from dloral.studio.origins import Origins
from dloral.studio.shares import BusyError, Shares, address_of, caller, is_heavy, uses_file

LOGIN_TRIES = 10
LOGIN_SECONDS = 600
"""So many wrong passwords in so many seconds, then none of that address is looked at."""

FAILED_CALLS = 20
FAILED_SECONDS = 60
PAUSE_SECONDS = 2
"""Who has had so many calls refused in so many seconds that took in or decoded a file pauses before
each further heavy one: what is refused costs the server something, too."""

HAS_FAILED = "has_failed"
"""Of a call's ``request.state``: set by whoever answers with status 200 that a file was refused."""

MOST_ADDRESSES = 10_000

MOST_CALL_BYTES = 2_000_000
"""Of the body of a call that is no upload; the page's have a few thousand."""

_GRADIOS_UPLOAD = "/upload"
_UPLOADS = (_GRADIOS_UPLOAD, "/clip", "/upload_progress")

HUGGING_FACE = "https://huggingface.co"
SPACES = f"{HUGGING_FACE} https://*.hf.space"

_CORS = b"access-control-"
"""How the headers begin that let another site's page read an answer."""


def security_headers(may_be_framed_by: str) -> list[tuple[bytes, bytes]]:
    """``may_be_framed_by``: sources as CSP's frame-ancestors takes them."""
    policy = "; ".join(
        [
            "default-src 'self'",
            # Gradio's own page has scripts in it, and evaluates a component's
            "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "media-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "worker-src 'self' blob:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            f"frame-ancestors {may_be_framed_by}",
        ]
    )
    headers = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
    }
    if may_be_framed_by == "'none'":
        headers["x-frame-options"] = "DENY"
    elif may_be_framed_by == "'self'":
        headers["x-frame-options"] = "SAMEORIGIN"
    else:
        headers.pop("cross-origin-opener-policy")
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def framed_by(allow_framing: bool) -> str:
    """Who may show the page in a frame: Hugging Face's pages on a Space or with
    ``--allow-framing``, else nobody."""
    return SPACES if allow_framing or os.environ.get("SPACE_ID") else "'none'"


class Hygiene:
    """The middleware. ``hosts``: names that a call may give as Host, None: any. ``disk``: what
    Gradio takes in has to have room there; the page's own uploads are looked at by their route.
    ``origins``: whose pages may call."""

    def __init__(
        self,
        app: ASGIApp,
        hosts: Iterable[str] | None = None,
        may_be_framed_by: str = "'none'",
        disk: Disk | None = None,
        origins: Origins | None = None,
    ) -> None:
        self._app, self._disk = app, disk
        self._origins = origins or Origins()
        self._hosts = None if hosts is None else {host.lower() for host in hosts}
        self._headers = security_headers(may_be_framed_by)
        self._logins = Tries(LOGIN_TRIES, LOGIN_SECONDS)
        self._failures = Tries(FAILED_CALLS, FAILED_SECONDS)
        self._shares = Shares()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        address = scope["client"][0] if scope.get("client") else ""
        # behind a proxy all have its address
        login_of = address_of(address, headers) or address
        is_login = scope["method"] == "POST" and scope["path"].rstrip("/").endswith("/login")
        refusal = self._refusal(scope, headers)
        is_guest = refusal is None and self._origins.is_guest(headers.get("origin", ""))
        if is_login and not self._logins.may_try(login_of):
            refusal = 429, "too many wrong passwords; wait ten minutes"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = [
                    (name, value)
                    for name, value in message.get("headers", [])
                    if is_guest or not name.lower().startswith(_CORS)
                ]
                present = {name.lower() for name, _ in given}
                message["headers"] = [
                    *given,
                    *(pair for pair in self._headers if pair[0] not in present),
                ]
                if is_login:
                    self._logins.tried(login_of, message["status"] < 400)
            await send(message)

        if refusal is not None:
            await _refuse(send_with_headers, *refusal)
            return
        await self._in_turn(scope, receive, send_with_headers, address_of(address, headers))

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send, whose: str) -> None:
        """Run a call once there is a place; after a pause if too many calls of ``whose`` failed."""
        path = scope["path"]
        weighs = bool(whose) and (is_heavy(path) or _is_upload(path))
        counts = bool(whose) and (uses_file(path) or _is_upload(path))
        if weighs and not self._failures.may_try(whose):
            await asyncio.sleep(PAUSE_SECONDS)
        state = scope.setdefault("state", {})
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        known = caller.set(whose)
        try:
            async with self._shares.place(path, whose):
                await self._within_bounds(scope, receive, watched)
        except BusyError:
            await _refuse(watched, 429, "too many requests at once; wait for the others")
        except ClientDisconnect:  # the upload is broken off, which is no fault of ours, or cut
            if not status:
                await _refuse(watched, 413, "the request is too large or was interrupted")
            state[HAS_FAILED] = True
        finally:
            caller.reset(known)
            # from 500 on it is ours: a full disk, a mistake in the software
            if counts and (400 <= status < 500 or state.get(HAS_FAILED)):
                self._failures.tried(whose, False)

    async def _within_bounds(self, scope: Scope, receive: Receive, send: Send) -> None:
        most = await self._most_bytes(scope["path"])
        length = dict(scope["headers"]).get(b"content-length", b"").decode("latin-1")
        if most is not None and length.isdigit() and int(length) > most:
            await _refuse(send, 507, "not enough disk space for this file")
            return
        await self._app(scope, receive if most is None else _limited(receive, most), send)

    async def _most_bytes(self, path: str) -> int | None:
        """Of a call's body; None where its route looks at that."""
        if not _is_upload(path):
            return MOST_CALL_BYTES
        if self._disk is None or not path.rstrip("/").endswith(_GRADIOS_UPLOAD):
            return None
        disk = self._disk
        return await run_in_threadpool(lambda: disk.room)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        if self._hosts is not None and host_of(headers.get("host", "")) not in self._hosts:
            return 421, "this server does not answer to that name; see --allow-host"
        origin = headers.get("origin")
        if origin is not None and not (
            self._origins.is_own(origin, headers) or self._origins.is_guest(origin)
        ):
            return 403, "another site's page cannot call this server; see --allow-host"
        length = headers.get("content-length", "")
        if not _is_upload(scope["path"]) and length.isdigit() and int(length) > MOST_CALL_BYTES:
            return 413, "the request is too large"
        return None


class Tries:
    """Tries that failed, by address: ``most`` in ``seconds`` are let pass. Thread-safe; remembers
    the newest addresses only."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._lock = threading.Lock()
        self._failed: OrderedDict[str, list[float]] = OrderedDict()

    def may_try(self, address: str, now: float | None = None) -> bool:
        now = time.monotonic() if now is None else now
        with self._lock:
            tries = [at for at in self._failed.get(address, []) if now - at < self._seconds]
            return len(tries) < self._most

    def tried(self, address: str, is_right: bool, now: float | None = None) -> None:
        """A correct try clears all earlier ones."""
        now = time.monotonic() if now is None else now
        with self._lock:
            tries = self._failed.pop(address, [])
            if not is_right:
                self._failed[address] = [*tries, now][-self._most :]
            while len(self._failed) > MOST_ADDRESSES:
                self._failed.popitem(last=False)


def host_of(header: str) -> str:
    """``localhost:7860`` -> ``localhost``; ``[::1]:7860`` -> ``::1``."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def _is_upload(path: str) -> bool:
    return path.rstrip("/").endswith(_UPLOADS)


def _limited(receive: Receive, most: int) -> Receive:
    """Bodies without a length end beyond ``most`` bytes: the rest is not read."""
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        if message["type"] == "http.request":
            size += len(message.get("body", b""))
            if size > most:
                return {"type": "http.disconnect"}
        return message

    return counted


async def _refuse(send: Send, status: int, text: str) -> None:
    body = json.dumps({"error": text}).encode()
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", b"application/json")],
        }
    )
    await send({"type": "http.response.body", "body": body})
