"""Hugging Face's ZeroGPU, where its package ``spaces`` is; elsewhere everything runs as it is.

ZeroGPU lends a GPU for the length of a decorated call, which it runs in a process forked from ours.
What such a call is given and gives back is pickled, so a pipeline is named (by
model and VAE) and not handed over.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from dloral.frame_generator import FrameGenerator


JOB_SECONDS = 300
PREVIEW_SECONDS = 20
"""What is asked for; a call that takes longer is ended by ZeroGPU."""

_Call = TypeVar("_Call", bound=Callable[..., Any])

_pipelines: WeakValueDictionary[tuple[str, str], "FrameGenerator"] = WeakValueDictionary()


def on_gpu(seconds: int) -> Callable[[_Call], _Call]:
    """A decorator: the call gets ZeroGPU's device for at most ``seconds``, where there is ZeroGPU.

    ``spaces.GPU`` itself changes nothing on other machines that happen to have the package.
    """
    try:
        import spaces
    except ImportError:
        return lambda call: call
    return spaces.GPU(duration=seconds)


def may_be_lent() -> bool:
    """Whether decorated calls may run in other processes, which share no locks with this one."""
    return find_spec("spaces") is not None


def keep(key: tuple[str, str], pipe: "FrameGenerator") -> None:
    """Make a pipeline known to the processes that are forked from now on; its model holds it."""
    _pipelines[key] = pipe


def kept(key: tuple[str, str]) -> "FrameGenerator":
    """The pipeline that :func:`keep` was given; ``KeyError`` if its model is gone."""
    return _pipelines[key]
