"""Whose pages may call the server. Browsers name the page that a call comes from in ``Origin``;
command-line clients send none."""

import os
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

_DEFAULT_PORTS = (":80", ":443")


class Origins:
    """The server's own pages, by whatever name it is reached, and those of ``guests``.

    ``own``: names or addresses of the page beside those that a call itself gives as Host or
    X-Forwarded-Host. A page cannot choose these headers for its calls: the first is the browser's,
    the second would be asked for in a preflight. ``guests``: origins as CSP writes them, such as
    ``https://*.hf.space``.
    """

    def __init__(self, own: Iterable[str] = (), guests: Iterable[str] = ()) -> None:
        self._own = {_authority(name) for name in own} - {""}
        self._guests = tuple(guests)

    def add(self, address: str) -> None:
        """Take ``address`` as another one of the page's own."""
        self._own.add(_authority(address))

    def is_own(self, origin: str, headers: Mapping[str, str]) -> bool:
        """Whether ``origin`` is that of the server's own page, by HTTP or HTTPS: a proxy may end
        the encryption."""
        if not origin.lower().startswith(("http://", "https://")):  # null, or a browser extension
            return False
        called = [headers.get("host", ""), *headers.get("x-forwarded-host", "").split(",")]
        return _authority(origin) in {_authority(name) for name in called} - {""} | self._own

    def is_guest(self, origin: str) -> bool:
        """Whether ``origin`` is that of a page which may call although it is not ours."""
        scheme, _, host = origin.lower().partition("://")
        for guest in self._guests:
            wanted_scheme, _, wanted = guest.partition("://")
            is_below = wanted.startswith("*.") and host.endswith(wanted[1:])
            if scheme == wanted_scheme and (host == wanted or is_below):
                return True
        return False


def own_addresses() -> list[str]:
    """What the environment says of where the page is: a Space's name, and Gradio's root."""
    told = (os.environ.get(name, "") for name in ("SPACE_HOST", "GRADIO_ROOT_PATH"))
    return [address for address in told if address and not address.startswith("/")]


def _authority(address: str) -> str:
    """``https://A.example:443/page`` -> ``a.example``: the host, with a port that is not HTTP's."""
    address = address.strip().lower()
    try:
        host = urlsplit(address if "://" in address else f"//{address}").netloc
    except ValueError:
        return ""
    for port in _DEFAULT_PORTS:
        host = host.removesuffix(port)
    return host
