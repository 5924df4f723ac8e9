"""What other programs send, checked before Gradio takes it: it answers a number that is text, or a
file that was not uploaded, with an error of no words, and fetches any web address into memory."""

import json
import re
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.exceptions import InvalidPathError
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dloral.errors import DLoRALError, InputError
from dloral.studio.api import ENDPOINTS
from dloral.studio.face import is_full, told
from dloral.studio.fetching import fetch_clip, is_address
from dloral.studio.limits import Limits
from dloral.studio.routes.calls import number_of

_FILE = '{"path": PATH, "meta": {"_type": "gradio.FileData"}}'
_UPLOAD = "upload it to /gradio_api/upload first, and give the path that is answered"

_NAMED = re.compile(r"/call/v2/([^/]+)/?$")
"""The end of the path of calls whose parameters are named."""


class CheckedBlocks(gr.Blocks):
    """Blocks whose numbers and files are checked: a mistake is a one-line ``gr.Error``."""

    def __init__(self, limits: Limits, **more: Any) -> None:
        """``limits`` of files that are fetched."""
        super().__init__(**more)
        self._limits = limits

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], state: Any, explicit_call: bool = False
    ) -> Any:
        """As Gradio's, which every way of calling passes."""
        try:
            needed = len(block_fn.inputs)
            if len(inputs) < needed:
                raise InputError(f"the call has {len(inputs)} values; give all {needed}")
            pairs = zip(block_fn.inputs, inputs, strict=False)
            given = [await self._checked(component, value) for component, value in pairs]
            return await super().preprocess_data(block_fn, given, state, explicit_call)
        except InvalidPathError:
            said = f"clip is not a file of this server; {_UPLOAD}"
            raise gr.Error(said, print_exception=False) from None
        except (DLoRALError, OSError) as error:
            if not isinstance(error, DLoRALError) and not is_full(error):
                raise
            raise gr.Error(told(error), print_exception=False) from None

    async def _checked(self, component: Any, value: Any) -> Any:
        """A value as Gradio may have it. InputError in one line if it is of another type."""
        if value is None:
            return None
        if isinstance(component, gr.Number):
            return number_of({component.label: value}, component.label)
        if not isinstance(component, gr.File):
            return value
        path = value.get("path") if isinstance(value, dict) else None
        if not isinstance(path, str) or value.get("meta") != {"_type": "gradio.FileData"}:
            raise InputError(f"{component.label} is not a file; give {_FILE}")
        if not is_address(path):
            return value
        file = await fetch_clip(path, Path(component.GRADIO_CACHE), self._limits)
        return {"path": str(file), "meta": value["meta"]}


class CheckedNames:
    """Middleware: calls and parameters that do not exist, or lack, get one line, where Gradio
    answers "Internal Server Error" and logs a traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _NAMED.search(scope["path"]) if scope["type"] == "http" else None
        if found is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        messages = [await receive()]
        while messages[-1].get("more_body"):
            messages.append(await receive())
        content = b"".join(message.get("body", b"") for message in messages)
        said = _misnamed(found[1], content)
        if said is not None:
            await JSONResponse({"error": said[1]}, said[0])(scope, receive, send)
            return

        async def again() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, again, send)


def _misnamed(call: str, content: bytes) -> tuple[int, str] | None:
    """Status and one line for names that do not exist; None where all do, or Gradio will say."""
    if call not in ENDPOINTS:
        known = ", ".join(f"/{name}" for name in ENDPOINTS)
        return 404, f"there is no call /{call[:80]}; choose from {known}"
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return 422, f"the request is not a JSON object; give the parameters of /{call} by name"
    names = [parameter.name for parameter in ENDPOINTS[call]]
    for name in found:
        if name not in (*names, "oauth_token"):  # which Gradio's clients may add
            choice = f"choose from {', '.join(names)}" if names else "it has none"
            return 422, f"/{call} has no parameter {name[:80]!r}; {choice}"
    if "clip" in names and "clip" not in found:
        return 422, "no clip was given; give a video or an image"
    return None
