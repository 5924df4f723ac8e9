"""The page's documentation for programmers."""

import os

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from gradio.route_utils import get_root_url

from dloral.studio.api_page import api_page
from dloral.studio.studio import Studio

API = "/api"


def about_routes(studio: Studio) -> APIRouter:
    router = APIRouter()

    @router.api_route(API, methods=["GET", "HEAD"])
    def api(request: Request) -> HTMLResponse:
        # the way Gradio finds its own address behind a proxy
        address = get_root_url(request, request.url.path, os.environ.get("GRADIO_ROOT_PATH"))
        return HTMLResponse(api_page(address, studio.limits))

    return router
