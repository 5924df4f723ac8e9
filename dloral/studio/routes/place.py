"""Clips already on this machine, chosen by path; nothing is uploaded.

Only for the person at the machine: the page must listen on this machine only, and the call must
come from it (docs/decisions.md, "The page's menu of models is for who sits at the machine").
"""

import os
import shutil
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from dloral.errors import InputError, OutputError
from dloral.jobs.batches import CLIP_SUFFIXES
from dloral.studio.face import is_full
from dloral.studio.models import THIS_MACHINE
from dloral.studio.peers import owner_of
from dloral.studio.routes.calls import answer, json_of, visitor
from dloral.studio.routes.model import is_from_here
from dloral.studio.sessions import Session
from dloral.studio.settings import is_text
from dloral.studio.states import state_of
from dloral.studio.studio import Studio
from dloral.studio.uploads import link_or_copy
from dloral.video.images import IMAGE_SUFFIXES

MOST_ENTRIES = 2000
"""Entries listed of a folder."""


def _own_user() -> int | None:
    return os.getuid() if hasattr(os, "getuid") else None


def place_routes(studio: Studio) -> APIRouter:
    router = APIRouter()

    async def asked_path(token: str, request: Request) -> tuple[Session, Path]:
        """InputError for callers who are not at this machine."""
        session = visitor(token, studio)
        user = owner_of(request.client, request.scope.get("server"))
        is_own = is_from_here(request) and user in (None, _own_user())
        if studio.models.menu_for != THIS_MACHINE or not is_own:
            raise InputError("only a user at this machine can choose its files; drop a file")
        given = (await json_of(request)).get("path")
        if not isinstance(given, str) or "\0" in given:
            raise InputError("the request has no path")
        path = Path(given or "~").expanduser()
        if not is_text(str(path)):
            raise InputError("the path is not valid UTF-8; choose another folder")
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
        fill = lambda copy: _give(path, copy)  # noqa: E731
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
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InputError(f"{folder} cannot be opened: {why}; choose another folder") from error
    folders: list[str] = []
    files: list[dict[str, Any]] = []
    skipped = 0
    for entry in entries:
        if entry.name.startswith("."):
            continue
        try:
            found = entry.stat()
        except OSError:  # such as a mount whose server is gone, or a link to nowhere
            skipped += 1
            continue
        is_folder = S_ISDIR(found.st_mode)
        if not is_folder and not (S_ISREG(found.st_mode) and _may_be_clip(entry)):
            continue
        if not is_text(entry.name):
            skipped += 1
        elif is_folder:
            folders.append(entry.name)
        else:
            files.append({"name": entry.name, "path": str(entry), "bytes": found.st_size})
    return {
        "path": str(folder),
        "parent": str(folder.parent),
        "folders": folders[:MOST_ENTRIES],
        "files": files[:MOST_ENTRIES],
        "more": skipped + max(0, max(len(files), len(folders)) - MOST_ENTRIES),
    }


def _may_be_clip(entry: Path) -> bool:
    return entry.suffix.lower() in (*CLIP_SUFFIXES, *IMAGE_SUFFIXES)


def _give(file: Path, copy: Path) -> None:
    """Make ``copy`` the same file; InputError where it is none or cannot be read."""
    try:
        if not file.is_file():
            raise InputError(f"{file.name} no longer exists; choose another file")
        link_or_copy(file.resolve(), copy)
    except OSError as error:
        if is_full(error):
            raise
        why = (error.strerror or str(error)).lower()
        raise InputError(f"{file.name} cannot be read: {why}; choose another file") from error


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
