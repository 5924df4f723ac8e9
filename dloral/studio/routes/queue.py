"""Queue controls for a list on the page: order, pause, resume, retry, settings of each job."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from dloral.errors import InputError
from dloral.studio.archive import open_files, zip_of
from dloral.studio.routes.calls import (
    allowed,
    allowed_settings,
    answer,
    json_of,
    object_of,
    visitor,
)
from dloral.studio.sessions import MOST_VISITS, Session
from dloral.studio.settings import is_text
from dloral.studio.states import brief_of, state_of
from dloral.studio.studio import Studio

MOST_ARCHIVED = 100
"""Results per archive, limited because their tokens are in its URL."""

ARCHIVE = "restored.zip"


def queue_routes(studio: Studio) -> APIRouter:
    router = APIRouter()

    @router.post("/visits")
    async def visits(request: Request) -> Response:
        """What a list shows for each of the body's ``tokens``; null where the visit is gone."""
        tokens = _tokens(await json_of(request))
        return answer({"visits": await run_in_threadpool(_listed, tokens, studio)})

    @router.post("/order")
    async def order(request: Request) -> Response:
        """Run the jobs of the body's ``tokens`` in this order; others keep their places. Answers
        like ``/visits``."""
        tokens = _tokens(await json_of(request))
        await run_in_threadpool(studio.sessions.arrange, tokens)
        return answer({"visits": await run_in_threadpool(_listed, tokens, studio)})

    @router.put("/{token}/job")
    async def change_job(token: str, request: Request) -> Response:
        """Change the settings of a waiting or paused job; it keeps its place."""
        session = visitor(token, studio)
        settings = await allowed_settings(request, session, studio)
        await run_in_threadpool(session.a_job().change, settings)
        return answer(state_of(session, studio))

    @router.post("/{token}/job/pause")
    def pause_job(token: str) -> Response:
        session = visitor(token, studio)
        session.a_job().pause()
        return answer(state_of(session, studio))

    @router.post("/{token}/job/resume")
    def resume_job(token: str) -> Response:
        session = visitor(token, studio)
        session.resume_job()
        return answer(state_of(session, studio))

    @router.post("/{token}/job/retry")
    async def retry_job(token: str, request: Request) -> Response:
        """Run a failed or cancelled job again, with the body's ``settings`` if given."""
        session = visitor(token, studio)
        await run_in_threadpool(_retry, await json_of(request), session, studio)
        return answer(state_of(session, studio))

    @router.get("/archive")
    def archive(visit: Annotated[list[str], Query()]) -> Response:
        """The results of these visits as one zip file, without those that have expired."""
        files = open_files(_results(visit[:MOST_ARCHIVED], studio))
        if not files:
            return Response("These results do not exist or have expired.", 404)
        headers = {"content-disposition": f'attachment; filename="{ARCHIVE}"'}
        return StreamingResponse(zip_of(files), 200, headers, "application/zip")

    return router


def _retry(asked: dict[str, Any], session: Session, studio: Studio) -> None:
    settings = allowed(object_of(asked, "settings"), session, studio) if asked else None
    session.retry_job(settings)


def _tokens(asked: dict[str, Any]) -> list[str]:
    found = asked.get("tokens")
    if not isinstance(found, list) or not all(map(is_text, found)):
        raise InputError("the request has no tokens")
    if len(found) > MOST_VISITS:
        raise InputError(f"the request has {len(found)} tokens; give at most {MOST_VISITS}")
    return found


def _results(tokens: list[str], studio: Studio) -> list[Path]:
    """The files of those results of the visits that have not expired."""
    sessions = [studio.sessions.find(token) for token in tokens]
    results = [session.result for session in sessions if session]
    return [result.file for result in results if result]


def _listed(tokens: list[str], studio: Studio) -> dict[str, Any]:
    found = {token: studio.sessions.find(token) for token in tokens}
    return {token: brief_of(session) if session else None for token, session in found.items()}
