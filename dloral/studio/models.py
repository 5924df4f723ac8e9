"""The page's models: the one in use, and taking another, fetched where it is not here.

A job keeps the model that it was queued with; what comes after a change gets the new one. Both are
in memory until the last such job has ended.
"""

import logging
import threading
from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

from dloral.errors import CancelledError, DLoRALError, InputError
from dloral.studio.worker import Model
from dloral.weights.fetch import FetchPlan, FetchProgress, fetch_steps, offers, plan_fetch
from dloral.weights.finding import EMBEDDED, FETCHED
from dloral.weights.registry import MODELS, fetched

OUR_MISTAKE = "The model could not be changed; this page's terminal says why."
KEPT_FOR_LATER = "Stopped; what was downloaded is kept for the next try."

NOBODY, THIS_MACHINE, EVERYBODY = "nobody", "this machine", "everybody"
"""Who has the menu: a browser on this machine alone, or every visitor."""

_log = logging.getLogger(__name__)


class Models:
    """``current``: the model that previews and new jobs use; ``change``: the newest, if any.

    ``menu_for``: who may change it for everybody, and fetch (docs/decisions.md).
    """

    def __init__(self, first: Model, menu_for: str = NOBODY) -> None:
        self.current = first
        self.menu_for = menu_for
        self.change: Change | None = None
        self._lock = threading.Lock()
        # One that a job still holds is taken again: two copies would write into the same weights.
        self._alive: WeakValueDictionary[str, Model] = WeakValueDictionary({first.name: first})

    def menu(self) -> list[dict[str, Any]]:
        """What can be taken; ``download`` in bytes, as far as is known without asking; 0 if here.
        Only these can be: a visitor's text is never a folder or an address of this machine."""
        entries = {
            self.current.name: _entry(self.current.name, "in use"),
            **{name: _entry(name, "comes with the software") for name in EMBEDDED},
            **{
                offer.name: _entry(offer.name, offer.text, offer.is_here, offer.download)
                for offer in offers()
            },
        }
        for name in self._alive:
            entries.setdefault(name, _entry(name, "used before"))
        return list(entries.values())

    def plan(self, name: str, without: Sequence[str] = ()) -> FetchPlan:
        """What taking a model would download; asks the Hub. Raises in one line as ``fetch``."""
        if name not in FETCHED:
            raise InputError(f"{name!r} cannot be fetched here; choose {', '.join(FETCHED)}")
        return plan_fetch(name, without)

    def take(self, name: str, without: Sequence[str] = ()) -> "Change":
        """Begin to change to ``name``; InputError if it is not on the menu or another change is
        going on."""
        if name not in {entry["name"] for entry in self.menu()}:
            raise InputError(f"{name[:80]!r} is not on the menu; choose one that is")
        if unknown := set(without) - set(MODELS[name].companions if name in MODELS else ()):
            raise InputError(f"{name} is not fetched with {min(unknown)[:80]!r} in any case")
        with self._lock:
            if self.change is not None and not self.change.has_ended:
                raise InputError(
                    f"the model is being changed to {self.change.name}; wait for that, or stop it"
                )
            self.change = Change(name, without, self)
        self.change.start()
        return self.change

    def _model(self, name: str) -> Model:
        """The loaded model; raises what loading raised, and then forgets it."""
        model = self._alive.get(name)
        if model is None:
            model = self._alive[name] = Model(name, self.current.turns)
            model.start()
        try:
            model.pipe()
        except Exception:
            self._alive.pop(name, None)
            raise
        return model


class Change:
    """Fetching, loading and using another model, in a thread of its own.

    ``stage``: asking, downloading, converting, loading, done, stopped or failed; ``progress`` in
    bytes while it downloads; ``error``: one line. :meth:`cancel` returns at once; the change ends
    when the Hub's client next says something, and the model in use stays.
    """

    def __init__(self, name: str, without: Sequence[str], models: Models) -> None:
        self.name = name
        self.stage = "asking" if name in FETCHED and not fetched(name) else "loading"
        self.progress: FetchProgress | None = None
        self.error: str | None = None
        self._without = without
        self._models = models
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="change of model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def has_ended(self) -> bool:
        return self.stage in ("done", "stopped", "failed")

    @property
    def is_stopping(self) -> bool:
        return self._stopped.is_set() and not self.has_ended

    def cancel(self) -> None:
        self._stopped.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it has ended, after at most ``seconds``."""
        self._thread.join(seconds)
        return self.has_ended

    def _run(self) -> None:
        try:
            self._fetch()
            self.stage = "loading"
            model = self._models._model(self.name)
            self._check()
            self._models.current = model
        except CancelledError:
            self.error, self.stage = KEPT_FOR_LATER, "stopped"
        except DLoRALError as error:
            self.error, self.stage = str(error), "failed"
        except Exception:
            _log.exception("a change of model failed")
            self.error, self.stage = OUR_MISTAKE, "failed"
        else:
            self.stage = "done"

    def _fetch(self) -> None:
        if self.name not in FETCHED or fetched(self.name):
            return
        steps = fetch_steps(self.name, self._without)
        try:
            for step in steps:
                self._check()
                if isinstance(step, FetchProgress):
                    self.progress = step
                    if step.stage != "done":
                        self.stage = step.stage
        finally:
            steps.close()  # type: ignore[attr-defined]  # a generator

    def _check(self) -> None:
        if self._stopped.is_set():
            raise CancelledError(KEPT_FOR_LATER)


def _entry(name: str, text: str, is_here: bool = True, download: int = 0) -> dict[str, Any]:
    companions = MODELS[name].companions if name in MODELS else ()
    return {
        "name": name,
        "text": text,
        "here": is_here,
        "download": download,
        "companions": [
            {"name": companion, "text": MODELS[companion].text}
            for companion in companions
            if not fetched(companion)
        ],
    }
