"""What the page's JavaScript calls, under ``/studio/TOKEN/``. Other programs use ``api.py``.

The token names the visitor and is the key to their files; Gradio hands one out only to who is
logged in. A person's mistake is answered with status 200 and ``{"error": one line}``: browsers
write every other status into their console as if the page were broken.
"""

import gradio as gr
from fastapi import FastAPI, Request
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


def build_routes(studio: Studio) -> FastAPI:
    """The application to be mounted at ``/studio``."""
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
        # Gradio's context names the visitor: ZeroGPU's quota is theirs (studio/gpu.py).
        LocalContext.request.set(gr.Request(request))
        response = await call(request)
        # the page's own files are the same for everybody; asked for anew, in case they changed
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

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return answer({"error": told(error)})

    @app.exception_handler(GoneError)
    async def gone(request: Request, error: Exception) -> Response:
        return answer(_UNKNOWN)


def _is_for_the_file(path: str, error: DLoRALError) -> bool:
    """Whether a call took in or decoded a file and refused it for the file's sake: not for a
    setting, nor for what this machine is short of. Whoever sends such files over and over pauses
    (``hygiene.py``); who moves a slider while the server is full does not."""
    if not uses_file(path) or is_full(error) or isinstance(error, NoRoomError):
        return False
    if path.endswith("/clip"):  # ResourceError: its decoder took more than a file of its size may
        return isinstance(error, InputError | ResourceError)
    return isinstance(error, InputError) and error.path is not None
