"""What the page's JavaScript calls, under ``/studio/TOKEN/``. Other programs use ``api.py``.

The token names the visitor and is the key to their files; Gradio hands one out only to who is
logged in. A person's mistake is answered with status 200 and ``{"error": one line}``: browsers
write every other status into their console as if the page were broken.
"""

import json
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from dloral.errors import CancelledError, DLoRALError, InputError
from dloral.options import UpscaleOptions
from dloral.studio.comparison import LAYOUTS, comparison_clip
from dloral.studio.facts import described, plan, time_in_words
from dloral.studio.jobs import OUR_MISTAKE, Job, Result
from dloral.studio.pictures import jpeg_of, stacked, within
from dloral.studio.preview import Preview, Region
from dloral.studio.sessions import Session, Sessions, checked_name
from dloral.studio.settings import MOST_BYTES, Settings, settings_from, settings_from_file
from dloral.studio.stills import still, thumbnails
from dloral.studio.worker import JobQueue, Model
from dloral.upscale import expected_frames
from dloral.video.probe import ClipInfo

LATEST_SIDE = 1024
"""Pixels; the newest frame of a running job is sent no larger."""

_PNG, _JPEG = "image/png", "image/jpeg"
_UNKNOWN = {"gone": True}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What a visitor may ask for. ``max_upload``: bytes; ``max_minutes``: of a clip, restored at
    once, None: any."""

    max_upload: int
    max_minutes: float | None = None

    @property
    def max_seconds(self) -> float | None:
        return None if self.max_minutes is None else 60 * self.max_minutes

    def check(self, clip: ClipInfo, options: UpscaleOptions) -> None:
        """InputError if more is to be restored at once than is allowed."""
        frames = expected_frames(clip, options)
        if self.max_seconds is None or clip.kind == "image" or frames is None:
            return
        seconds = float(frames / clip.fps)
        if seconds > self.max_seconds + 0.5:
            raise InputError(
                f"{time_in_words(seconds)} are more than the {time_in_words(self.max_seconds)} "
                "that this page restores at once; choose a shorter part on the strip"
            )


@dataclass(frozen=True)
class Studio:
    """All that the routes and the API share."""

    sessions: Sessions
    model: Model
    queue: JobQueue
    limits: Limits
    examples: dict[str, Path]


def build_routes(studio: Studio) -> FastAPI:
    """The application to be mounted at ``/studio``."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    visitor = _visitors(studio.sessions)

    @app.exception_handler(DLoRALError)
    async def refused(request: Request, error: DLoRALError) -> Response:
        session = studio.sessions.find(request.path_params.get("token", ""))
        return _answer({"error": session.without_folder(error) if session else str(error)})

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return _answer({"error": OUR_MISTAKE})

    @app.exception_handler(_GoneError)
    async def gone(request: Request, error: Exception) -> Response:
        return _answer(_UNKNOWN)

    @app.get("/{token}/state")
    def state(token: str) -> Response:
        return _answer(_state(visitor(token), studio))

    @app.post("/{token}/leave")
    def leave(token: str) -> Response:
        studio.sessions.leaving(token)
        return _answer({})

    @app.post("/{token}/clip")
    async def open_clip(token: str, name: str, request: Request) -> Response:
        session = visitor(token)
        checked_name(name)  # before the file is sent for nothing
        part = session.folder / f"{secrets.token_hex(8)}.part"
        try:
            await _receive(request, part, studio.limits.max_upload)
            await run_in_threadpool(session.open_clip, name, lambda copy: _move(part, copy))
        finally:
            part.unlink(missing_ok=True)
        return _answer(_state(session, studio))

    @app.post("/{token}/example")
    def open_example(token: str, name: str) -> Response:
        session = visitor(token)
        if name not in studio.examples:
            raise InputError(f"{name!r} is no example; there are {', '.join(studio.examples)}")
        source = studio.examples[name]
        session.open_clip(source.name, lambda copy: _copy(source, copy))
        return _answer(_state(session, studio))

    @app.delete("/{token}/clip")
    def close_clip(token: str) -> Response:
        session = visitor(token)
        session.close_clip()
        return _answer(_state(session, studio))

    @app.post("/{token}/settings")
    async def read_settings(token: str, request: Request) -> Response:
        visitor(token)
        content = await _body(request)
        return _answer({"settings": settings_from_file(content)})

    @app.post("/{token}/plan")
    async def make_plan(token: str, request: Request) -> Response:
        session = visitor(token)
        settings = await _settings(request, studio.model)
        clip = _clip(session)
        studio.limits.check(clip, settings.options)
        return _answer(plan(clip, settings, studio.model))

    @app.get("/{token}/background")
    def background(token: str, frame: int, scale: float) -> Response:
        session = visitor(token)
        options = UpscaleOptions(scale=scale)
        preview = _preview(session)
        return Response(
            preview.background(_within(session, frame), options.scale), 200, None, _JPEG
        )

    @app.get("/{token}/bicubic")
    def bicubic(
        token: str, frame: int, scale: float, x: int, y: int, width: int, height: int
    ) -> Response:
        session = visitor(token)
        region = Region(max(x, 0), max(y, 0), max(width, 1), max(height, 1))
        options = UpscaleOptions(scale=scale)
        png = _preview(session).bicubic(_within(session, frame), options.scale, region)
        return Response(png, 200, None, _PNG)

    @app.post("/{token}/preview")
    async def preview(token: str, request: Request) -> Response:
        session = visitor(token)
        asked = await _json(request)
        settings = settings_from(_dict(asked, "settings"), studio.model.name)
        index = _within(session, _number(asked, "frame"))
        centre = _number(asked, "x", 0.5), _number(asked, "y", 0.5)
        pixels = int(_number(asked, "pixels")) or None
        try:
            made = await run_in_threadpool(
                _preview(session).render, index, settings.options, pixels, centre
            )
        except CancelledError:
            return _answer({"superseded": True})
        region = made.region
        headers = {
            "x-region": f"{region.x} {region.y} {region.width} {region.height}",
            "x-whole": str(int(made.is_whole)),
            "x-could-grow": str(int(made.could_grow)),
            "x-seconds": f"{made.seconds:.4f}",
        }
        return Response(made.png, 200, headers, _PNG)

    @app.get("/{token}/thumbnails")
    def strip(token: str, count: int = 12) -> Response:
        return Response(thumbnails(_clip(visitor(token)), min(max(count, 1), 24)), 200, None, _JPEG)

    @app.post("/{token}/job")
    async def start_job(token: str, request: Request) -> Response:
        session = visitor(token)
        settings = await _settings(request, studio.model)
        studio.limits.check(_clip(session), settings.options)
        await run_in_threadpool(session.start_job, settings)
        return _answer(_state(session, studio))

    @app.delete("/{token}/job")
    def cancel_job(token: str) -> Response:
        session = visitor(token)
        if session.job is not None:
            session.job.cancel()
        return _answer(_state(session, studio))

    @app.get("/{token}/latest")
    def latest(token: str) -> Response:
        job = visitor(token).job
        newest = job.newest if job is not None else None
        if newest is None or newest.lq_frame is None or newest.restored_frame is None:
            return _answer({})
        pair = [within(frame, LATEST_SIDE) for frame in (newest.lq_frame, newest.restored_frame)]
        return Response(jpeg_of(stacked(*pair)), 200, {"x-frame": str(newest.frame)}, _JPEG)

    @app.get("/{token}/still")
    def exact(token: str, frame: int) -> Response:
        return Response(still(_result(visitor(token)), frame), 200, None, _PNG)

    @app.post("/{token}/comparison")
    def comparison(token: str, layout: str) -> Response:
        if layout not in LAYOUTS:
            raise InputError(f"{layout!r} is no layout; choose from {', '.join(LAYOUTS)}")
        file = comparison_clip(_result(visitor(token)), layout)
        return _answer({"file": file.name})

    @app.get("/{token}/files/{name}")
    def file(token: str, name: str, download: bool = False) -> Response:
        session = studio.sessions.find(token)
        result = session.result if session else None
        found = _files(result).get(name) if result else None
        if found is None:
            return Response("There is no such file, or it has expired.", 404)
        return FileResponse(
            found, filename=name, content_disposition_type="attachment" if download else "inline"
        )

    @app.middleware("http")
    async def private(request: Request, call: Callable) -> Response:
        response = await call(request)
        response.headers["cache-control"] = "private, no-store"
        return response

    return app


class _GoneError(Exception):
    """The token is none, or its visitor was given up."""


def _visitors(sessions: Sessions) -> Callable[[str], Session]:
    def visitor(token: str) -> Session:
        session = sessions.find(token)
        if session is None:
            raise _GoneError
        return session

    return visitor


def _answer(content: Any) -> Response:
    return JSONResponse(content)


def _state(session: Session, studio: Studio) -> dict[str, Any]:
    """All that the page shows, so that one loaded anew shows the same."""
    clip, job = session.clip, session.job
    return {
        "clip": described(clip, studio.limits.max_seconds) if clip else None,
        "job": _job_state(job, session) if job else None,
        "result": _result_state(session.result) if session.result else None,
        "model": {
            "name": studio.model.name,
            "loaded": studio.model.is_loaded,
            "prompts": studio.model.reads_prompts(),
        },
        "queue": len(studio.queue),
    }


def _job_state(job: Job, session: Session) -> dict[str, Any]:
    newest = job.newest
    error = None
    if job.error is not None:
        is_ours = not isinstance(job.error, DLoRALError)
        error = OUR_MISTAKE if is_ours else session.without_folder(job.error)
    return {
        "id": job.folder.name,
        "stage": job.stage,
        "before": job.before,
        "frame": newest.frame if newest else 0,
        "frames": newest.num_frames if newest else None,
        "rate": newest.frames_per_second if newest else 0,
        "left": newest.seconds_left if newest else None,
        "error": error,
        "settings": job.settings.as_dict(),
    }


def _result_state(result: Result) -> dict[str, Any]:
    first = result.times[0]
    return {
        "file": result.file.name,
        "bytes": result.file.stat().st_size,
        "settings_file": result.settings_file.name,
        "viewer": result.viewer_file.name,
        "profile": result.profile_file.name,
        "image": result.clip.kind == "image",
        "height": result.size[0],
        "width": result.size[1],
        "start": float(first),
        "times": [round(float(time - first), 6) for time in result.times],
        "end": round(float(result.times[-1] + result.durations[-1] - first), 6),
        "first_frame": round(first * result.clip.fps),
        "notes": list(result.notes),
        "measures": result.measures,
        "sound": result.clip.has_audio,
    }


def _files(result: Result) -> dict[str, Path]:
    """What may be fetched of a result, by name."""
    kept = [result.file, result.settings_file, result.viewer_file, result.profile_file]
    made = [path for path in result.file.parent.glob("*-comparison-*.mp4") if path.is_file()]
    return {path.name: path for path in [*kept, *made]}


async def _receive(request: Request, part: Path, most: int) -> None:
    """The request's body into a file, as long as it is within ``most`` bytes."""
    told = request.headers.get("content-length", "0")
    size = 0
    with part.open("wb") as file:
        async for chunk in _chunks(request):
            size += len(chunk)
            if size > most or (told.isdigit() and int(told) > most):
                raise InputError(
                    f"the file has more than the {most / 1e6:g} MB that this page takes; "
                    "cut it, or restore it on the command line"
                )
            await run_in_threadpool(file.write, chunk)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        if chunk:
            yield chunk


def _move(part: Path, copy: Path) -> None:
    part.replace(copy)


def _copy(source: Path, copy: Path) -> None:
    copy.write_bytes(source.read_bytes())


async def _body(request: Request) -> bytes:
    content = b""
    async for chunk in _chunks(request):
        content += chunk
        if len(content) > MOST_BYTES:
            raise InputError("that is no settings file of ours; it is too large")
    return content


async def _json(request: Request) -> dict[str, Any]:
    try:
        found = json.loads(await _body(request))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError("the call holds no JSON object")
    return found


async def _settings(request: Request, model: Model) -> Settings:
    return settings_from(_dict(await _json(request), "settings"), model.name)


def _dict(asked: dict[str, Any], name: str) -> dict[str, Any]:
    found = asked.get(name)
    if not isinstance(found, dict):
        raise InputError(f"the call names no {name}")
    return found


def _number(asked: dict[str, Any], name: str, default: float = 0) -> float:
    found = asked.get(name, default)
    if not isinstance(found, int | float):
        raise InputError(f"{name} is {found!r}; give a number")
    return found


def _clip(session: Session) -> ClipInfo:
    if session.clip is None:
        raise InputError("There is no clip; drop one on the page first.")
    return session.clip


def _preview(session: Session) -> Preview:
    _clip(session)
    assert session.preview is not None
    return session.preview


def _within(session: Session, frame: float) -> int:
    last = (_clip(session).num_frames or 1) - 1
    return max(0, min(int(frame), last))


def _result(session: Session) -> Result:
    if session.result is None:
        raise InputError("There is no result any more; restore the clip again.")
    return session.result
