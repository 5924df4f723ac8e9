"""The page's named endpoints, for ``gradio_client``, other programs and MCP: /upscale,
/preview_frame, /models. The page itself does not use them (see ``routes.py``)."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr

from dloral.errors import DLoRALError, InputError
from dloral.options import AUTO
from dloral.studio.jobs import OUR_MISTAKE
from dloral.studio.preview import Preview
from dloral.studio.routes import Studio
from dloral.studio.sessions import Session
from dloral.studio.settings import settings_from
from dloral.video.probe import probe
from dloral.weights.loading import EMBEDDED, FETCHED

AT_ONCE = 8
"""Calls of the same name that are answered at once; /upscale queues behind the page's jobs."""

LOOK_SECONDS = 0.25


def attach_api(studio: Studio) -> None:
    """Add the endpoints; to be called inside ``gr.Blocks``. Their components are never shown:
    they give the calls names and types, and let Gradio check that a file was uploaded."""
    calls = Calls(studio)
    with gr.Row(visible=False):
        clip = gr.File(label="clip", file_count="single", type="filepath")
        frame = gr.Number(0, label="frame", precision=0)
        numbers = {
            "scale": gr.Number(4.0, label="scale"),
            "consistency": gr.Number(1.0, label="consistency"),
            "detail": gr.Number(1.0, label="detail"),
            "strength": gr.Number(1.0, label="strength"),
        }
        window = gr.Number(1, label="window", precision=0)
        prompt = gr.Textbox("", label="prompt")
        colour_fix = gr.Textbox(AUTO, label="color_fix")
        start = gr.Number(0.0, label="start")
        duration = gr.Number(None, label="duration")
        kept_as = gr.Textbox("h264", label="format")
        bit_depth = gr.Number(8, label="bit_depth", precision=0)
        crf = gr.Number(None, label="crf", precision=0)
        made = gr.File(label="result")
        listed = gr.JSON(label="models")
        looks = [*numbers.values(), window, prompt, colour_fix]
        common: dict[str, Any] = {"api_visibility": "public", "concurrency_limit": AT_ONCE}
        gr.Button().click(
            calls.upscale,
            [clip, *looks, start, duration, kept_as, bit_depth, crf],
            made,
            api_name="upscale",
            **common,
        )
        gr.Button().click(
            calls.preview_frame, [clip, frame, *looks], made, api_name="preview_frame", **common
        )
        gr.Button().click(calls.models, None, listed, api_name="models", **common)


class Calls:
    """The endpoints' functions. A person's mistake is raised as ``gr.Error`` with its one line."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def upscale(
        self,
        clip: str,
        scale: float = 4.0,
        consistency: float = 1.0,
        detail: float = 1.0,
        strength: float = 1.0,
        window: int = 1,
        prompt: str = "",
        color_fix: str = AUTO,
        start: float = 0.0,
        duration: float | None = None,
        format: str = "h264",
        bit_depth: int = 8,
        crf: int | None = None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (how Gradio asks for it)
    ) -> str:
        """Restore a video or an image: larger, sharper, free of flicker, with its sound.

        Args:
            clip: the video or image file
            scale: enlargement, 1 to 4
            consistency: C-LoRA, steadiness in time, 0 to 2
            detail: D-LoRA, fine detail, 0 to 2
            strength: how much of the restored picture is in the result, 0 (bicubic) to 1
            window: earlier frames that each frame looks at: 0, 1, 3 or 5
            prompt: what the clip shows, for models that read it
            color_fix: adain, wavelet, none, or auto for the model's own
            start: first second to restore
            duration: seconds to restore; all that is left if not given
            format: h264, h265, vp9, prores, ffv1, or png for frames in a zip file
            bit_depth: 8 or 10
            crf: quality of the video, lower is better

        Returns:
            the restored file
        """
        values = _values(scale, consistency, detail, strength, window, prompt, color_fix)
        values |= {"start": start or 0.0, "duration": duration, "format": format}
        values |= {"bit_depth": bit_depth, "crf": crf}
        studio = self._studio
        token = studio.sessions.open()
        session = studio.sessions.find(token)
        assert session is not None
        try:
            settings = settings_from(values, studio.model.name)
            info = session.open_clip(_given(clip).name, lambda copy: _link(_given(clip), copy))
            studio.limits.check(info, settings.options)
            job = session.start_job(settings)
            while not job.wait(LOOK_SECONDS):
                studio.sessions.find(token)  # somebody is still here
                newest = job.newest
                if newest is not None and newest.num_frames:
                    progress((newest.frame, newest.num_frames), unit="frames")
            if job.error is not None:
                raise job.error
            assert job.result is not None, "a job that ended well has a result"
            return _published(job.result.file)
        except Exception as error:
            raise _said(error, session) from None
        finally:
            studio.sessions.close(token)

    def preview_frame(
        self,
        clip: str,
        frame: int = 0,
        scale: float = 4.0,
        consistency: float = 1.0,
        detail: float = 1.0,
        strength: float = 1.0,
        window: int = 1,
        prompt: str = "",
        color_fix: str = AUTO,
    ) -> str:
        """Restore one frame of a video, or an image, as a PNG.

        A frame of more output pixels than 768 x 768 is restored around its middle only.

        Args:
            clip: the video or image file
            frame: which frame, counted from 0
            scale: enlargement, 1 to 4
            consistency: C-LoRA, steadiness in time, 0 to 2
            detail: D-LoRA, fine detail, 0 to 2
            strength: how much of the restored picture is in the result, 0 (bicubic) to 1
            window: earlier frames that are looked at: 0, 1, 3 or 5
            prompt: what the clip shows, for models that read it
            color_fix: adain, wavelet, none, or auto for the model's own

        Returns:
            the restored picture
        """
        values = _values(scale, consistency, detail, strength, window, prompt, color_fix)
        try:
            settings = settings_from(values, self._studio.model.name)
            info = probe(_given(clip))
            index = max(0, min(int(frame or 0), (info.num_frames or 1) - 1))
            preview = Preview(info, self._studio.model)
            png = preview.whole(index, settings.options)
            return _published_bytes(png, f"{info.path.stem}-frame-{index}.png")
        except Exception as error:
            raise _said(error, None) from None

    def models(self) -> list[dict[str, Any]]:
        """The model that this server runs, and the names of others that it could be started with.

        Returns:
            a list of models: name, whether it is the one in use, whether it is loaded
        """
        names = dict.fromkeys([self._studio.model.name, *EMBEDDED, *FETCHED])
        used = self._studio.model
        return [
            {
                "name": name,
                "in_use": name == used.name,
                "loaded": name == used.name and used.is_loaded,
            }
            for name in names
        ]


def _values(
    scale: float,
    consistency: float,
    detail: float,
    strength: float,
    window: int,
    prompt: str,
    color_fix: str,
) -> dict[str, Any]:
    return {
        "scale": scale,
        "consistency": consistency,
        "detail": detail,
        "strength": strength,
        "window": window,
        "prompt": prompt,
        "color_fix": color_fix,
    }


def _given(clip: str | None) -> Path:
    if not clip:
        raise InputError("there is no clip; give a video or an image")
    return Path(clip)


def _link(source: Path, copy: Path) -> None:
    """The same bytes under a name of our own: the uploaded file may go at any time."""
    try:
        os.link(source, copy)
    except OSError:
        shutil.copyfile(source, copy)


def _published(file: Path) -> str:
    """A copy that outlives the call's session; Gradio removes it when it is too old."""
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("GRADIO_TEMP_DIR")))
    return str(shutil.move(file, folder / file.name))


def _published_bytes(content: bytes, name: str) -> str:
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("GRADIO_TEMP_DIR")))
    (folder / name).write_bytes(content)
    return str(folder / name)


def _said(error: Exception, session: Session | None) -> Exception:
    """The error as Gradio tells it to a caller; a mistake of ours is raised as it is and logged."""
    if not isinstance(error, DLoRALError):
        import logging

        logging.getLogger(__name__).exception("a call failed", exc_info=error)
        return gr.Error(OUR_MISTAKE, print_exception=False)
    text = session.without_folder(error) if session is not None else _without_cache(error)
    return gr.Error(text, print_exception=False)


def _without_cache(error: DLoRALError) -> str:
    cache = os.environ.get("GRADIO_TEMP_DIR", "")
    return " ".join(
        Path(word).name if cache and cache in word else word for word in str(error).split(" ")
    )
