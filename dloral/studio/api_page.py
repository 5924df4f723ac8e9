"""The API's documentation page: each call with its parameters, limits and examples to paste.

Gradio's own API page is part of its footer, which this page does not have, and its examples upload
a file from a third-party server.
"""

import inspect
import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from dloral.studio.api import ENDPOINTS, Calls, Parameter, said_of
from dloral.studio.estimates import time_in_words
from dloral.studio.limits import Limits
from dloral.studio.page import WEB

KINDS: dict[type, str] = {Path: "file", str: "text", float: "number", int: "whole number"}

PYTHON = """\
from gradio_client import Client, handle_file

page = Client("{address}/")
print(page.predict({given}api_name="/{name}"))
"""

UPLOAD = """\
path=$(curl -s -F files=@clip.mp4 "$page/gradio_api/upload" | cut -d '"' -f 2)
"""

CALL = """\
event=$(curl -s "$page/gradio_api/call/v2/{name}" -H "content-type: application/json" \\
    -d "{body}" | tee /dev/stderr | cut -d '"' -f 4)
"""

ANSWER = """\
curl -sN "$page/gradio_api/call/{name}/$event"
"""

RESULT = """\
url=$(curl -sN "$page/gradio_api/call/{name}/$event" | tee /dev/stderr |
    grep -o '"url": *"[^"]*"' | tail -n 1 | cut -d '"' -f 4)
curl -s "$url" -o "{saved}"
"""

SAVED = {
    "upscale": "restored.mp4",
    "upscale_with_notes": "restored.mp4",
    "preview_frame": "frame.png",
}
"""Output files of the curl examples. The Python examples print where the client saved the file."""

_PART = {"scale": 2, "duration": 1}
CHOSEN = {
    "upscale": _PART,
    "upscale_with_notes": _PART,
    "plan": _PART,
    "preview_frame": {"frame": 0, "scale": 2},
}
"""Arguments of the examples, chosen to be little work."""

FILE = {"path": "$path", "meta": {"_type": "gradio.FileData"}}


def api_page(address: str, limits: Limits) -> str:
    """The page as HTML. ``address``: the URL it is reached at, without a trailing slash."""
    template = Template((WEB / "api.html").read_text(encoding="utf-8"))
    return template.substitute(
        contents="".join(f'<li><a href="#{name}">/{name}</a></li>' for name in ENDPOINTS),
        limits="".join(f"<li>{escape(line)}</li>" for line in _limits(limits)),
        calls="".join(_call(name, parameters, address) for name, parameters in ENDPOINTS.items()),
    )


def _limits(limits: Limits) -> Iterator[str]:
    yield f"A file may be up to {limits.max_upload / 1e6:g} MB."
    if limits.max_seconds is not None:
        yield f"Up to {time_in_words(limits.max_seconds)} of a clip can be restored at once."
    if limits.max_pixels is not None:
        yield f"A frame of the result may have up to {limits.max_pixels / 1e6:g} million pixels."
    if limits.max_hours is not None:
        longest = time_in_words(3600 * limits.max_hours)
        yield f"Runs estimated to take more than {longest} are refused."


def _call(name: str, parameters: tuple[Parameter, ...], address: str) -> str:
    what, returned = said_of(getattr(Calls, name))
    paragraphs = "".join(f"<p>{escape(part)}</p>" for part in what.split("\n\n"))
    rows = "".join(_row(parameter) for parameter in parameters)
    table = (
        "<table><thead><tr><th>Parameter</th><th>Type</th><th>Default</th><th>Meaning</th>"
        f"</tr></thead><tbody>{rows}</tbody></table>"
    )
    return (
        f'<section id="{name}"><h2>/{name}</h2>{paragraphs}'
        f"{table if parameters else '<p>No parameters.</p>'}"
        f"<p>Returns {escape(inspect.cleandoc(returned))}.</p>"
        f"<h3>Python</h3>{_code(_in_python(name, address))}"
        f"<h3>curl</h3>{_code(_in_curl(name, address))}</section>"
    )


def _row(parameter: Parameter) -> str:
    is_needed = parameter.kind is Path
    default = "required" if is_needed else _default(parameter.default)
    cells = KINDS[parameter.kind], default, parameter.text
    return (
        f'<tr><th scope="row"><code>{parameter.name}</code></th>'
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
    )


def _default(value: object) -> str:
    if value is None or value == "":
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _code(text: str) -> str:
    return f'<pre tabindex="0">{escape(text, quote=False)}</pre>'


def _in_python(name: str, address: str) -> str:
    chosen = {name: repr(value) for name, value in CHOSEN.get(name, {}).items()}
    if ENDPOINTS[name]:
        chosen = {"clip": 'handle_file("clip.mp4")'} | chosen
    text = PYTHON.format(
        address=address,
        name=name,
        given="".join(f"{key}={value}, " for key, value in chosen.items()),
    )
    return text if ENDPOINTS[name] else text.replace("Client, handle_file", "Client")


def _in_curl(name: str, address: str) -> str:
    given: dict[str, Any] = {"clip": FILE} if ENDPOINTS[name] else {}
    body = json.dumps(given | CHOSEN.get(name, {})).replace('"', '\\"')
    parts = [f"page={address}\n", UPLOAD if ENDPOINTS[name] else "", CALL]
    text = "".join([*parts, RESULT if name in SAVED else ANSWER])
    for place, value in {"name": name, "body": body, "saved": SAVED.get(name, "")}.items():
        text = text.replace("{" + place + "}", value)
    return text
