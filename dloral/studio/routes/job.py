"""A restoration: finding scenes beforehand, starting and stopping it, its newest frame."""

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from dloral.studio.pictures import jpeg_of, stacked, within
from dloral.studio.routes.calls import JPEG, allowed_settings, answer, picture, visitor
from dloral.studio.states import state_of
from dloral.studio.studio import Studio

LATEST_SIDE = 1024
"""Pixels; a running job's newest frame is sent no larger."""


def job_routes(studio: Studio) -> APIRouter:
    router = APIRouter()

    @router.post("/{token}/job")
    async def start_job(token: str, request: Request) -> Response:
        session = visitor(token, studio)
        settings = await allowed_settings(request, session, studio)
        await run_in_threadpool(session.start_job, settings)
        return answer(state_of(session, studio))

    @router.delete("/{token}/job")
    def stop_job(token: str, keep: bool = True) -> Response:
        """What is done becomes the result, or is discarded with ``keep=false``."""
        session = visitor(token, studio)
        session.stop_job(keep)
        return answer(state_of(session, studio))

    @router.post("/{token}/scenes")
    async def find_scenes(token: str, request: Request) -> Response:
        session = visitor(token, studio)
        settings = await allowed_settings(request, session, studio)
        await run_in_threadpool(session.start_search, settings.options)
        return answer(state_of(session, studio))

    @router.delete("/{token}/scenes")
    def forget_scenes(token: str) -> Response:
        session = visitor(token, studio)
        session.forget_search()
        return answer(state_of(session, studio))

    @router.get("/{token}/latest")
    def latest(token: str) -> Response:
        job = visitor(token, studio).job
        newest = job.newest if job is not None else None
        if newest is None or newest.lq_frame is None or newest.restored_frame is None:
            return answer({})
        pair = [within(frame, LATEST_SIDE) for frame in (newest.lq_frame, newest.restored_frame)]
        return picture(jpeg_of(stacked(*pair)), JPEG, {"x-frame": str(newest.frame)})

    return router
