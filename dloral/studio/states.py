"""A visitor's clip, job and result as the page's JavaScript reads them."""

import time
from pathlib import Path
from typing import Any

from dloral.options import CODECS
from dloral.studio.estimates import described
from dloral.studio.face import told, worded
from dloral.studio.jobs import Job
from dloral.studio.models import Change
from dloral.studio.records import Result
from dloral.studio.runtime import shown_name
from dloral.studio.sessions import Session
from dloral.studio.settings import scenes_as_dicts
from dloral.studio.studio import Studio


def state_of(session: Session, studio: Studio) -> dict[str, Any]:
    """Everything the page shows, so that a reloaded page shows the same."""
    clip, job = session.clip, session.job
    return {
        "clip": described(clip, studio.limits.max_seconds) if clip else None,
        "job": _job_state(job) if job else None,
        "result": _result_state(session.result) if session.result else None,
        "model": {
            "name": shown_name(studio.model.name),
            "loaded": studio.model.is_loaded,
            "vae": studio.model.vae,
            "prompts": studio.model.reads_prompts(),
        },
        "search": _search_state(session),
        "queue": len(studio.queue),
        "started": studio.sessions.started,
    }


def brief_of(session: Session) -> dict[str, Any]:
    """One visit as a list of many shows it: the clip's name and kind, the
    job, and the result without its curves, times and scenes."""
    clip, job, result = session.clip, session.job, session.result
    told = None
    if result is not None:
        told = _result_state(result)
        for name in ("times", "measures", "scenes"):
            del told[name]
    return {
        "clip": {"name": clip.path.name, "kind": clip.kind} if clip else None,
        "job": _job_state(job) if job else None,
        "result": told,
    }


def change_of(change: Change | None) -> dict[str, Any] | None:
    """A model change, for those who may make it: names and errors contain paths of this machine."""
    if change is None:
        return None
    progress = change.progress
    return {
        "name": change.name,
        "stage": "stopping" if change.is_stopping else change.stage,
        "what": Path(progress.what).name if progress else "",
        "done": progress.done if progress else 0,
        "total": progress.total if progress else 0,
        "error": change.error,
    }


def _search_state(session: Session) -> dict[str, Any] | None:
    search = session.search
    if search is None:
        return None
    error = None
    if search.error is not None:
        error = worded(search.error)
    return {"stage": search.stage, "scenes": scenes_as_dicts(search.scenes), "error": error}


def _job_state(job: Job) -> dict[str, Any]:
    newest = job.newest
    return {
        "id": job.folder.name,
        "stage": job.stage,
        "halt": job.halt,
        "before": job.before,
        "place": job.place,
        "frame": newest.frame if newest else 0,
        "frames": newest.num_frames if newest else None,
        "rate": newest.frames_per_second if newest else 0,
        "left": job.forecast.left(time.monotonic()),
        "error": None if job.error is None else told(job.error),
        "settings": job.settings.as_dict(),
        "scenes": scenes_as_dicts(newest.scenes) if newest else [],
    }


def _result_state(result: Result) -> dict[str, Any]:
    first = result.times[0]
    return {
        "file": result.file.name,
        "bytes": result.file.stat().st_size,
        "settings_file": result.settings_file.name,
        "viewer": result.viewer_file.name,
        "profile": result.profile_file.name,
        "settings": result.settings.as_dict(),
        "clip": result.clip.path.name,
        "image": result.clip.kind == "image",
        "height": result.size[0],
        "width": result.size[1],
        "start": float(first),
        "times": [round(float(time - first), 6) for time in result.times],
        "end": round(float(result.times[-1] + result.durations[-1] - first), 6),
        "first_frame": round(first * result.clip.fps),
        "notes": list(result.notes),
        "part": result.is_part,
        "measures": result.measures,
        "sound": result.clip.has_audio and result.settings.format in CODECS,
        "scenes": scenes_as_dicts(result.settings.scenes),
    }
