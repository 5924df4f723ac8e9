"""Clips at a web address, which MCP's clients and ``handle_file`` may give: they are uploads like
any other, of the same size at most, and go to the disk as they come."""

import tempfile
from asyncio import timeout
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import httpx
import safehttpx

from dloral.errors import DLoRALError, InputError
from dloral.studio.limits import Limits
from dloral.studio.routes.calls import save_body
from dloral.studio.uploads import checked_name

MOST_REDIRECTS = 5
MOST_SECONDS = 600
"""How long a file may take to come."""


def is_address(path: str) -> bool:
    """Whether a program gave this instead of the path of a file that it uploaded."""
    return path.lower().startswith(("http://", "https://"))


async def fetch_clip(address: str, folder: Path, limits: Limits) -> Path:
    """The file at ``address``, in a folder of its own in ``folder``. InputError in one line where
    it cannot be had, is too large for ``limits``, or its host is one of this machine's network."""
    host = urlsplit(address).hostname or ""
    remedy = "check the address, or upload the file"
    try:
        async with timeout(MOST_SECONDS):
            return await _followed(address, folder, limits)
    except DLoRALError:  # a ValueError, too
        raise
    except TimeoutError:
        said = f"took more than {MOST_SECONDS} s"
    except httpx.HTTPStatusError as error:
        said = f"is not available (status {error.response.status_code})"
    except httpx.HTTPError as error:
        said = f"cannot be fetched: {str(error) or type(error).__name__}"
    except (ValueError, httpx.InvalidURL):  # of no public address
        said = "cannot be fetched: the host is unknown or not public"
    raise InputError(f"the file at {host[:80]} {' '.join(said.split())}", remedy=remedy)


async def _followed(address: str, folder: Path, limits: Limits) -> Path:
    for _ in range(MOST_REDIRECTS + 1):
        # each host anew, so that no redirect leads to this machine's own network
        ip = await safehttpx.async_validate_url(httpx.URL(address).host)
        transport = safehttpx.AsyncSecureTransport(ip)
        async with (
            httpx.AsyncClient(transport=transport) as client,
            client.stream("GET", address, headers={"accept-encoding": "identity"}) as response,
        ):
            if response.has_redirect_location:
                address = urljoin(address, response.headers["location"])
                continue
            response.raise_for_status()
            name = unquote(urlsplit(address).path).rpartition("/")[2]
            file = Path(tempfile.mkdtemp(dir=folder)) / checked_name(name or "clip")
            length = response.headers.get("content-length", "0")
            try:
                await save_body(response.aiter_bytes(), length, file, limits)
            except BaseException:
                file.unlink(missing_ok=True)
                file.parent.rmdir()
                raise
            return file
    raise httpx.TooManyRedirects(f"more than {MOST_REDIRECTS} redirects")
