"""What each visitor has: one clip, one preview, one job, in a folder that goes when they go.

A visitor is identified by a secret token that their browser keeps per tab, so that reloading the
page finds clip and job again, and nobody finds anybody else's.
"""

import secrets
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from dloral.errors import DLoRALError, InputError
from dloral.jobs.store import hashed
from dloral.options import UpscaleOptions
from dloral.studio.data_folder import is_visit, new_visit
from dloral.studio.jobs import Job
from dloral.studio.limits import Patience
from dloral.studio.models import Models
from dloral.studio.preview import Preview
from dloral.studio.records import Records, Result
from dloral.studio.recovery import EarlierJob, recovered
from dloral.studio.runtime import JobQueue, if_free
from dloral.studio.scenes import SceneSearch
from dloral.studio.settings import Settings
from dloral.studio.shares import caller
from dloral.studio.sources import Sources
from dloral.studio.stored import stored_job
from dloral.studio.uploads import checked_name, link_or_copy
from dloral.video.probe import ClipInfo, probe

CLOSING_SECONDS = 10
"""How long the end of a session waits for its job, which stops within a frame."""

MOST_VISITS, MOST_OF_ADDRESS = 2000, 64  # open at once
LOOK_SECONDS = 2
"""How often visitors that are gone are looked for."""


class Session:
    """One visitor. ``folder`` holds the clip, and each job's files in their own folder."""

    def __init__(
        self,
        folder: Path,
        models: Models,
        queue: JobQueue,
        token: str = "",
        records: Records | None = None,
        sources: Sources | None = None,
    ) -> None:
        self.folder = folder
        self._sources = sources or Sources()
        self._token, self._records = token, records
        self.clip: ClipInfo | None = None
        self.job: Job | None = None
        self.search: SceneSearch | None = None
        self.address = ""
        self.is_receiving = False  # while a file is uploaded
        self.motion = ""  # the newest second that was asked for
        self.ended_at: float | None = None  # when the job that is kept had ended
        self.lock = threading.RLock()
        self._models = models
        self._queue = queue
        self._preview: Preview | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def open_clip(self, name: str, fill: Callable[[Path], None]) -> ClipInfo:
        """``fill`` writes a file, which becomes this session's clip; InputError in one line if it
        is none, and an earlier clip stays. Else that and what was made of it go."""
        with self.lock:
            place = self.folder / secrets.token_hex(8)
            place.mkdir()
            try:
                copy = place / checked_name(name)
                fill(copy)
                clip = probe(copy, isolated=True)
            except BaseException:
                shutil.rmtree(place)
                raise
            self.close_clip()
            self.clip = clip
            return clip

    @property
    def preview(self) -> Preview:
        """Of the clip, with the model in use; InputError without a clip. Waits for the lock, as
        much does here: not to be asked for on the event loop."""
        with self.lock:
            clip, model = self.a_clip(), self._models.current
            if self._preview is None or self._preview.model is not model:
                self._preview = Preview(clip, model, self._sources)
            return self._preview

    def close_clip(self) -> None:
        """Forget the clip and what was made of it."""
        with self.lock:
            self.forget_job()
            self.forget_search()
            clip, self.clip, self._preview = self.clip, None, None
            if clip is not None:
                shutil.rmtree(clip.path.parent, ignore_errors=True)
                self._sources.forget(clip)  # last: who begins to read after it finds no file

    def start_job(self, settings: Settings) -> Job:
        """Queue the clip; then what was made of it goes. InputError without a clip or a place."""
        with self.lock:
            clip = self.a_clip()
            place = self.folder / secrets.token_hex(8)
            place.mkdir()
            model = self._models.current
            options = replace(settings.options, model=model.name, vae=model.vae)
            settings = replace(settings, options=options)
            job = Job(clip, place, settings, model, self._queue, self._models.without_gpu(model))
            try:
                if self._records:
                    job.row = self._records.add(self._token, clip, place, settings)
                job.start()
            except DLoRALError:
                shutil.rmtree(place)
                if job.row:
                    job.row.forget()
                raise
            self.forget_job()
            self.job = job
            return job

    def take_up(self, earlier: EarlierJob) -> None:
        """Take over the job of an earlier server."""
        with self.lock:
            folder = earlier.record.folder
            job = Job(earlier.clip, folder, earlier.settings, earlier.model, self._queue)
            job.row = earlier.row
            job.take_up(earlier.record, earlier.result)
            self.clip, self.job = earlier.clip, job

    def show_stored(self, stored: Path) -> None:
        """A result of the clip that was made before, if there is one by the model in use."""
        with self.lock:
            assert self.clip is not None
            place = self.folder / secrets.token_hex(8)
            job = stored_job(stored, self.clip, place, self._models.current, self._queue)
            if job is not None:
                self.forget_job()
                self.job = job

    def a_clip(self) -> ClipInfo:
        """The visitor's clip; InputError if there is none."""
        if self.clip is None:
            raise InputError("There is no clip; drop one on the page first.")
        return self.clip

    def a_job(self) -> Job:
        """The visitor's job; InputError if there is none."""
        if self.job is None:
            raise InputError("There is no job; press Restore first.")
        return self.job

    def resume_job(self) -> None:
        self._go_on(Job.resume)

    def stop_job(self, keep: bool = True) -> None:
        """End the job, if one is active; ``keep``: with what is done as its result."""
        with self.lock:
            if self.job is not None and not self.job.has_ended:
                self._go_on(Job.stop if keep else Job.cancel)

    def _go_on(self, step: Callable[[Job], None]) -> None:
        """Do ``step``, by which a job at rest goes on: how long it is kept counts anew."""
        with self.lock:
            step(self.a_job())
            self.ended_at = None

    def retry_job(self, settings: Settings | None = None) -> None:
        """The failed or cancelled job once more, with other settings if they are given."""
        with self.lock:
            job = self.a_job()
            if job.stage == "stopped":  # nothing is left of it
                self.start_job(settings or job.settings)
                return
            self._go_on(lambda job: job.retry(settings, self._models.current))

    def suspend(self) -> None:
        """The server ends: active jobs are left to the next one, all else is removed."""
        with self.lock:
            if self._records is None or self.job is None or not self.is_at_work:
                self.close()
                return
            self.forget_search()
            self.job.suspend()
            self.job.wait(CLOSING_SECONDS)

    def forget_job(self) -> None:
        """End the running job, if any, within a frame, and remove what it made."""
        with self.lock:
            job, self.job, self.ended_at = self.job, None, None
            if job is not None:
                job.cancel()
                job.wait(CLOSING_SECONDS)
                shutil.rmtree(job.folder, ignore_errors=True)
                if job.row:
                    job.row.forget()

    def start_search(self, options: UpscaleOptions) -> SceneSearch:
        """Look for the clip's scenes anew. InputError without a clip."""
        with self.lock:
            clip = self.a_clip()
            self.forget_search()
            self.search = SceneSearch(clip, options, self._models.current)
            self.search.start()
            return self.search

    def forget_search(self) -> None:
        with self.lock:
            search, self.search = self.search, None
            if search is not None:
                search.cancel()

    @property
    def result(self) -> Result | None:
        """Of the last job, once that has ended well, as long as its files are there."""
        result = self.job.result if self.job is not None and self.job.stage == "done" else None
        return result if result is not None and result.is_there else None

    def forget_old_result(self, seconds: float, now: float) -> None:
        """Remove a job that ended, or was paused, longer than ``seconds`` ago."""
        with if_free(self.lock) as is_free:
            if not is_free or self.job is None:
                return
            if not (self.job.has_ended or self.job.is_paused):
                return
            self.ended_at = self.ended_at or now
            if now - self.ended_at > seconds:
                self.forget_job()

    def close(self) -> None:  # the visitor is gone: so are their files
        self.close_clip()
        shutil.rmtree(self.folder, ignore_errors=True)

    def is_of(self, token: str) -> None:
        """Whose it is, where that was not known since an earlier server."""
        self._token = token

    @property
    def is_at_work(self) -> bool:
        """Whether a job of it waits, runs, is paused, or has left a result or the reason of its
        failure: then it is kept without a page."""
        with self.lock:
            job = self.job
            if job is None or job.is_stored:
                return False
            return not job.has_ended or job.has_failed or bool(job.result)

    @property
    def is_idle(self) -> bool:
        """Whether nothing keeps it without a page; no while a call is at work with it."""
        with if_free(self.lock) as is_free:
            return is_free and not self.is_at_work

    def fork_into(self, other: "Session") -> None:
        """Give another session the same clip, without copying it where the disk can."""
        with self.lock:
            source = self.a_clip().path
            other.open_clip(source.name, lambda copy: link_or_copy(source, copy))


class Sessions:
    """All visitors by their tokens. Those that are gone are removed by a thread of its own."""

    def __init__(
        self,
        folder: Path,
        models: Models,
        queue: JobQueue,
        patience: Patience | None = None,
        records: Records | None = None,
    ) -> None:
        self._records = records
        self.patience = patience or Patience()
        self.started = secrets.token_hex(4)  # tells a page that its server was started anew
        self._folder = folder
        self._earlier = [path for path in folder.glob("*") if is_visit(path)]
        self._models = models
        self._queue = queue
        self.sources = Sources()  # one bound for the previews of all
        self._lock = threading.Lock()
        self._open: dict[str, tuple[Session, float]] = {}  # with when it is given up
        self._closed = threading.Event()
        threading.Thread(target=self._look, name="sessions", daemon=True).start()

    def open(self, address: str | None = None) -> str:
        """A new visitor's token: 192 random bits. ``address``: None as the call says. Of too many
        visits the oldest without a clip goes; InputError where all have one."""
        address = caller.get() if address is None else address
        self._make_room(address)
        token = secrets.token_urlsafe(24)
        session = self._session(new_visit(self._folder), token)
        with self._lock:
            self._open[hashed(token)] = session, time.monotonic() + self.patience.silent
            session.address = address
        return token

    def _session(self, folder: Path, token: str = "") -> Session:
        return Session(folder, self._models, self._queue, token, self._records, self.sources)

    def _make_room(self, address: str) -> None:
        with self._lock:
            for most, has in ((MOST_VISITS, None), (MOST_OF_ADDRESS, address)):
                theirs = [
                    key for key, (one, _) in self._open.items() if has is None or one.address == has
                ]
                if len(theirs) < most or has == "":  # this machine's own
                    continue
                visits = ((key, self._open[key][0]) for key in theirs)
                empty = [key for key, one in visits if one.clip is None and not one.is_receiving]
                if not empty:
                    raise InputError(
                        f"{len(theirs)} visits are open, which is the limit",
                        remedy="close some pages, or try again later",
                    )
                session, _ = self._open.pop(empty[0])
                threading.Thread(target=session.close, daemon=True).start()

    def find(self, token: str) -> Session | None:
        """The visitor, now marked as present; None for an unknown token."""
        key = hashed(token)
        with self._lock:
            found = self._open.get(key)
            if found is None:
                return None
            found[0].is_of(token)
            self._open[key] = found[0], time.monotonic() + self.patience.silent
            return found[0]

    def arrange(self, tokens: Sequence[str]) -> None:
        """Let the jobs of these visitors, which are one person's, be run in this order."""
        sessions = [session for token in tokens if (session := self.find(token))]
        jobs = [session.job for session in sessions if session.job and not session.job.has_ended]
        self._queue.arrange(jobs)
        if self._records:
            self._records.arrange([job.row for job in jobs if job.row])

    def leaving(self, token: str) -> None:
        """The page closes, or is being reloaded and will be back in a moment."""
        key = hashed(token)
        with self._lock:
            if key in self._open:
                session = self._open[key][0]
                self._open[key] = session, time.monotonic() + self.patience.left

    def close(self, token: str) -> None:
        with self._lock:
            found = self._open.pop(hashed(token), None)
        if found is not None:
            found[0].close()

    def __len__(self) -> int:
        return len(self._open)

    def close_all(self) -> None:
        """Close all sessions and stop looking after them."""
        self._closed.set()
        with self._lock:
            sessions = [session for session, _ in self._open.values()]
            self._open.clear()
        for session in sessions:
            session.suspend()
        if self._records:
            self._records.close()

    def recover(self) -> None:
        """Take up what earlier servers left: their jobs go on in the order they had. Folders of
        visitors without one go."""
        if self._records is None:
            return

        for owner, session in recovered(self._records, self._models, self._earlier, self._session):
            with self._lock:
                self._open[owner] = session, time.monotonic() + self.patience.silent

    def look(self, now: float) -> None:
        """Remove those that are given up at ``now``, and results that are too old."""
        with self._lock:
            silent = [(key, one) for key, (one, until) in self._open.items() if now > until]
        idle = [key for key, session in silent if session.is_idle]  # not asked under our lock
        with self._lock:
            gone = [key for key in idle if key in self._open and now > self._open[key][1]]
            closing = [self._open.pop(key)[0] for key in gone]
            staying = [session for session, _ in self._open.values()]
        for session in closing:
            session.close()
        for session in staying:
            session.forget_old_result(self.patience.kept, now)

    def _look(self) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            self.look(time.monotonic())
