"""The menu of models: what it offers, what switching to a model would download, and switching.

A change affects everybody and may download gigabytes, so only the person who runs the page may
make it, unless ``--allow-fetch`` lets every visitor (docs/decisions.md).
"""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from dloral.errors import InputError
from dloral.options import AUTO
from dloral.studio.hygiene import host_of
from dloral.studio.models import EVERYBODY, THIS_MACHINE
from dloral.studio.routes.calls import answer, json_of, visitor
from dloral.studio.shares import is_forwarded
from dloral.studio.states import change_of
from dloral.studio.studio import Studio
from dloral.weights.hub import size_text
from dloral.weights.registry import MODELS, TINY_VAE, fetched

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


def model_routes(studio: Studio) -> APIRouter:
    router = APIRouter()

    def check(token: str, request: Request) -> None:
        """InputError for callers who may not change the model."""
        visitor(token, studio)
        asks = studio.models.menu_for
        if asks != EVERYBODY and not (asks == THIS_MACHINE and is_from_here(request)):
            raise InputError(
                "only the person running this page can change its model: use python app.py "
                "--model, or --allow-fetch for every visitor"
            )

    def listed() -> Response:
        models = studio.models
        return answer(
            {
                "in_use": models.current.name,
                "vae": models.current.vae,
                "takes_tiny_vae": models.current.takes_tiny_vae,
                "tiny_vae": {"text": MODELS[TINY_VAE].text, "here": bool(fetched(TINY_VAE))},
                "models": models.menu(),
                "change": change_of(models.change),
            }
        )

    @router.get("/{token}/models")
    def menu(token: str, request: Request) -> Response:
        check(token, request)
        return listed()

    @router.post("/{token}/models/plan")
    async def plan(token: str, request: Request) -> Response:
        check(token, request)
        found = await run_in_threadpool(studio.models.plan, *_chosen(await json_of(request)))
        parts = [part for model in found.models for part in MODELS[model].parts.values()]
        return answer(
            {
                "download": size_text(found.bytes_left),
                "disk": size_text(found.disk_needed),
                "sources": sorted({planned.found.source.repo for planned in found.files}),
                "licences": list(dict.fromkeys(part.licence for part in parts)),
            }
        )

    @router.post("/{token}/models")
    async def take(token: str, request: Request) -> Response:
        check(token, request)
        await run_in_threadpool(studio.models.take, *_chosen(await json_of(request)))
        return listed()

    @router.delete("/{token}/models")
    def stop(token: str, request: Request) -> Response:
        check(token, request)
        if studio.models.change is not None:
            studio.models.change.cancel()
        return listed()

    return router


def is_from_here(request: Request) -> bool:
    """Whether a call comes from a browser on this machine, and not through a proxy that says so.

    The Host header is checked too, since a foreign page can point its own domain at this machine
    (DNS rebinding).
    """
    host = host_of(request.headers.get("host", ""))
    client = request.client.host if request.client else ""
    return host in LOCAL_HOSTS and client in LOCAL_HOSTS and not is_forwarded(request.headers)


def _chosen(asked: dict[str, Any]) -> tuple[str, list[str], str]:
    name, without, vae = asked.get("name"), asked.get("without", []), asked.get("vae", AUTO)
    is_list = isinstance(without, list) and all(isinstance(model, str) for model in without)
    if not isinstance(name, str) or not isinstance(vae, str) or not is_list:
        raise InputError("the request has no model")
    return name, without, vae
