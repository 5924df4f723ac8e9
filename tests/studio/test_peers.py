"""Whose connection a call comes by: real sockets of IPv4 and IPv6."""

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dloral.studio import peers
from dloral.studio.peers import UNKNOWN, owner_of

pytestmark = pytest.mark.skipif(
    not Path("/proc/net/tcp").is_file(), reason="Linux says whose sockets are whose"
)

IPV4, IPV6 = socket.AF_INET, socket.AF_INET6

WAYS = [
    (IPV4, "127.0.0.1", IPV4, "127.0.0.1"),
    (IPV6, "::1", IPV6, "::1"),
    (IPV4, "127.0.0.1", IPV6, "::ffff:127.0.0.1"),  # each end sees the address in its own way
    (IPV6, "::", IPV4, "127.0.0.1"),
    (IPV6, "::", IPV6, "::ffff:127.0.0.1"),
]
"""The family and the address of a server, then those that a client connects with."""


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=IPV6):
            return Path("/proc/net/tcp6").is_file()
    except OSError:
        return False


@contextmanager
def connected(family: int, address: str, own: int, to: str) -> Iterator[tuple[socket.socket, ...]]:
    """The server's end of a connection, and the client's."""
    if IPV6 in (family, own) and not has_ipv6():
        pytest.skip("needs IPv6")
    is_dual = address == "::"
    with (
        socket.create_server((address, 0), family=family, dualstack_ipv6=is_dual) as server,
        socket.socket(own) as client,
    ):
        client.connect((to, server.getsockname()[1]))
        accepted, _ = server.accept()
        with accepted:
            yield accepted, client


@pytest.mark.parametrize(("family", "address", "own", "to"), WAYS)
def test_a_connection_knows_its_user(family, address, own, to):
    """Told as the server sees both ends."""
    with connected(family, address, own, to) as (accepted, client):
        ends = accepted.getpeername()[:2], accepted.getsockname()[:2]
        assert owner_of(*ends) == os.getuid()
        assert owner_of(ends[0], (ends[1][0], 1)) == UNKNOWN  # the same port, but another server
        # closed without a goodbye, of which nothing stays in the tables
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert owner_of(*ends) == UNKNOWN


CLIENT = """
import os, socket, sys
os.setuid(65534)
client = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
client.connect((sys.argv[1], int(sys.argv[2])))
print("connected", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(("family", "address", "own", "to"), WAYS)
def test_another_users_connection_is_theirs(family, address, own, to):
    if IPV6 in (family, own) and not has_ipv6():
        pytest.skip("needs IPv6")
    is_dual = address == "::"
    with socket.create_server((address, 0), family=family, dualstack_ipv6=is_dual) as server:
        call = [sys.executable, "-c", CLIENT, to, str(server.getsockname()[1])]
        other = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"connected\n"
            accepted, _ = server.accept()
            with accepted:
                ends = accepted.getpeername()[:2], accepted.getsockname()[:2]
                assert owner_of(*ends) == 65534
        finally:
            other.communicate()


def test_what_the_system_does_not_say_is_not_known(monkeypatch, tmp_path: Path):
    with connected(*WAYS[0]) as (accepted, _):
        ends = accepted.getpeername(), accepted.getsockname()
        monkeypatch.setattr(peers, "_TABLES", (peers._TABLES[0], tmp_path / "none"))
        assert owner_of(*ends) == os.getuid()  # a machine without IPv6
        assert owner_of(None, ends[1]) == UNKNOWN
        assert owner_of(ends[0], None) == UNKNOWN
        assert owner_of(("testclient", 1), ends[1]) == UNKNOWN
        monkeypatch.setattr(peers, "_TABLES", (tmp_path / "none", tmp_path / "none"))
        assert owner_of(*ends) is None
