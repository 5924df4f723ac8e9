"""Parse the page's calls (whose they are, what they contain) and answer them."""

import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from dloral.errors import InputError
from dloral.options import AUTO
from dloral.studio.estimates import run_seconds
from dloral.studio.limits import Limits
from dloral.studio.sessions import Session
from dloral.studio.settings import MOST_BYTES, Settings, settings_from
from dloral.studio.studio import Studio
from dloral.video.probe import ClipInfo

MOST_NUMBER = 2**53
"""Numbers in calls must be below it; beyond it, not every integer is exactly a float."""

LOOK_BYTES = 8_000_000
"""Bytes of an upload after which the disk is checked for room again."""

HEARD_SECONDS = 2
"""Between two signs of life of a visit whose file is on its way."""

PNG, JPEG = "image/png", "image/jpeg"


class GoneError(Exception):
    """The token is invalid, or its visit has ended."""


def visitor(token: str, studio: Studio) -> Session:
    """The session that the token belongs to; :class:`GoneError` if there is none."""
    session = studio.sessions.find(token)
    if session is None:
        raise GoneError
    return session


def answer(content: Any) -> Response:
    """``content`` as JSON."""
    return JSONResponse(content)


def picture(content: bytes, kind: str, headers: dict[str, str] | None = None) -> Response:
    """``content`` as :data:`PNG` or :data:`JPEG`."""
    return Response(content, 200, headers, kind)


async def receive(
    request: Request, part: Path, limits: Limits, heard: Callable[[], object]
) -> None:
    """Write the request's body to a file as :func:`save_body` does."""
    await save_body(
        _chunks(request), request.headers.get("content-length", "0"), part, limits, heard
    )


async def save_body(
    chunks: AsyncIterator[bytes],
    told: str,
    part: Path,
    limits: Limits,
    heard: Callable[[], object] = lambda: None,
) -> None:
    """Write a body to a file, up to the limits; InputError beyond them. ``told``: its length as the
    sender says. ``heard``: called again and again meanwhile, so that the visit does not end before
    its file is there."""
    size, looked, said = 0, 0, time.monotonic()
    most = limits.max_upload
    if told.isdigit():
        await _check_room(limits, min(int(told), most))
    with part.open("wb") as file:
        async for chunk in chunks:
            size += len(chunk)
            if size > most or (told.isdigit() and int(told) > most):
                raise InputError(
                    f"the file exceeds the limit of {most / 1e6:g} MB; cut it, or restore it on "
                    "the command line"
                )
            if size - looked > LOOK_BYTES:  # a body need not declare its length
                await _check_room(limits, size - looked)
                looked = size
            await run_in_threadpool(file.write, chunk)
            if time.monotonic() - said > HEARD_SECONDS:
                heard()
                said = time.monotonic()


async def _check_room(limits: Limits, size: int) -> None:
    if limits.disk is not None:
        await run_in_threadpool(limits.disk.check_upload, size)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        if chunk:
            yield chunk


async def body(request: Request) -> bytes:
    """The whole of a small body; InputError beyond ``MOST_BYTES``."""
    content = b""
    async for chunk in _chunks(request):
        content += chunk
        if len(content) > MOST_BYTES:
            raise InputError("this is not a DLoRAL settings file; it is too large")
    return content


async def json_of(request: Request) -> dict[str, Any]:
    """The JSON object in the body; InputError if there is none."""
    # Browsers send a foreign page's forms, plain text and bodies of no type without a CORS
    # preflight, but not JSON.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise InputError(f"the request's content type is {kind[:80]!r}; send application/json")
    try:
        found = json.loads(await body(request))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError("the request is not a JSON object")
    return found


async def allowed_settings(request: Request, session: Session, studio: Studio) -> Settings:
    """The body's ``settings``, checked by :func:`allowed`."""
    values = object_of(await json_of(request), "settings")
    return await run_in_threadpool(allowed, values, session, studio)


def allowed(values: dict[str, Any], session: Session, studio: Studio) -> Settings:
    """Settings for the visitor's clip; InputError or OptionError for what is invalid, or more than
    may be requested at once, ResourceError for more than this machine can hold. Looks through the
    disk, so not to be called on the event loop."""
    settings = settings_from(values, studio.model.name)
    clip = clip_of(session)
    if clip.kind != "video":  # the page keeps its choice for the next video
        settings = replace(settings, options=replace(settings.options, deinterlace=AUTO))
    seconds = run_seconds(clip, settings, studio.model)
    studio.limits.check(clip, settings.options, settings.format, seconds)
    return settings


def object_of(asked: dict[str, Any], name: str) -> dict[str, Any]:
    """The object under ``name``; InputError if there is none."""
    found = asked.get(name)
    if not isinstance(found, dict):
        raise InputError(f"the request has no {name}")
    return found


def number_of(asked: dict[str, Any], name: str, default: float = 0) -> float:
    """The finite number under ``name``, below :data:`MOST_NUMBER`; InputError if it is not one."""
    found = asked.get(name, default)
    # Python's JSON parser accepts Infinity, NaN and integers of any length
    if not isinstance(found, int | float) or not abs(found) < MOST_NUMBER:
        raise InputError(f"{name} is {str(found)[:80]!r}; give a number")
    return found


def clip_of(session: Session) -> ClipInfo:
    """The visitor's clip; InputError if there is none."""
    return session.a_clip()


def frame_within(session: Session, frame: float) -> int:
    """``frame``, clamped to the clip's frames."""
    last = (clip_of(session).num_frames or 1) - 1
    return max(0, min(int(frame), last))
