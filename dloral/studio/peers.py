"""Which user of this machine is at the other end of a connection (Linux)."""

import contextlib
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

_TABLES = Path("/proc/net/tcp"), Path("/proc/net/tcp6")
"""All connections, each of whose ends has a row: its address, the other's, and its user."""

UNKNOWN = -1
"""An end that is in no table: closed since, or outside this machine."""

_End = tuple[IPv4Address | IPv6Address, int]


def owner_of(client: tuple[str, int] | None, server: tuple[str, int] | None) -> int | None:
    """The user who owns the client's end of a connection to ``server``; :data:`UNKNOWN` where
    nobody does, None where the system does not say. Others may reach the page, but the files of
    the user who runs it are not theirs."""
    try:
        rows = list(_rows(_TABLES[0]))
    except OSError:
        return None
    with contextlib.suppress(OSError):  # no IPv6
        rows += _rows(_TABLES[1])
    if client is None or server is None:
        return UNKNOWN
    try:
        ends = _end(*client), _end(*server)
    except ValueError:  # a name, as of a socket that is none of TCP's
        return UNKNOWN
    return next((user for *both, user in rows if tuple(both) == ends), UNKNOWN)


def _rows(table: Path) -> Iterator[tuple[_End, _End, int]]:
    """Each row's own end, the other, and the user."""
    for line in table.read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        yield _written_end(fields[1]), _written_end(fields[2]), int(fields[7])


def _written_end(text: str) -> _End:
    """``0100007F:1EB4``: the address in words of this machine's byte order, and the port."""
    address, port = text.split(":")
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return _plain(ip_address(packed)), int(port, 16)


def _end(host: str, port: int) -> _End:
    return _plain(ip_address(host.partition("%")[0])), port


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """An IPv4 address that a socket of IPv6 holds as itself: its two ends may differ in that."""
    return getattr(address, "ipv4_mapped", None) or address
