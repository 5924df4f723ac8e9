"""Whose turn it is with the model."""

import threading

import torch

from dloral.studio.runtime import FairLock, TakingTurns


class Networks:
    """A stand-in for a pipeline: says whether its turn was held, frame by frame."""

    def __init__(self, turns: FairLock) -> None:
        self._turns = turns

    def stream(self, frames, **settings):
        for frame in frames:
            assert self._turns._given > self._turns._serving  # somebody has the turn: this one
            yield frame


def test_the_turn_is_held_while_the_networks_work_and_not_while_frames_come_and_go():
    turns, seen = FairLock(), []

    def others_turn() -> None:
        """Would wait for ever if this job held the turn."""
        other = threading.Thread(target=take_and_give_back, daemon=True)
        other.start()
        other.join(5)
        seen.append(not other.is_alive())

    def take_and_give_back() -> None:
        with turns.take():
            pass

    def read():
        for _ in range(3):
            others_turn()
            yield torch.zeros(3, 8, 8)

    for _ in TakingTurns(Networks(turns), turns).stream(read()):
        others_turn()
    assert seen == [True] * 6
    assert turns._given == turns._serving
