"""Which engine a call asks for."""

from collections.abc import Iterator
from contextlib import contextmanager

from dloral.engines.devices import DevicesEngine, named_devices
from dloral.engines.launched import LaunchedEngine, is_launched
from dloral.errors import OptionError, Setting
from dloral.jobs.running import Engine
from dloral.options import AUTO

RAY = "ray"
ENGINES = (AUTO, RAY)


def choose_engine(
    name: str = AUTO, devices: str | None = None, ray_address: str | None = None
) -> Engine | None:
    """None if this process restores by itself. ``name``: ray, or auto: the processes of
    ``accelerate launch`` if it started this one, else ``devices``. OptionError for an unknown
    name, and for options that contradict each other."""
    if name not in ENGINES:
        raise OptionError(
            "{option} is {value!r}",
            remedy="choose from {choices}",
            option=Setting("engine"),
            value=name,
            choices=", ".join(ENGINES),
        )
    if name == RAY:
        from dloral.engines.cluster import RayEngine

        return RayEngine(ray_address)
    if ray_address is not None:
        raise OptionError(
            "{option} is for Ray",
            remedy="give {engine}",
            option=Setting("ray_address"),
            engine=Setting("engine", RAY),
        )
    if is_launched():
        return LaunchedEngine()
    return DevicesEngine(named_devices(devices)) if devices is not None else None


@contextmanager
def engine_of(
    name: str = AUTO, devices: str | None = None, ray_address: str | None = None
) -> Iterator[tuple[Engine | None, bool]]:
    """:func:`choose_engine` for a command line: the engine, and whether this process owns it; it is
    closed in the end. Of launched processes, all but the first work for that one until it leaves
    the block."""
    engine = choose_engine(name, devices, ray_address)
    if isinstance(engine, LaunchedEngine) and not engine.is_first:
        engine.assist()
        yield None, False
        return
    try:
        yield engine, True
    finally:
        if engine is not None:
            engine.close()
