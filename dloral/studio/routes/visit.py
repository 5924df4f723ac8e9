"""The visit: what the page shows, and its notice that it is closing."""

from fastapi import APIRouter
from fastapi.responses import Response

from dloral.studio.routes.calls import answer, visitor
from dloral.studio.states import state_of
from dloral.studio.studio import Studio


def visit_routes(studio: Studio) -> APIRouter:
    router = APIRouter()

    @router.get("/{token}/state")
    def state(token: str) -> Response:
        return answer(state_of(visitor(token, studio), studio))

    @router.post("/{token}/leave")
    def leave(token: str) -> Response:
        studio.sessions.leaving(token)
        return answer({})

    return router
