"""The clip: opening and closing it, its thumbnails and settings, and what a run would make."""

import secrets
from functools import partial
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from dloral.errors import InputError
from dloral.studio.estimates import plan
from dloral.studio.routes.calls import (
    JPEG,
    allowed_settings,
    answer,
    body,
    clip_of,
    number_of,
    picture,
    receive,
    visitor,
)
from dloral.studio.settings import settings_from_file
from dloral.studio.states import state_of
from dloral.studio.stills import thumbnails
from dloral.studio.stored import stored_beside
from dloral.studio.studio import Studio
from dloral.studio.uploads import checked_name

MOST_THUMBNAILS = 24


def clip_routes(studio: Studio) -> APIRouter:
    router = APIRouter()

    @router.post("/{token}/clip")
    async def open_clip(token: str, name: str, request: Request) -> Response:
        session = visitor(token, studio)
        checked_name(name)  # before the file is uploaded in vain
        part = session.folder / f"{secrets.token_hex(8)}.part"
        heard = partial(studio.sessions.find, token)
        session.is_receiving = True
        try:
            await receive(request, part, studio.limits, heard)
            visitor(token, studio)  # it is not known any more where it was silent for too long
            await run_in_threadpool(session.open_clip, name, lambda copy: _move(part, copy))
        finally:
            session.is_receiving = False
            part.unlink(missing_ok=True)
        return answer(state_of(session, studio))

    @router.post("/{token}/example")
    def open_example(token: str, name: str) -> Response:
        session = visitor(token, studio)
        if name not in studio.examples:
            raise InputError(
                f"{name!r} is not an example; choose from {', '.join(studio.examples)}"
            )
        source = studio.examples[name]
        session.open_clip(source.name, lambda copy: _copy(source, copy))
        session.show_stored(stored_beside(source))
        return answer(state_of(session, studio))

    @router.post("/{token}/fork")
    def fork(token: str) -> Response:
        """Open another visit with the same clip, so that a new run does not replace its result."""
        session = visitor(token, studio)
        other = studio.sessions.open()
        made = visitor(other, studio)
        try:
            session.fork_into(made)
        except BaseException:
            studio.sessions.close(other)
            raise
        return answer({"token": other})

    @router.delete("/{token}/clip")
    def close_clip(token: str) -> Response:
        session = visitor(token, studio)
        session.close_clip()
        return answer(state_of(session, studio))

    _add_looks(router, studio)
    return router


def _add_looks(router: APIRouter, studio: Studio) -> None:
    """Read-only calls: thumbnails, the settings in a file, what a run would make."""

    @router.get("/{token}/thumbnails")
    def strip(
        token: str, count: int = 12, start: float = 0, duration: float | None = None
    ) -> Response:
        count = min(max(count, 1), MOST_THUMBNAILS)
        begin = float(number_of({"start": start}, "start"))
        length = None if duration is None else float(number_of({"duration": duration}, "duration"))
        clip = clip_of(visitor(token, studio))
        return picture(thumbnails(clip, count, begin, length, studio.sessions.sources), JPEG)

    @router.post("/{token}/settings")
    async def read_settings(token: str, request: Request) -> Response:
        visitor(token, studio)
        return answer({"settings": settings_from_file(await body(request))})

    @router.post("/{token}/plan")
    async def make_plan(token: str, request: Request) -> Response:
        session = visitor(token, studio)
        settings = await allowed_settings(request, session, studio)
        return answer(await run_in_threadpool(plan, clip_of(session), settings, studio.model))


def _move(part: Path, copy: Path) -> None:
    part.replace(copy)


def _copy(source: Path, copy: Path) -> None:
    copy.write_bytes(source.read_bytes())
