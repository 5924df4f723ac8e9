"""Hugging Face's ZeroGPU, where its package ``spaces`` is installed; a no-op elsewhere.

ZeroGPU lends a GPU for the length of a decorated call, which it runs in a process forked from ours.
What such a call is given and gives back is pickled, so a pipeline is named (by model and VAE) and
not handed over. The seconds that are asked for count against the quota of the visitor whose request
is in Gradio's context (``spaces`` 0.51), so jobs keep the context of the call that started them.
"""

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from weakref import WeakValueDictionary

from dloral.errors import ResourceError

if TYPE_CHECKING:
    from dloral.frame_generator import FrameGenerator


class KeptModel(Protocol):
    """The part of :class:`dloral.studio.runtime.Model` that is needed here."""

    @property
    def key(self) -> tuple[str, str]: ...

    def pipe(self) -> "FrameGenerator": ...


_Call = TypeVar("_Call", bound=Callable[..., Any])
Duration = int | Callable[..., int]

_models: WeakValueDictionary[tuple[str, str], KeptModel] = WeakValueDictionary()


class QuotaError(ResourceError):
    """ZeroGPU lends no GPU: the visitor's quota is too short, or none was free."""


def is_zero_gpu() -> bool:
    """Whether this is a Space on ZeroGPU, whose GPU exists only inside lent calls."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def on_gpu(duration: Duration) -> Callable[[_Call], _Call]:
    """A decorator: the call gets ZeroGPU's device for at most ``duration`` seconds, a number or a
    function of the call's arguments, where there is ZeroGPU. Calls of a model that computes on the
    processor ask for nothing. Raises :class:`QuotaError` where no GPU is lent.

    ``spaces.GPU`` itself changes nothing on other machines that happen to have the package.
    """
    try:
        import spaces
    except ImportError:
        return lambda call: call

    def decorate(call: _Call) -> Any:
        lent = spaces.GPU(duration=duration)(call)

        def steps(*given: Any) -> Iterator[Any]:
            if not needs_gpu(given):
                yield from call(*given)
                return
            with _quota_in_words():
                yield from lent(*given)

        def whole(*given: Any) -> Any:
            if not needs_gpu(given):
                return call(*given)
            with _quota_in_words():
                return lent(*given)

        return wraps(call)(steps if inspect.isgeneratorfunction(call) else whole)

    return decorate


def may_be_lent(call: Callable[..., Any]) -> bool:
    """Whether a decorated call may run in another process, which shares no locks with this one."""
    return hasattr(call, "__wrapped__")


def needs_gpu(given: tuple[Any, ...]) -> bool:
    """Whether a call with these arguments, a model's key among them, computes on a GPU."""
    keys = [one for one in given if isinstance(one, tuple) and one in _models]
    return not keys or kept(keys[0]).execution_device.type != "cpu"


@contextmanager
def _quota_in_words() -> Iterator[None]:
    """The ``gr.Error`` that ``spaces`` raises, by its title, as ours."""
    try:
        yield
    except Exception as error:
        if not str(getattr(error, "title", "")).startswith("ZeroGPU"):
            raise
        raise QuotaError(
            "no GPU is lent for this: {value}",
            remedy="choose a shorter part, a smaller size, or the compact model, which needs none",
            value=str(getattr(error, "message", error)).strip().rstrip("."),
        ) from error


def keep(model: KeptModel) -> None:
    """Make a model known to the processes that are forked from now on; its page holds it."""
    _models[model.key] = model


def model_of(key: tuple[str, str]) -> Any:
    """The model that :func:`keep` was given; ``KeyError`` if it is gone."""
    return _models[key]


def kept(key: tuple[str, str]) -> "FrameGenerator":
    """The pipeline of :func:`model_of`."""
    return _models[key].pipe()
