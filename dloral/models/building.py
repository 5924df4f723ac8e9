"""One model is built at a time in a process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.RLock()


@contextmanager
def building() -> Iterator[None]:
    """Wait until no other thread builds or loads a model; also a decorator.

    While diffusers, transformers and accelerate load one, they replace ``register_parameter`` and
    the initialisers of torch for all threads: what another thread builds meanwhile would keep
    parameters without values (on the meta device), or with arbitrary ones.
    """
    with _lock:
        yield
