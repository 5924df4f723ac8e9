"""The page's models: the one in use, and switching to another, fetched if missing.

A job keeps the model it was queued with; anything after a change gets the new one. Both stay in
memory until the last such job has ended.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakValueDictionary

from dloral.errors import CancelledError, DLoRALError, InputError
from dloral.options import AUTO, VAES
from dloral.studio.gpu import is_zero_gpu
from dloral.studio.runtime import Model, shown_name
from dloral.weights.fetch import FetchProgress, fetch_steps, offers
from dloral.weights.fetch_plan import FetchPlan, plan_fetch
from dloral.weights.registry import MODELS, TINY_VAE, fetched
from dloral.weights.resolve import EMBEDDED, FETCHED

OUR_MISTAKE = "The model could not be changed; see the server's terminal."
KEPT_FOR_LATER = "Stopped; what was downloaded is kept for the next try."

COMPACT = "compact"

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
        self._alive: WeakValueDictionary[tuple[str, str], Model] = WeakValueDictionary(
            {first.key: first}
        )

    def menu(self) -> list[dict[str, Any]]:
        """What can be taken; ``download`` in bytes, as far as is known without asking; 0 if here.
        Only these can be: a visitor's text is never a folder or an address of this machine."""
        entries = {
            self.current.name: _entry(self.current.name, "in use"),
            **{name: _entry(name, "included") for name in EMBEDDED},
            **{
                offer.name: _entry(offer.name, offer.text, offer.is_here, offer.download)
                for offer in offers()
            },
        }
        for name, _ in list(self._alive):
            entries.setdefault(name, _entry(name, "used before"))
        return list(entries.values())

    def plan(self, name: str, without: Sequence[str] = (), vae: str = AUTO) -> FetchPlan:
        """What switching to a model would download; asks the Hub. Raises like ``fetch``."""
        if vae != AUTO:
            return plan_fetch(TINY_VAE)
        if name not in FETCHED:
            raise InputError(f"{name!r} cannot be fetched here; choose {', '.join(FETCHED)}")
        return plan_fetch(name, without)

    def take(self, name: str, without: Sequence[str] = (), vae: str = AUTO) -> "Change":
        """Begin to change to ``name``, or to another ``vae`` for the one in use; InputError if it
        is not on the menu or another change is going on."""
        if name not in {entry["name"] for entry in self.menu()}:
            raise InputError(f"{name[:80]!r} is not on the menu; choose one that is")
        if unknown := set(without) - set(MODELS[name].companions if name in MODELS else ()):
            raise InputError(f"{name} is never fetched with {min(unknown)[:80]!r}")
        if vae not in VAES:
            raise InputError(f"vae is {vae[:80]!r}; choose from {', '.join(VAES)}")
        if vae != AUTO and not (name == self.current.name and self.current.takes_tiny_vae):
            raise InputError(f"{shown_name(name)} has no other vae, or is not in use yet")
        with self._lock:
            if self.change is not None and not self.change.has_ended:
                raise InputError(
                    f"the model is being changed to {self.change.name}; wait or stop it"
                )
            self.change = Change(name, without, vae, self)
        self.change.start()
        return self.change

    def again(self, name: str, vae: str) -> Model:
        """The model of a job that an earlier server began: the one in use, or one that is loaded
        from now on."""
        if (name, vae) == self.current.key:
            return self.current
        model = Model(name, self.current.turns, vae, self.current.speeds)
        self._alive[name, vae] = model
        model.start()
        return model

    def without_gpu(self, model: Model) -> Callable[[], Model] | None:
        """The compact model, for a visitor whose quota of ZeroGPU is too short for ``model``; None
        where that is what ``model`` is, or there is no ZeroGPU."""
        if not is_zero_gpu() or model.name == COMPACT:
            return None
        return lambda: self._model(COMPACT, AUTO)

    def _model(self, name: str, vae: str) -> Model:
        """The loaded model; re-raises a loading error and then forgets the model."""
        model = self._alive.get((name, vae))
        if model is None:
            model = self._alive[name, vae] = Model(
                name, self.current.turns, vae, self.current.speeds
            )
            model.start()
        try:
            model.pipe()
        except Exception:
            self._alive.pop((name, vae), None)
            raise
        return model


class Change:
    """Fetching, loading and using another model, in its own thread.

    ``stage``: asking, downloading, converting, loading, done, stopped or failed; ``progress`` in
    bytes while it downloads; ``error``: one line. :meth:`cancel` returns at once; the change ends
    when the Hub's client next says something, and the model in use stays.
    """

    def __init__(self, name: str, without: Sequence[str], vae: str, models: Models) -> None:
        self.name = name
        self.vae = vae
        wanted = [name, *([TINY_VAE] if vae != AUTO else [])]
        self._missing = [one for one in wanted if one in MODELS and not fetched(one)]
        self.stage = "asking" if self._missing else "loading"
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
            for name in self._missing:
                self._fetch(name)
            self.stage = "loading"
            model = self._models._model(self.name, self.vae)
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

    def _fetch(self, name: str) -> None:
        steps = fetch_steps(name, self._without if name == self.name else ())
        try:
            for step in steps:
                self._check()
                if isinstance(step, FetchProgress) and step.stage != "waiting":
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
