"""The page itself: one ``gr.HTML`` component whose template, style and script lie in ``web/``.

Gradio serves it, knows who is logged in, and gives it its theme; all controls are in the component
(docs/decisions.md says why).
"""

import json
from pathlib import Path
from typing import Any

import gradio as gr

from dloral.frames.colour import COLOUR_FIXES
from dloral.options import AUTO, SCALE_RANGE, WINDOWS
from dloral.studio.models import NOBODY
from dloral.studio.runtime import shown_name
from dloral.studio.settings import FORMATS
from dloral.studio.studio import Studio

WEB = Path(__file__).parent / "web"

STYLE_SHEETS = [WEB / "page.css", WEB / "viewer.css"]

_SCRIPTS = (
    *("words.js", "link.js", "viewer.js", "player.js", "gestures.js", "steering.js", "preview.js"),
    *("sheet.js", "strip.js", "scenes.js", "controls.js", "curves.js", "results.js"),
    *("models.js", "source.js", "run.js", "page.js"),
)
"""One scope, in this order."""

LORA_MOST = 1.5
"""End of the page's two scales; 1 is what the LoRAs were trained at."""


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
    """The page's whole script, with what it has to know of this server in front."""
    parts = [(WEB / name).read_text(encoding="utf-8") for name in _SCRIPTS]
    return "\n".join([f"const CONFIG = {json.dumps(configuration(studio))};", *parts])


def configuration(studio: Studio) -> dict[str, Any]:
    return {
        "model": shown_name(studio.model.name),
        "hasMenu": studio.models.menu_for != NOBODY,
        "maxUpload": studio.limits.max_upload,
        "maxSeconds": studio.limits.max_seconds,
        "examples": list(studio.examples),
        "formats": list(FORMATS),
        "windows": list(WINDOWS),
        "colourFixes": [AUTO, *COLOUR_FIXES],
        "scale": list(SCALE_RANGE),
        "most": LORA_MOST,
    }
