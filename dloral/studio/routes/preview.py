"""The live preview: the bicubic frame, and restored parts of it."""

import secrets
from contextlib import closing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from dloral.errors import CancelledError
from dloral.options import AUTO, UpscaleOptions
from dloral.studio.motion import MOST_PIXELS as MOST_MOTION_PIXELS
from dloral.studio.motion import Motion, motion_steps
from dloral.studio.preview import MOST_PIXELS, Region, Rendered
from dloral.studio.routes.calls import (
    JPEG,
    PNG,
    answer,
    clip_of,
    frame_within,
    json_of,
    number_of,
    object_of,
    picture,
    visitor,
)
from dloral.studio.sessions import Session
from dloral.studio.settings import settings_from
from dloral.studio.studio import Studio


def preview_routes(studio: Studio) -> APIRouter:
    router = APIRouter()

    @router.get("/{token}/background")
    def background(token: str, frame: int, scale: float, deinterlace: str = AUTO) -> Response:
        session = visitor(token, studio)
        options = UpscaleOptions(scale=scale, deinterlace=deinterlace)
        index = frame_within(session, frame)
        return picture(session.preview.background(index, options.scale, deinterlace), JPEG)

    @router.get("/{token}/bicubic")
    def bicubic(
        token: str,
        frame: int,
        scale: float,
        x: int,
        y: int,
        width: int,
        height: int,
        deinterlace: str = AUTO,
    ) -> Response:
        session = visitor(token, studio)
        region = Region(max(x, 0), max(y, 0), max(width, 1), max(height, 1))
        options = UpscaleOptions(scale=scale, deinterlace=deinterlace)
        index = frame_within(session, frame)
        return picture(session.preview.bicubic(index, options.scale, region, deinterlace), PNG)

    @router.post("/{token}/preview")
    async def preview(token: str, request: Request) -> Response:
        session = visitor(token, studio)
        asked = await json_of(request)
        settings = settings_from(object_of(asked, "settings"), studio.model.name)
        index = frame_within(session, number_of(asked, "frame"))
        centre = None
        if not asked.get("busiest"):
            centre = number_of(asked, "x", 0.5), number_of(asked, "y", 0.5)
        pixels = max(int(number_of(asked, "pixels")), 0) or None
        options = settings.at(index / clip_of(session).fps)
        try:
            made = await run_in_threadpool(
                lambda: session.preview.render(index, options, pixels, centre)
            )
        except CancelledError:
            return answer({"superseded": True})
        return picture(made.png, PNG, _headers(made))

    _add_parts(router, studio)
    return router


def _add_parts(router: APIRouter, studio: Studio) -> None:
    """Calls for a part of a frame that the page specifies."""

    async def asked_of(
        session: Session, request: Request, most_pixels: int
    ) -> tuple[int, UpscaleOptions, Region]:
        asked = await json_of(request)
        settings = settings_from(object_of(asked, "settings"), studio.model.name)
        index = frame_within(session, number_of(asked, "frame"))
        options = settings.at(index / clip_of(session).fps)
        return index, options, _region(asked, most_pixels)

    @router.post("/{token}/fill")
    async def fill(token: str, request: Request) -> Response:
        session = visitor(token, studio)
        asked = await asked_of(session, request, MOST_PIXELS)
        try:
            made = await run_in_threadpool(lambda: session.preview.fill(*asked))
        except CancelledError:
            return answer({"superseded": True})
        return picture(made, PNG)

    @router.post("/{token}/motion")
    async def motion(token: str, request: Request) -> Response:
        session = visitor(token, studio)
        asked = await asked_of(session, request, MOST_MOTION_PIXELS)
        return await run_in_threadpool(_motion, session, studio, *asked)


def _motion(
    session: Session, studio: Studio, index: int, options: UpscaleOptions, region: Region
) -> Response:
    """The clip's bytes, or ``superseded`` if a newer one was requested meanwhile."""
    clip, own = clip_of(session), secrets.token_hex(8)
    session.motion = own
    file = session.folder / f"{own}.mp4"
    made: int | Motion | None = None
    try:
        sources = studio.sessions.sources
        asked = clip, studio.model, index, options, region, file, sources
        with closing(motion_steps(*asked)) as steps:
            for step in steps:
                made = step
                if session.motion != own or session.clip is not clip:
                    return answer({"superseded": True})
        assert isinstance(made, Motion), "the last step is the whole clip"
        headers = _region_headers(made.region) | {
            "x-first": str(made.first),
            "x-count": str(made.count),
        }
        return Response(file.read_bytes(), 200, headers, "video/mp4")
    finally:
        file.unlink(missing_ok=True)


def _region(asked: dict[str, Any], most_pixels: int) -> Region:
    """The requested part, shrunk where it has more than ``most_pixels``."""
    x, y = (max(int(number_of(asked, name)), 0) for name in ("x", "y"))
    width, height = (max(int(number_of(asked, name, 1)), 1) for name in ("width", "height"))
    ratio = min(1.0, (most_pixels / (width * height)) ** 0.5)
    small = max(1, int(width * ratio)), max(1, int(height * ratio))
    return Region(x + (width - small[0]) // 2, y + (height - small[1]) // 2, *small)


def _region_headers(region: Region) -> dict[str, str]:
    return {"x-region": f"{region.x} {region.y} {region.width} {region.height}"}


def _headers(made: Rendered) -> dict[str, str]:
    return {
        **_region_headers(made.region),
        "x-whole": str(int(made.is_whole)),
        "x-could-grow": str(int(made.could_grow)),
        "x-seconds": f"{made.seconds:.4f}",
    }
