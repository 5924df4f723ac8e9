"""``/healthz`` and ``/metrics``, for monitoring the server: counts only, nothing personal."""

import time
from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from dloral.studio.studio import Studio

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def health_routes(studio: Studio) -> list[Route]:
    begun = time.monotonic()

    async def health(_: Request) -> Response:
        """200 while the page is served; ``model``: loading, ready or failed."""
        return JSONResponse({"status": "ok", "model": _model(studio)})

    def metrics(_: Request) -> Response:
        return PlainTextResponse(
            "".join(_lines(studio, time.monotonic() - begun)), media_type=PROMETHEUS
        )

    return [Route("/healthz", health), Route("/metrics", metrics)]


def _model(studio: Studio) -> str:
    if not studio.model.is_loaded:
        return "loading"
    return "failed" if studio.model.has_failed else "ready"


def _lines(studio: Studio, uptime: float) -> Iterator[str]:
    speeds, disk = studio.model.speeds, studio.limits.disk
    for name, kind, text, value in (
        ("uptime_seconds", "gauge", "Seconds since the server started", round(uptime, 1)),
        ("sessions", "gauge", "Visits held by the server", len(studio.sessions)),
        ("jobs_waiting_or_running", "gauge", "Restorations in the queue", len(studio.queue)),
        ("model_ready", "gauge", "1 once the model is loaded", int(_model(studio) == "ready")),
        ("runs_total", "counter", "Finished restorations since the start", speeds.finished),
        ("frames_total", "counter", "Frames restored by them", speeds.frames),
        ("disk_used_bytes", "gauge", "Bytes used by visitors and calls", disk.used if disk else 0),
        ("disk_room_bytes", "gauge", "Bytes still available to them", disk.room if disk else 0),
    ):
        yield f"# HELP dloral_{name} {text}\n# TYPE dloral_{name} {kind}\ndloral_{name} {value}\n"
