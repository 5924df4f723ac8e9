"""What each visitor has: one clip, one job, one result, in a folder that goes when they go."""

import os
import re
import secrets
import shutil
import threading
from concurrent.futures import Future
from pathlib import Path

from dloral.errors import InputError
from dloral.options import UpscaleOptions
from dloral.pipeline import DLoRALPipeline
from dloral.studio.jobs import Job, Result, restore
from dloral.video.probe import ClipInfo, probe
from dloral.weights.loading import load_pipeline

CLOSING_SECONDS = 10
"""How long the end of a session waits for its job, which stops within a frame."""


class Session:
    """One visitor. ``folder`` holds the clip, and each job's files in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clip: ClipInfo | None = None
        self.job: Job | None = None
        self.result: Result | None = None
        self.stop_asked = False
        folder.mkdir(parents=True)

    def open_clip(self, path: Path) -> ClipInfo:
        """Take a copy of a file as this session's clip; InputError in one line if it is none.

        The copy is a hard link where the disk allows: the uploaded file may belong to another
        visitor who sent the same bytes, and may go at any time.
        """
        self.close_clip()
        place = self.folder / secrets.token_hex(8)
        place.mkdir()
        copy = place / path.name
        try:
            try:
                os.link(path, copy)
            except OSError:
                shutil.copyfile(path, copy)
            if copy.is_dir():
                raise InputError(f"{copy.name} is a folder; give one file")
            self.clip = probe(copy)
        except BaseException:
            shutil.rmtree(place)
            raise
        return self.clip

    def close_clip(self) -> None:
        """Forget the clip and what was made of it."""
        self.stop()
        self.forget_result()
        if self.clip is not None:
            shutil.rmtree(self.clip.path.parent)
            self.clip = None

    def start_job(self, options: UpscaleOptions, pipe: DLoRALPipeline) -> Job:
        """Restore the clip in a thread; what an earlier job made goes."""
        assert self.clip is not None, "a job needs a clip"
        self.stop()
        self.forget_result()
        place = self.folder / secrets.token_hex(8)
        place.mkdir()
        self.job = Job(restore(self.clip, place, options, pipe), place)
        self.job.start()
        return self.job

    def end_job(self) -> Result | None:
        """Keep the finished job's result, or remove what an unfinished one left."""
        job, self.job = self.job, None
        if job is None:
            return None
        job.cancel()
        job.wait()
        self.result = job.result
        if job.result is None:
            shutil.rmtree(job.folder, ignore_errors=True)
        return job.result

    def stop(self) -> None:
        """End the running job, if any, within a frame."""
        job = self.job
        if job is not None:
            job.cancel()
            job.wait(CLOSING_SECONDS)

    def forget_result(self) -> None:
        if self.result is not None:
            shutil.rmtree(self.result.file.parent, ignore_errors=True)
            self.result = None

    def close(self) -> None:
        """The visitor is gone: so are their files."""
        self.stop()
        self.clip = self.result = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def without_folder(self, error: BaseException) -> str:
        """The error's one line, with the clip's name instead of where this machine keeps it."""
        own = "|".join(re.escape(str(place)) for place in (self.folder, self.folder.resolve()))
        return re.sub(rf"(?:{own})[/\\](?:[0-9a-f]+[/\\])?", "", str(error))


class Sessions:
    """All visitors, by the name that Gradio gives each open page. Folders have secret names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._open: dict[str, Session] = {}

    def __getitem__(self, page: str | None) -> Session:
        name = page or ""
        with self._lock:
            if name not in self._open:
                self._open[name] = Session(self._folder / secrets.token_urlsafe(18))
            return self._open[name]

    def __len__(self) -> int:
        return len(self._open)

    def close(self, page: str | None) -> None:
        with self._lock:
            session = self._open.pop(page or "", None)
        if session is not None:
            session.close()

    def close_all(self) -> None:
        for page in list(self._open):
            self.close(page)


class Model:
    """The one pipeline of the page, loaded once, in the background from :meth:`start` on."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._pipe: Future[DLoRALPipeline] = Future()
        self._loader = threading.Thread(target=self._load, name="load", daemon=True)

    def start(self) -> None:
        self._loader.start()

    @property
    def is_loaded(self) -> bool:
        return self._pipe.done()

    def pipe(self) -> DLoRALPipeline:
        """Waits until it is loaded; raises what loading raised."""
        return self._pipe.result()

    def _load(self) -> None:
        try:
            self._pipe.set_result(load_pipeline(self.name))
        except Exception as error:  # whoever asks for the pipeline gets it
            self._pipe.set_exception(error)
