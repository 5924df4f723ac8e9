"""Find a clip's scenes before a run, so that each scene's prompt can be reviewed and edited."""

import logging
import threading
from contextlib import closing

from dloral.errors import CancelledError, DLoRALError
from dloral.options import UpscaleOptions
from dloral.prompts import Scene, find_scenes
from dloral.studio.face import OUR_MISTAKE
from dloral.studio.runtime import Model
from dloral.video.probe import ClipInfo
from dloral.video.worker import stopped_by

_log = logging.getLogger(__name__)

_one_at_a_time = threading.Lock()
"""Each search loads the tagger; two at once would hold it in memory twice."""


class SceneSearch:
    """:func:`dloral.prompts.find_scenes` in a thread of its own, for one visitor.

    ``scenes``: those found so far, in order. ``stage``: looking, done, stopped or failed;
    ``error``: why it failed. :meth:`cancel` returns at once; the search ends by the next scene.
    """

    def __init__(self, clip: ClipInfo, options: UpscaleOptions, model: Model) -> None:
        self.scenes: tuple[Scene, ...] = ()
        self.stage = "looking"
        self.error: Exception | None = None
        self._clip = clip
        self._options = options
        self._model = model
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scenes", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def cancel(self) -> None:
        self._stopped.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait at most ``seconds``; returns whether it has ended."""
        self._thread.join(seconds)
        return self.stage != "looking"

    def _run(self) -> None:
        try:
            pipe = self._model.pipe()
            with (
                stopped_by(self._stopped.is_set),
                _one_at_a_time,
                closing(find_scenes(self._clip, self._options, pipe)) as found,  # type: ignore[type-var]
            ):
                for scene in found:
                    if self._stopped.is_set():
                        raise CancelledError("Stopped.")
                    self.scenes = (*self.scenes, scene)
        except CancelledError:
            self.stage = "stopped"
        except DLoRALError as error:
            self.error, self.stage = error, "failed"
        except Exception:
            _log.exception("looking for scenes failed")
            self.error, self.stage = RuntimeError(OUR_MISTAKE), "failed"
        else:
            self.stage = "done"
