"""What happens when something on the page is touched. Work itself is done by ``dloral.upscale``."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from dloral.errors import CancelledError, DLoRALError, InputError
from dloral.options import AUTO, UpscaleOptions
from dloral.studio import words
from dloral.studio.jobs import Result
from dloral.studio.layout import COMPARE, Page
from dloral.studio.pairs import compared_pair
from dloral.studio.sessions import Model, Session, Sessions
from dloral.video.reader import read_frames

REFRESH_SECONDS = 0.25
"""Between two looks at a running job: four pictures a second are enough to watch."""

OUR_MISTAKE = "That went wrong inside the software; its terminal says where. The page goes on."

_log = logging.getLogger(__name__)

Changes = dict[Any, Any]
"""Component -> its new value or ``gr.update``."""


class Handlers:
    """The page's handlers: they know the components, the visitors and the one model."""

    def __init__(self, page: Page, sessions: Sessions, model: Model) -> None:
        self.page = page
        self.sessions = sessions
        self.model = model

    def attach(self, blocks: gr.Blocks) -> None:
        """Bind every event; to be called inside ``blocks``."""
        page = self.page
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        at_once = quiet | {"queue": False}
        opened = [
            *(page.source, page.facts, page.plan, page.message, page.stage, page.scale),
            *(page.start, page.seconds, page.run, page.results),
        ]
        page.source.upload(self.open_upload, page.source, opened, **quiet)
        page.source.clear(self.forget, None, opened, **quiet)
        for button, path in page.examples:
            button.click(self.example_opener(path), None, opened, **quiet)
        gr.on(
            [part.change for part in page.settings],
            self.show_plan,
            page.settings,
            [page.plan],
            trigger_mode="always_last",
            **quiet,
        )
        outputs = [
            *(page.run, page.cancel, page.message, page.stage, page.results, page.pair),
            *(page.frame, page.tabs, page.bicubic_player, page.restored_player, page.download),
        ]
        asked = [page.run, page.cancel, page.message, page.stage, page.results]
        waiting = page.run.click(self.ask, None, asked, **at_once)
        waiting.then(
            self.restore,
            page.settings,
            outputs,
            concurrency_limit=1,
            concurrency_id="restore",
            **quiet,
        )
        page.cancel.click(self.stop, None, [page.cancel], **at_once)
        page.frame.change(
            self.compare, page.frame, [page.pair], trigger_mode="always_last", **quiet
        )
        blocks.unload(self.leave)

    def open_upload(self, path: str | None, request: gr.Request) -> Changes:
        if path is None:
            return self.forget(request)
        return self._open(Path(path), request)

    def example_opener(self, path: Path) -> Callable[[gr.Request], Changes]:
        def open_example(request: gr.Request) -> Changes:
            changes = self._open(path, request)
            clip = self.sessions[request.session_hash].clip
            return changes | {self.page.source: str(clip.path) if clip else None}

        return open_example

    def _open(self, path: Path, request: gr.Request) -> Changes:
        """Take a file as the clip: its facts, its first frame, and settings that suit it."""
        page, session = self.page, self.sessions[request.session_hash]
        try:
            clip = session.open_clip(path)
            with read_frames(clip) as frames:
                first = next(frames, None)
            if first is None:
                raise InputError(f"{clip.path.name} holds no frames; choose another clip")
            scale, seconds = words.suggested_scale(clip), words.suggested_seconds(clip)
            options = UpscaleOptions(scale=scale, duration=seconds)
            return {
                page.facts: words.facts(clip),
                page.plan: words.plan(clip, options),
                page.message: "",
                page.stage: gr.update(value=words.clip_stage(first.pixels), visible=True),
                page.scale: scale,
                page.start: gr.update(value=0, interactive=clip.kind == "video"),
                page.seconds: gr.update(value=seconds, interactive=clip.kind == "video"),
                page.run: gr.update(interactive=True),
                page.results: gr.update(visible=False),
            }
        except Exception as error:
            text = self._one_line(error, session)
            session.close_clip()
            return self._empty() | {page.message: words.message(text)}

    def forget(self, request: gr.Request) -> Changes:
        self.sessions[request.session_hash].close_clip()
        return self._empty()

    def _empty(self) -> Changes:
        page = self.page
        return {
            page.facts: "",
            page.plan: "",
            page.message: "",
            page.stage: gr.update(value=words.empty_stage(), visible=True),
            page.run: gr.update(interactive=False),
            page.results: gr.update(visible=False),
        }

    def show_plan(self, request: gr.Request, *settings: Any) -> str:
        clip = self.sessions[request.session_hash].clip
        if clip is None:
            return ""
        try:
            return words.plan(clip, chosen_options(self.model.name, *settings))
        except DLoRALError as error:
            return words.message(str(error))

    def ask(self, request: gr.Request) -> Changes:
        """Restore was pressed: the button gives way to Cancel, also while others are first."""
        page = self.page
        self.sessions[request.session_hash].stop_asked = False
        return {
            page.run: gr.update(visible=False),
            page.cancel: gr.update(value="Cancel", visible=True, interactive=True),
            page.message: "",
        } | self._staged(words.waiting_stage("Waiting for its turn …"))

    def stop(self, request: gr.Request) -> Changes:
        session = self.sessions[request.session_hash]
        session.stop_asked = True
        if session.job is not None:
            session.job.cancel()
        return {self.page.cancel: gr.update(value="Stopping …", interactive=False)}

    def restore(self, request: gr.Request, *settings: Any) -> Iterator[Changes]:
        """Run the job and show how it goes; at the end the result, or one line that says why not.

        Ends the job also when the page goes away, which closes this generator.
        """
        page, session = self.page, self.sessions[request.session_hash]
        ready = {page.run: gr.update(visible=True), page.cancel: gr.update(visible=False)}
        try:
            yield from self._watched(session, settings)
            result = session.end_job()
            assert result is not None, "a job that ended well has a result"
            yield ready | self._result(session, result)
        except CancelledError as error:
            yield ready | self._back_to_clip(session, words.message(str(error), "note"))
        except Exception as error:
            text = words.message(self._one_line(error, session))
            yield ready | self._back_to_clip(session, text)
        finally:
            session.end_job()

    def _watched(self, session: Session, settings: tuple[Any, ...]) -> Iterator[Changes]:
        page = self.page
        if session.clip is None:
            raise InputError("There is no clip; drop one on the left first.")
        options = chosen_options(self.model.name, *settings)
        if not self.model.is_loaded:
            yield self._staged(words.waiting_stage("Loading the model …"))
        pipe = self.model.pipe()
        if session.stop_asked:
            raise CancelledError("Stopped; nothing was kept.")
        yield self._staged(words.waiting_stage("Starting …"))
        for progress in session.start_job(options, pipe).watch(REFRESH_SECONDS):
            newest = progress.restored_frame
            picture = None if newest is None else words.picture_of(newest)
            yield {page.stage: words.running_stage(progress, picture)}

    def _staged(self, stage: str) -> Changes:
        page = self.page
        return {
            page.stage: gr.update(value=stage, visible=True),
            page.results: gr.update(visible=False),
        }

    def _back_to_clip(self, session: Session, text: str) -> Changes:
        if session.clip is None:
            return self._staged(words.empty_stage()) | {self.page.message: text}
        try:
            with read_frames(session.clip) as frames:
                first = next(frames)
        except InputError:  # the page was closed meanwhile, and its clip went with it
            return self._staged(words.empty_stage()) | {self.page.message: text}
        return self._staged(words.clip_stage(first.pixels)) | {self.page.message: text}

    def _result(self, session: Session, result: Result) -> Changes:
        page, count = self.page, len(result.times)
        is_video = result.bicubic_player is not None
        notes = words.message("; ".join(result.notes), "note") if result.notes else ""
        return {
            page.message: notes,
            page.stage: gr.update(visible=False),
            # A tab cannot be hidden in the same breath as its parent is shown; a class can be set.
            page.results: gr.update(visible=True, elem_classes=[] if is_video else ["still"]),
            page.pair: compared_pair(result, 0),
            page.frame: gr.update(value=1, maximum=max(count, 2), visible=count > 1),
            page.tabs: gr.update(selected=COMPARE),
            page.bicubic_player: str(result.bicubic_player) if is_video else None,
            page.restored_player: str(result.restored_player) if is_video else None,
            page.download: gr.update(value=str(result.file), label=f"Download {result.file.name}"),
        }

    def compare(self, number: float, request: gr.Request) -> Any:
        """The bicubic and the restored picture of frame ``number``, counted from 1."""
        result = self.sessions[request.session_hash].result
        if result is None:
            return gr.skip()
        index = min(max(int(number), 1), len(result.times)) - 1
        return compared_pair(result, index)

    def leave(self, request: gr.Request) -> None:
        self.sessions.close(request.session_hash)

    def _one_line(self, error: Exception, session: Session) -> str:
        if isinstance(error, DLoRALError):
            return session.without_folder(error)
        _log.exception("a handler failed", exc_info=error)
        return OUR_MISTAKE


def chosen_options(
    model: str,
    consistency: float,
    detail: float,
    scale: float,
    start: float | None,
    seconds: float | None,
    window: int,
    color_fix: str,
    tile: str,
    codec: str,
    crf: int | str,
    bit_depth: int,
) -> UpscaleOptions:
    """The page's controls as options; OptionError in one line for what is out of range."""
    cells = {"auto": AUTO, "none": None}.get(tile, tile)
    size = int(cells) if cells and cells != AUTO else cells
    return UpscaleOptions(
        model=model,
        consistency=consistency,
        detail=detail,
        scale=scale,
        start=start or 0.0,
        duration=seconds or None,
        window=window,
        color_fix=color_fix,
        tile=size,
        tile_overlap=min(32, size // 2) if isinstance(size, int) else 32,
        codec=codec,
        crf=None if crf == AUTO else int(crf),
        bit_depth=bit_depth,
    )
