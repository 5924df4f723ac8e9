"""Clips already on this machine, chosen by path; nothing is uploaded.

Only for the person at the machine: the page must listen on this machine only, and the call must
come from it (docs/decisions.md, "The page's menu of models is for who sits at the machine").
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Address

from dloral.errors import InputError, OutputError
from dloral.jobs.batches import CLIP_SUFFIXES
from dloral.studio.models import THIS_MACHINE
from dloral.studio.routes.calls import answer, json_of, visitor
from dloral.studio.routes.model import is_from_here
from dloral.studio.sessions import Session
from dloral.studio.states import state_of
from dloral.studio.studio import Studio
from dloral.studio.uploads import link_or_copy
from dloral.video.images import IMAGE_SUFFIXES

MOST_ENTRIES = 2000
"""Entries listed of a folder."""


_SOCKETS = Path("/proc/net/tcp")
"""Linux's table of connections, with the address, port and user of each."""


def owner_of(client: Address | None) -> int | None:
    """The user of this machine who owns the other end of an IPv4 connection; None where the system
    does not say. Other users may reach the page, but its files are not theirs."""
    if client is None or not _SOCKETS.is_file():
        return None
    for line in _SOCKETS.read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        address, port = fields[1].split(":")
        number = bytes.fromhex(address)[:: -1 if sys.byteorder == "little" else 1]
        if int(port, 16) == client.port and ".".join(map(str, number)) == client.host:
            return int(fields[7])
    return None


def _own_user() -> int | None:
    return os.getuid() if hasattr(os, "getuid") else None


def place_routes(studio: Studio) -> APIRouter:
    router = APIRouter()

    async def asked_path(token: str, request: Request) -> tuple[Session, Path]:
        """InputError for callers who are not at this machine."""
        session = visitor(token, studio)
        is_own = is_from_here(request) and owner_of(request.client) in (None, _own_user())
        if studio.models.menu_for != THIS_MACHINE or not is_own:
            raise InputError("only a user at this machine can choose its files; drop a file")
        given = (await json_of(request)).get("path")
        if not isinstance(given, str) or "\0" in given:
            raise InputError("the request has no path")
        path = Path(given or "~").expanduser()
        if not path.is_absolute():
            raise InputError(f"{given} is not an absolute path; begin with {Path.home().anchor}")
        return session, path

    @router.post("/{token}/places")
    async def listed(token: str, request: Request) -> Response:
        """A folder's contents: folders, clips and pictures."""
        _, path = await asked_path(token, request)
        return answer(await run_in_threadpool(_listing, path))

    @router.post("/{token}/place")
    async def opened(token: str, request: Request) -> Response:
        """Make a file the visit's clip, hard-linked where the disk allows, else copied."""
        session, path = await asked_path(token, request)
        if not path.is_file():
            raise InputError(f"{path.name} no longer exists; choose another file")
        fill = lambda copy: link_or_copy(path.resolve(), copy)  # noqa: E731
        await run_in_threadpool(session.open_clip, path.name, fill)
        return answer(state_of(session, studio))

    @router.post("/{token}/keep")
    async def kept(token: str, request: Request) -> Response:
        """Copy the result to a folder of this machine, under a name that is free there."""
        session, folder = await asked_path(token, request)
        if session.result is None:
            raise InputError("The result no longer exists; restore the clip again.")
        target = await run_in_threadpool(_keep, session.result.file, folder)
        return answer({"file": target.name})

    return router


def _listing(folder: Path) -> dict[str, Any]:
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name.casefold())
        seen = [entry for entry in entries if not entry.name.startswith(".")]
        folders = [entry.name for entry in seen if entry.is_dir()]
        files = [entry for entry in seen if _is_clip(entry)]
        sizes = [entry.stat().st_size for entry in files[:MOST_ENTRIES]]
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InputError(f"{folder} cannot be opened: {why}; choose another folder") from error
    return {
        "path": str(folder),
        "parent": str(folder.parent),
        "folders": folders[:MOST_ENTRIES],
        "files": [
            {"name": entry.name, "path": str(entry), "bytes": size}
            for entry, size in zip(files, sizes, strict=False)
        ],
        "more": max(0, max(len(files), len(folders)) - MOST_ENTRIES),
    }


def _is_clip(entry: Path) -> bool:
    return entry.suffix.lower() in (*CLIP_SUFFIXES, *IMAGE_SUFFIXES) and entry.is_file()


def _keep(file: Path, folder: Path) -> Path:
    """Copy ``file`` to ``folder``, whole or not at all; OutputError where that fails."""
    target = folder / file.name
    number = 2
    while target.exists():
        target = folder / f"{file.stem}-{number}{file.suffix}"
        number += 1
    part = target.with_name(f".{target.name}.part")
    try:
        shutil.copyfile(file, part)
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(
            "{path} cannot be written: {value}",
            remedy="choose another folder",
            path=target,
            value=(error.strerror or str(error)).lower(),
        ) from error
    return target
