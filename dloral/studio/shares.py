"""Fair shares: what one visitor, and one address, may have under way at once.

Calls that decode, restore or take in a file are heavy. They wait for a slot of their visitor, then
of their address, then of the whole server; waiting holds no thread, so page loads stay as quick as
ever. Where too many wait, the call is refused.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from ipaddress import ip_address

HEAVY = {
    *("clip", "example", "fork", "thumbnails", "thumbnail", "background", "bicubic", "preview"),
    *("fill", "motion", "still", "comparison", "scenes", "plan", "job", "latest"),
}
"""The last part of these paths under ``/studio/TOKEN/``."""

_OF_JOB = ["job", "resume"], ["job", "retry"]
"""As heavy as a job: they wait for the visit's lock, which a call may hold for a minute."""

_WITHOUT_FILE = {"plan", "scenes", "job", "latest", "resume", "retry"}
"""Of the heavy ones, those that neither take in nor decode a file before they answer."""

OF_ALL, OF_ADDRESS, OF_VISITOR = 16, 8, 4
"""Heavy calls at once; Starlette's threads are 40, and the rest of them serve pages."""

MOST_WAITING = 32
"""Of a visitor's heavy calls; a page has no more than 24 thumbnails to ask for."""

PATIENCE_SECONDS = 120

_LOCAL = ("127.0.0.1", "::1", "localhost", "testclient")

_FORWARDED = ("forwarded", "x-forwarded-", "x-real-ip", "via")
"""Prefixes of the headers that a proxy in front of the page adds."""

caller: ContextVar[str] = ContextVar("caller", default="")
"""The address that the call under way comes from, empty for this machine and outside calls."""


class BusyError(Exception):
    """So many calls of this visitor are under way that another one is refused."""


def address_of(client: str, headers: Mapping[str, str]) -> str:
    """Whose call it is; empty for a browser on this machine, which has its threads anyhow.

    ``client`` is what uvicorn says: the address that called, or, where that is a proxy of its
    ``FORWARDED_ALLOW_IPS`` (by default this machine), the last one in ``X-Forwarded-For`` that is
    no such proxy. Each proxy appends who called it, so whatever stands before may be forged. Where
    uvicorn trusts everybody it takes the first, and it does not know a Space's proxy; so the last
    is taken here. All callers of a proxy that names none share its address.
    """
    trusts_all = os.environ.get("FORWARDED_ALLOW_IPS") == "*"
    if not trusts_all and not _is_proxy(client):
        return client
    hops = [_without_port(hop.strip()) for hop in headers.get("x-forwarded-for", "").split(",")]
    callers = [hop for hop in hops if hop and not _is_proxy(hop)]
    if callers:
        return callers[-1]
    is_named_here = _without_port(headers.get("host", "")).lower() in _LOCAL
    return "" if client in _LOCAL and is_named_here and not is_forwarded(headers) else client


def is_forwarded(headers: Iterable[str]) -> bool:
    """Whether a call came through a proxy that says so in one of its ``headers``."""
    return any(name.startswith(_FORWARDED) for name in headers)


def _is_proxy(address: str) -> bool:
    """Whether who has it may stand before the page: this machine; on a Space, its network."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address in _LOCAL
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip.is_loopback or (bool(os.environ.get("SPACE_ID")) and ip.is_private)


def _without_port(hop: str) -> str:
    """``1.2.3.4:5678`` -> ``1.2.3.4``; ``[2001:db8::1]:5678`` -> ``2001:db8::1``."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


class Shares:
    """Places for heavy calls."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(OF_ALL)
        self._places: dict[str, asyncio.Semaphore] = {}
        self._users: dict[str, int] = {}

    @asynccontextmanager
    async def place(self, path: str, address: str) -> AsyncIterator[None]:
        """A place for a call, once there is one; BusyError where too many wait. Light calls have
        theirs at once."""
        token = _heavy_visitor(path)
        if token is None:
            yield
            return
        limits = [(f"visitor {token}", OF_VISITOR)]
        if address:
            limits.append((f"address {address}", OF_ADDRESS))
        if self._users.get(limits[0][0], 0) >= OF_VISITOR + MOST_WAITING:
            raise BusyError
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    for name, most in limits:
                        await stack.enter_async_context(self._one_of(name, most))
                    await stack.enter_async_context(self._all)
            except TimeoutError as error:
                raise BusyError from error
            yield

    @asynccontextmanager
    async def _one_of(self, name: str, most: int) -> AsyncIterator[None]:
        places = self._places.setdefault(name, asyncio.Semaphore(most))
        self._users[name] = self._users.get(name, 0) + 1
        try:
            async with places:
                yield
        finally:
            self._users[name] -= 1
            if not self._users[name]:  # so that nothing is kept of visitors that are gone
                del self._users[name], self._places[name]


def is_heavy(path: str) -> bool:
    """Whether a call of this path needs a place."""
    return _heavy_visitor(path) is not None


def uses_file(path: str) -> bool:
    """Whether a call of this path takes in or decodes a file, and so costs much to refuse."""
    return is_heavy(path) and path.rstrip("/").rpartition("/")[2] not in _WITHOUT_FILE


def _heavy_visitor(path: str) -> str | None:
    """The token of a heavy call's path, None for light ones."""
    parts = path.rstrip("/").split("/")
    if parts[-2:] in _OF_JOB:
        parts.pop()
    if len(parts) < 3 or parts[-3] != "studio" or parts[-1] not in HEAVY:
        return None
    return parts[-2]
