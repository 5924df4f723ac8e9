"""Where everything stands on the page, and the plain words at each control."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import gradio as gr

from dloral.frames.colour import COLOUR_FIXES
from dloral.options import CODECS, SCALE_RANGE, WINDOWS
from dloral.studio import words

LORA_MOST = 1.5
"""End of the two sliders; 1 is what the LoRAs were trained at."""

_PLAY_TOGETHER = """() => {
  const players = ["bicubic", "restored"].map(
    name => document.querySelector(`#${name}-player video`));
  if (players.some(player => !player)) return;
  players[0].muted = true;  // one sound is enough
  for (const player of players) { player.currentTime = 0; }
  for (const player of players) { player.play(); }
}"""

COMPARE = "compare"
"""Name of the tab that a result is first seen in."""

_TILES = [("automatic", "auto"), ("none", "none"), ("64", "64"), ("96", "96"), ("128", "128")]
_QUALITIES = [("automatic", "auto"), *((str(crf), crf) for crf in (8, 12, 16, 20, 24, 28, 32))]
_CODEC_LABELS = {
    "h264": "H.264 (.mp4)",
    "h265": "H.265 (.mp4)",
    "vp9": "VP9 (.webm)",
    "prores": "ProRes (.mov)",
    "ffv1": "FFV1, lossless (.mkv)",
}


@dataclass(frozen=True)
class Page:
    """The components that handlers read and write."""

    source: Any
    examples: list[tuple[Any, Path]]
    facts: Any
    consistency: Any
    detail: Any
    scale: Any
    start: Any
    seconds: Any
    window: Any
    colour_fix: Any
    tile: Any
    codec: Any
    crf: Any
    bit_depth: Any
    plan: Any
    run: Any
    cancel: Any
    message: Any
    stage: Any
    results: Any
    tabs: Any
    pair: Any
    frame: Any
    bicubic_player: Any
    restored_player: Any
    download: Any

    @property
    def settings(self) -> list[Any]:
        """The controls a run reads, in the order of ``handlers.chosen_options``."""
        names = [field.name for field in fields(self)]
        first, last = names.index("consistency"), names.index("bit_depth")
        return [getattr(self, name) for name in names[first : last + 1]]


def build_layout(examples: list[Path]) -> Page:
    """Place the components; to be called inside ``gr.Blocks``."""
    parts: dict[str, Any] = {}
    gr.HTML(
        "<header><h1>DLoRAL</h1><p>Makes a small, blurry or compressed clip larger and "
        "sharper, without flicker.</p></header>"
    )
    with gr.Row(elem_id="main"):
        with gr.Column(scale=4, min_width=300, elem_id="controls"):
            _place_source(parts, examples)
            _place_steering(parts)
            _place_advanced(parts)
            parts["plan"] = gr.HTML(elem_id="plan")
            with gr.Row(elem_id="actions"):
                parts["run"] = gr.Button(
                    "Restore", variant="primary", interactive=False, elem_id="run"
                )
                parts["cancel"] = gr.Button("Cancel", visible=False, elem_id="cancel")
        with gr.Column(scale=8, min_width=320, elem_id="viewer"):
            parts["message"] = gr.HTML(elem_id="message")
            parts["stage"] = gr.HTML(words.empty_stage(), elem_id="stage")
            _place_results(parts)
    return Page(**parts)


def _place_source(parts: dict[str, Any], examples: list[Path]) -> None:
    parts["source"] = gr.File(
        label="Clip or image",
        height=124,
        elem_id="source",
    )
    parts["examples"] = []
    if examples:
        with gr.Row(elem_id="examples"):
            gr.HTML("<span>Examples</span>", elem_id="examples-label")
            for path in examples:
                button = gr.Button(path.stem, size="sm", min_width=60, elem_id=f"ex-{path.stem}")
                parts["examples"].append((button, path))
    parts["facts"] = gr.HTML(elem_id="facts")


def _place_steering(parts: dict[str, Any]) -> None:
    parts["consistency"] = gr.Slider(
        0,
        LORA_MOST,
        1,
        step=0.05,
        label="Temporal consistency",
        info="C-LoRA. Higher: steadier from frame to frame",
        buttons=[],
        elem_id="consistency",
    )
    parts["detail"] = gr.Slider(
        0,
        LORA_MOST,
        1,
        step=0.05,
        label="Detail",
        info="D-LoRA. Higher: crisper; lower: closer to the clip",
        buttons=[],
        elem_id="detail",
    )
    parts["scale"] = gr.Slider(
        *SCALE_RANGE,
        value=4,
        step=0.5,
        label="Scale",
        info="How many times as wide and as high",
        buttons=[],
        elem_id="scale",
    )
    with gr.Row(elem_classes="pair"):
        parts["start"] = gr.Number(
            0,
            label="Start (s)",
            info="First second to restore",
            minimum=0,
            min_width=110,
            elem_id="start",
        )
        parts["seconds"] = gr.Number(
            None,
            label="Length (s)",
            info="0 or empty: to the end",
            minimum=0,
            min_width=110,
            placeholder="to the end",
            elem_id="seconds",
        )


def _place_advanced(parts: dict[str, Any]) -> None:
    with gr.Accordion("Advanced", open=False, elem_id="advanced"):
        parts["window"] = gr.Dropdown(
            list(WINDOWS),
            value=1,
            label="Window",
            min_width=150,
            info="Earlier frames that each frame looks at",
        )
        parts["colour_fix"] = gr.Dropdown(
            [("automatic", "auto"), *((name, name) for name in COLOUR_FIXES)],
            value="auto",
            label="Colour fix",
            min_width=150,
            info="Keeps the clip's colours; wavelet: place by place",
        )
        parts["tile"] = gr.Dropdown(
            _TILES,
            value="auto",
            label="Tile",
            min_width=150,
            info="Cells of 8 pixels. Smaller: less memory, more time",
        )
        parts["codec"] = gr.Dropdown(
            [(_CODEC_LABELS[codec], codec) for codec in CODECS],
            value="h264",
            label="Codec",
            min_width=150,
            info="Of the file to download; H.264 plays everywhere",
        )
        parts["crf"] = gr.Dropdown(
            _QUALITIES,
            value="auto",
            label="Quality (CRF)",
            min_width=150,
            info="Lower: better and larger. For H.264, H.265, VP9",
        )
        parts["bit_depth"] = gr.Dropdown(
            [8, 10],
            value=8,
            label="Bits",
            min_width=150,
            info="10: finer gradients, not in every player",
        )


def _place_results(parts: dict[str, Any]) -> None:
    with gr.Column(visible=False, elem_id="results") as parts["results"]:
        with gr.Tabs() as parts["tabs"]:
            with gr.Tab("Compare a frame", id=COMPARE):
                parts["pair"] = gr.ImageSlider(
                    label="Left bicubic, right restored",
                    interactive=False,
                    height="min(54vh, 470px, 72vw)",
                    buttons=["fullscreen"],
                    elem_id="pair",
                )
                parts["frame"] = gr.Slider(
                    1,
                    2,
                    1,
                    step=1,
                    label="Frame",
                    info="Which frame to compare; drag the line in the picture to wipe",
                    buttons=[],
                    elem_id="frame",
                )
            with gr.Tab("Play both", id="play"):
                with gr.Row(elem_classes="pair"):
                    parts["bicubic_player"] = _player("Bicubic enlargement", "bicubic-player")
                    parts["restored_player"] = _player("Restored", "restored-player")
                together = gr.Button("Play both from the start", size="md", elem_id="together")
                together.click(None, None, None, js=_PLAY_TOGETHER, api_visibility="private")
        parts["download"] = gr.DownloadButton(
            "Download the result", variant="primary", elem_id="download"
        )


def _player(label: str, elem_id: str) -> Any:
    return gr.Video(label=label, interactive=False, buttons=[], loop=True, elem_id=elem_id)
