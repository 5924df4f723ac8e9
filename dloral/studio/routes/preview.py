"""The live preview: the bicubic frame, and a part of it restored."""

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from dloral.errors import CancelledError
from dloral.options import UpscaleOptions
from dloral.studio.preview import Preview, Region, Rendered
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
    def background(token: str, frame: int, scale: float) -> Response:
        session = visitor(token, studio)
        options = UpscaleOptions(scale=scale)
        preview = _preview(session)
        return picture(preview.background(frame_within(session, frame), options.scale), JPEG)

    @router.get("/{token}/bicubic")
    def bicubic(
        token: str, frame: int, scale: float, x: int, y: int, width: int, height: int
    ) -> Response:
        session = visitor(token, studio)
        region = Region(max(x, 0), max(y, 0), max(width, 1), max(height, 1))
        options = UpscaleOptions(scale=scale)
        preview = _preview(session)
        return picture(preview.bicubic(frame_within(session, frame), options.scale, region), PNG)

    @router.post("/{token}/preview")
    async def preview(token: str, request: Request) -> Response:
        session = visitor(token, studio)
        asked = await json_of(request)
        settings = settings_from(object_of(asked, "settings"), studio.model.name)
        index = frame_within(session, number_of(asked, "frame"))
        centre = number_of(asked, "x", 0.5), number_of(asked, "y", 0.5)
        pixels = int(number_of(asked, "pixels")) or None
        options = settings.at(index / clip_of(session).fps)
        render = _preview(session).render
        try:
            made = await run_in_threadpool(render, index, options, pixels, centre)
        except CancelledError:
            return answer({"superseded": True})
        return picture(made.png, PNG, _headers(made))

    return router


def _preview(session: Session) -> Preview:
    clip_of(session)
    assert session.preview is not None
    return session.preview


def _headers(made: Rendered) -> dict[str, str]:
    region = made.region
    return {
        "x-region": f"{region.x} {region.y} {region.width} {region.height}",
        "x-whole": str(int(made.is_whole)),
        "x-could-grow": str(int(made.could_grow)),
        "x-seconds": f"{made.seconds:.4f}",
    }
