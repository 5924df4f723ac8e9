"""What restores spans, if not this process alone: its own devices, the processes that
``accelerate launch`` starts, a Ray cluster."""

from dloral.engines.choice import choose_engine, engine_of

__all__ = ["choose_engine", "engine_of"]
