"""What the page's JavaScript calls, under ``/studio/TOKEN/``, or for all of a
browser's visits under ``/studio/``. Other programs use ``api.py``.

The token identifies the visitor and gives access to their files; Gradio issues one only to users
who are logged in. A user's mistake is answered with status 200 and ``{"error": one line}``, since
browsers log any error status to the console as if the page were broken.
"""

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from gradio.context import LocalContext
from starlette.middleware.base import RequestResponseEndpoint

from dloral.errors import DLoRALError, InputError, ResourceError
from dloral.studio.disk import NoRoomError
from dloral.studio.face import is_full, told
from dloral.studio.hygiene import HAS_FAILED
from dloral.studio.page import WEB
from dloral.studio.routes.about import about_routes
from dloral.studio.routes.calls import GoneError, answer
from dloral.studio.routes.clip import clip_routes
from dloral.studio.routes.job import job_routes
from dloral.studio.routes.model import model_routes
from dloral.studio.routes.place import place_routes
from dloral.studio.routes.preview import preview_routes
from dloral.studio.routes.queue import queue_routes
from dloral.studio.routes.result import result_routes
from dloral.studio.routes.visit import visit_routes
from dloral.studio.shares import uses_file
from dloral.studio.studio import Studio

_UNKNOWN = {"gone": True}

_WANTED = {"int": "give a whole number", "float": "give a number", "bool": "give true or false"}
"""What a parameter in a call's address must be, by pydantic's name."""


def build_routes(studio: Studio) -> FastAPI:
    """The application to mount at ``/studio``."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    rooms = (
        *(visit_routes, model_routes, clip_routes, place_routes, preview_routes),
        *(job_routes, queue_routes, result_routes, about_routes),
    )
    for routes in rooms:
        app.include_router(routes(studio))
    _answer_errors(app, studio)

    app.mount("/web", StaticFiles(directory=WEB), name="web")

    @app.middleware("http")
    async def private(request: Request, call: RequestResponseEndpoint) -> Response:
        # Gradio's context identifies the visitor, whose ZeroGPU quota is used (studio/gpu.py).
        LocalContext.request.set(gr.Request(request))
        response = await call(request)
        # the page's own files are the same for everybody; revalidated in case they changed
        is_ours = request.url.path.startswith("/studio/web/")
        response.headers["cache-control"] = "no-cache" if is_ours else "private, no-store"
        return response

    return app


def _answer_errors(app: FastAPI, studio: Studio) -> None:
    @app.exception_handler(DLoRALError)
    async def refused(request: Request, error: DLoRALError) -> Response:
        if _is_for_the_file(request.url.path, error):
            setattr(request.state, HAS_FAILED, True)
        return answer({"error": told(error)})

    @app.exception_handler(OSError)
    async def full(request: Request, error: OSError) -> Response:
        if not is_full(error):
            raise error
        return answer({"error": told(error)})

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name, wanted = first["loc"][-1], first["type"].partition("_")[0]
        if wanted == "missing":
            return answer({"error": f"the request has no {name}"})
        remedy = _WANTED.get(wanted, "check the request")
        return answer({"error": f"{name} is {str(first.get('input'))[:80]!r}; {remedy}"})

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return answer({"error": told(error)})

    @app.exception_handler(GoneError)
    async def gone(request: Request, error: Exception) -> Response:
        return answer(_UNKNOWN)


def _is_for_the_file(path: str, error: DLoRALError) -> bool:
    """Whether a call received or decoded a file and rejected it because of the file itself, not
    because of a setting or a lack of resources. Clients that keep sending such files are slowed
    down (``hygiene.py``); one that moves a slider while the server is full is not."""
    if not uses_file(path) or is_full(error) or isinstance(error, NoRoomError):
        return False
    if path.endswith("/clip"):  # ResourceError: its decoder used more than a file of its size may
        return isinstance(error, InputError | ResourceError)
    return isinstance(error, InputError) and error.path is not None
