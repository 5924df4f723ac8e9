"""The page itself: one ``gr.HTML`` component whose template, style and script lie in ``web/``.

Gradio serves it, knows who is logged in, and gives it its theme; all controls are in the component
(docs/decisions.md says why).
"""

import json
from pathlib import Path
from typing import Any

import gradio as gr

from dloral.options import MAX_LORA_SCALE, SCALE_RANGE
from dloral.studio.models import NOBODY, THIS_MACHINE
from dloral.studio.runtime import shown_name
from dloral.studio.sessions import MOST_VISITS
from dloral.studio.studio import Studio

WEB = Path(__file__).parent / "web"

STYLE_SHEETS = [WEB / "page.css", WEB / "viewer.css"]

PICTURES = WEB / "pictures"

_START = """\
const root = window.gradio_config?.root ?? location.origin + location.pathname;
import(`${{root.replace(/\\/+$/, "")}}/studio/web/page.js`).then(
  ({{ start }}) => start({{ element, server, config: {0} }}),
);
"""
"""What Gradio runs once its component is there; everything else is a module in ``web/``."""


def build_component(studio: Studio) -> gr.HTML:
    """Place the page; to be called inside ``gr.Blocks``."""

    def open_session(_: str) -> str:
        """A token for a new visitor. Gradio calls it only for who is logged in."""
        return studio.sessions.open()

    return gr.HTML(
        html_template=(WEB / "page.html").read_text(encoding="utf-8"),
        js_on_load=script(studio),
        apply_default_css=False,
        server_functions=[open_session],
        elem_id="studio",
    )


def script(studio: Studio) -> str:
    """Starts the page's modules with what they have to know about this server."""
    return _START.format(json.dumps(configuration(studio)))


def configuration(studio: Studio) -> dict[str, Any]:
    """``Configuration`` of ``web/types.d.ts``."""
    return {
        "model": shown_name(studio.model.name),
        "isLocal": studio.models.menu_for == THIS_MACHINE,
        "hasMenu": studio.models.menu_for != NOBODY,
        "maxUpload": studio.limits.max_upload,
        "keepSeconds": studio.sessions.patience.kept,
        "mostVisits": MOST_VISITS,
        "examples": list(studio.examples),
        "pictures": sorted(path.stem for path in PICTURES.glob("*.webp")),
        "scale": list(SCALE_RANGE),
        "most": MAX_LORA_SCALE,
    }
