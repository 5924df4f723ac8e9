"""The page's named endpoints, for ``gradio_client``, other programs and MCP: :data:`ENDPOINTS`.
The page itself does not use them (see ``routes/``)."""

import inspect
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import LocalContext

from dloral.errors import DLoRALError, InputError
from dloral.frames.colour import COLOUR_FIXES
from dloral.options import AUTO, MAX_LORA_SCALE, SCALE_RANGE
from dloral.studio.estimates import counted, plan, run_seconds
from dloral.studio.face import is_full, told
from dloral.studio.preview import Preview
from dloral.studio.records import Result
from dloral.studio.runtime import shown_name
from dloral.studio.settings import PNG_ZIP, Settings, settings_from
from dloral.studio.studio import Studio
from dloral.studio.uploads import link_or_copy
from dloral.video.probe import ClipInfo, probe
from dloral.weights.resolve import EMBEDDED, FETCHED

AT_ONCE = 8
"""Concurrent calls per endpoint; those that restore a clip queue behind the page's jobs."""

LOOK_SECONDS = 0.25


@dataclass(frozen=True)
class Parameter:
    """One parameter of an endpoint: its name, type, default and help text, as callers see them."""

    name: str
    kind: type
    default: Any
    text: str

    def component(self) -> Any:
        """The component that gives the parameter its type in Gradio's API; never shown."""
        if self.kind is Path:
            return gr.File(label=self.name, file_count="single", type="filepath")
        if self.kind is str:
            return gr.Textbox(self.default, label=self.name)
        return gr.Number(self.default, label=self.name, precision=0 if self.kind is int else None)

    def in_signature(self) -> inspect.Parameter:
        kind = str if self.kind is Path else self.kind
        default = inspect.Parameter.empty if self.kind is Path else self.default
        annotation = kind | None if default is None else kind
        place = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return inspect.Parameter(self.name, place, default=default, annotation=annotation)


CLIP = Parameter("clip", Path, None, "the video or image file")
FRAME = Parameter("frame", int, 0, "which frame, counted from 0")

LOOKS = (
    Parameter("scale", float, 4.0, f"enlargement, {SCALE_RANGE[0]:g} to {SCALE_RANGE[1]:g}"),
    Parameter("consistency", float, 1.0, f"C-LoRA, steadiness in time, 0 to {MAX_LORA_SCALE:g}"),
    Parameter("detail", float, 1.0, f"D-LoRA, fine detail, 0 to {MAX_LORA_SCALE:g}"),
    Parameter(
        "strength",
        float,
        1.0,
        "how much of the restored picture is in the result, 0 (bicubic) to 1",
    ),
    Parameter("window", int, 1, "earlier frames used for each frame: 0, 1, 3 or 5"),
    Parameter("prompt", str, "", "what the clip shows, for models that read a prompt"),
    Parameter("color_fix", str, AUTO, f"{', '.join(COLOUR_FIXES)}, or auto for the model's own"),
    Parameter(
        "deinterlace",
        str,
        AUTO,
        "off, frame, field (twice the rate), film (inverse telecine), or auto: frame if interlaced",
    ),
)
"""Parameters that determine how a frame looks, named like the page's settings."""

KEEPING = (
    Parameter("start", float, 0.0, "first second to restore"),
    Parameter("duration", float, None, "seconds to restore; to the end by default"),
    Parameter(
        "format",
        str,
        "h264",
        "h264, h265, av1, vp9, prores, ffv1; gif or webp, animated and without sound; or png for "
        "frames in a zip file. A picture becomes a PNG in any case",
    ),
    Parameter("bit_depth", str, AUTO, "8, 10, or auto: 10 for a source of more than 8 bits"),
    Parameter("crf", int, None, "quality of h264, h265, av1 and vp9, lower is better"),
    Parameter("fit", str, None, "instead of scale, such as 3840x2160: the largest size that fits"),
)
"""Which part of a clip is restored, and the format of the result."""

ENDPOINTS: dict[str, tuple[Parameter, ...]] = {
    "upscale": (CLIP, *LOOKS, *KEEPING),
    "upscale_with_notes": (CLIP, *LOOKS, *KEEPING),
    "plan": (CLIP, *LOOKS, *KEEPING),
    "preview_frame": (CLIP, FRAME, *LOOKS),
    "models": (),
}
"""Parameters by endpoint name; the methods of :class:`Calls` document what each one does."""


def attach_api(studio: Studio) -> None:
    """Add the endpoints; call this inside ``gr.Blocks``. Their components are never shown: they
    give the parameters names and types, and let Gradio check that a file was uploaded."""
    calls = Calls(studio)
    with gr.Row(visible=False):
        given = {parameter: parameter.component() for parameter in (CLIP, FRAME, *LOOKS, *KEEPING)}
        made, facts = gr.File(label="result"), gr.JSON(label="facts")
        listed = gr.JSON(label="models")

        def attach(call: Callable[..., Any], out: Any) -> None:
            gr.Button().click(
                call,
                [given[parameter] for parameter in ENDPOINTS[call.__name__]],
                out,
                api_name=call.__name__,
                api_visibility="public",
                concurrency_limit=AT_ONCE,
            )

        attach(endpoint(calls.upscale, with_progress=True), made)
        attach(endpoint(calls.upscale_with_notes, with_progress=True), [made, facts])
        attach(endpoint(calls.plan, with_progress=False), facts)
        attach(endpoint(calls.preview_frame, with_progress=False), made)
        attach(calls.models, listed)


def endpoint(call: Callable[..., Any], with_progress: bool) -> Callable[..., Any]:
    """Wrap ``call``, which takes a dictionary, for Gradio: with the parameters in its signature and
    docstring. ``with_progress``: also pass it a ``gr.Progress``."""
    parameters = ENDPOINTS[call.__name__]

    def given_in_order(*given: Any) -> Any:
        values = {
            parameter.name: parameter.default if value is None else value
            for parameter, value in zip(parameters, given, strict=False)
        }
        return call(values, *given[len(parameters) :])

    places = [parameter.in_signature() for parameter in parameters]
    if with_progress:  # Gradio injects one where a parameter's default is a gr.Progress
        place = inspect.Parameter.POSITIONAL_OR_KEYWORD
        places.append(inspect.Parameter("progress", place, default=gr.Progress()))
    given_in_order.__signature__ = inspect.Signature(places)  # type: ignore[attr-defined]
    given_in_order.__name__ = call.__name__
    lines = [f"    {parameter.name}: {parameter.text}" for parameter in parameters]
    what, returned = said_of(call)
    given_in_order.__doc__ = "\n".join([what, "", "Args:", *lines, "", "Returns:", returned])
    return given_in_order


def said_of(call: Callable[..., Any]) -> tuple[str, str]:
    """What a call does and what it returns, from its docstring."""
    what, _, returned = inspect.cleandoc(call.__doc__ or "").partition("\n\nReturns:\n")
    return what, returned


class Calls:
    """The endpoints' functions. A user's mistake is raised as a one-line ``gr.Error``."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def upscale(self, values: dict[str, Any], progress: gr.Progress) -> str:
        """Restore a video or an image: larger and sharper, with sound where the format holds it.

        /upscale_with_notes also says what the result could not keep of its source.

        Returns:
            the restored file
        """
        return self._restored(values, progress)[0]

    def upscale_with_notes(
        self, values: dict[str, Any], progress: gr.Progress
    ) -> tuple[str, dict[str, Any]]:
        """Restore as /upscale does, and say what the result is and could not keep of its source.

        Returns:
            the restored file, and an object: width, height, frames, format (png for a picture), and
            notes, a list of lines
        """
        file, result = self._restored(values, progress)
        height, width = result.size
        return file, {
            "width": width,
            "height": height,
            "frames": len(result.times),
            "format": _format_of(result.clip, result.settings),
            "notes": list(result.notes),
        }

    def plan(self, values: dict[str, Any]) -> dict[str, Any]:
        """Say what /upscale would make of a clip, and refuse what it would refuse, without
        restoring anything.

        Some notes are known only once a clip is restored; /upscale_with_notes gives them all.

        Returns:
            an object: width, height, frames (null if they cannot be counted), seconds (at least and
            at most how long it will take; null while that is unknown), format (png for a picture),
            and notes, a list of lines
        """
        clip = values.pop("clip")
        try:
            settings = self._settings_of(values)
            info = probe(_given(clip), isolated=True)
            self._check(info, settings)
            planned = plan(info, settings, self._studio.model)
            said = {name: planned[name] for name in ("width", "height", "frames", "seconds")}
            return said | {"format": _format_of(info, settings), "notes": planned["notes"]}
        except Exception as error:
            raise _as_gradio(error) from None

    def _restored(self, values: dict[str, Any], progress: gr.Progress) -> tuple[str, Result]:
        """The restored file, where it outlives the call, and the result that it was part of."""
        clip = values.pop("clip")
        studio, listens = self._studio, _caller()
        token = studio.sessions.open()
        session = studio.sessions.find(token)
        assert session is not None
        try:
            settings = self._settings_of(values)
            info = session.open_clip(
                _given(clip).name, lambda copy: link_or_copy(_given(clip), copy)
            )
            self._check(info, settings)
            job = session.start_job(settings)
            while not job.wait(LOOK_SECONDS):
                if not listens():  # closing the session dequeues the job
                    raise gr.Error("the caller disconnected", print_exception=False)
                studio.sessions.find(token)  # keeps the session alive
                newest = job.newest
                if newest is not None and newest.num_frames:
                    progress((newest.frame, newest.num_frames), unit="frames")
            if job.error is not None:
                raise job.error
            assert job.result is not None, "a job that ended well has a result"
            return _published(job.result.file), job.result
        except Exception as error:
            raise _as_gradio(error) from None
        finally:
            studio.sessions.close(token)

    def preview_frame(self, values: dict[str, Any]) -> str:
        """Restore one frame of a video, or an image, as a PNG.

        A frame of more than 768 x 768 output pixels is restored only around its centre.

        Returns:
            the restored picture
        """
        clip, frame = values.pop("clip"), values.pop("frame")
        try:
            settings = self._settings_of(values)
            info = probe(_given(clip), isolated=True)
            index = frame_of(info, frame)
            self._studio.limits.check_frame(info, settings.options)
            sources = self._studio.sessions.sources
            try:
                png = Preview(info, self._studio.model, sources).whole(index, settings.options)
            finally:
                sources.forget(info)
            return _published_bytes(png, f"{info.path.stem}-frame-{index}.png")
        except Exception as error:
            raise _as_gradio(error) from None

    def _settings_of(self, values: dict[str, Any]) -> Settings:
        # callers may send an empty string for none
        values = values | {"fit": values.get("fit") or None}
        return settings_from(values, self._studio.model.name)

    def _check(self, info: ClipInfo, settings: Settings) -> None:
        """InputError or ResourceError if the run is more than may be asked for."""
        seconds = run_seconds(info, settings, self._studio.model)
        self._studio.limits.check(info, settings.options, settings.format, seconds)

    def models(self) -> list[dict[str, Any]]:
        """The model this server runs, and the names of others it could be started with.

        Returns:
            a list of models: name, whether it is the one in use, whether it is loaded
        """
        used = self._studio.model
        shown = shown_name(used.name)
        return [
            {
                "name": name,
                "in_use": name == shown,
                "loaded": name == shown and used.is_loaded,
            }
            for name in dict.fromkeys([shown, *EMBEDDED, *FETCHED])
        ]


def _caller() -> Callable[[], bool]:
    """A function that tells whether the caller of the current call is still connected.

    When a caller disconnects, Gradio dequeues a waiting call, but only flags a running one.
    """
    blocks, event_id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    event = blocks._queue.event_ids_to_events.get(event_id) if blocks and event_id else None
    return lambda: event is None or event.alive


def _given(clip: str | None) -> Path:
    if not clip:
        raise InputError("no clip was given; give a video or an image")
    return Path(clip)


def _format_of(clip: ClipInfo, settings: Settings) -> str:
    return PNG_ZIP if clip.kind == "image" else settings.format


def frame_of(clip: ClipInfo, frame: int) -> int:
    """``frame``, from 0 on, if the clip has it; InputError if not. Where the number of frames is
    unknown, reading the clip shows whether it is there."""
    count = clip.num_frames
    if frame >= 0 and (count is None or frame < count):
        return frame
    if count is None:
        raise InputError(f"frame is {frame}; give 0 or more")
    raise InputError(
        f"frame is {frame}, and {{path}} has {counted(count, 'frame')}",
        remedy="give 0" if count == 1 else f"give 0 to {count - 1}",
        path=clip.path,
    )


def _published(file: Path) -> str:
    """The file, moved to where it outlives the call's session; Gradio removes it when too old."""
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("GRADIO_TEMP_DIR")))
    return str(shutil.move(file, folder / file.name))


def _published_bytes(content: bytes, name: str) -> str:
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("GRADIO_TEMP_DIR")))
    (folder / name).write_bytes(content)
    return str(folder / name)


def _as_gradio(error: Exception) -> Exception:
    """The error as Gradio passes it to a caller; a bug of ours is logged."""
    if isinstance(error, gr.Error):
        return error
    if not isinstance(error, DLoRALError) and not is_full(error):
        import logging

        logging.getLogger(__name__).exception("a call failed", exc_info=error)
    return gr.Error(told(error), print_exception=False)
