"""What a bench says: lines for a terminal, values for a program."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from dloral.bench.peers import Peer
from dloral.bench.run import Stage, Staged, Timed
from dloral.evaluation.baselines import SCALE


def lines_of(told: Timed | Staged | Peer) -> Iterator[str]:
    """As they are printed, one after another."""
    if isinstance(told, Timed):
        return _timed(told)
    return _staged(told) if isinstance(told, Staged) else _peer(told)


def _timed(timed: Timed) -> Iterator[str]:
    yield f"{timed.model} on {timed.machine}"
    yield (
        f"{_sides(timed.small)} -> {_sides(timed.large)}, {timed.dtype}, {len(timed.times)} "
        f"frames: median {timed.seconds:.3f} s a frame (min {min(timed.times):.3f}, "
        f"max {max(timed.times):.3f}); loaded in {timed.loading:.1f} s"
    )


def _staged(staged: Staged) -> Iterator[str]:
    ceilings = staged.ceilings
    yield f"  {'stage':10}{'ms a frame':>10}{'GFLOP':>9}{'of the ceiling':>16}"
    for stage in staged.stages:
        gflop = f"{stage.flops / 1e9:.2f}" if stage.flops else ""
        line = f"  {stage.name:10}{1e3 * stage.seconds:>10.1f}{gflop:>9}{_of(stage, staged):>16}"
        yield line.rstrip()
    yield f"  {'rest':10}{1e3 * staged.rest:>10.1f}"
    network, whole = staged.timed.seconds, staged.file_to_file
    yield (
        f"  file to file {1 / whole:.2f} frames/s, {network / whole:.0%} of the network's "
        f"{1 / network:.2f}; one stage after another {1 / staged.overall:.2f}"
    )
    rate = staged.flops / network
    yield (
        f"  {staged.flops / 1e9:.1f} GFLOP a frame, {rate / 1e9:.0f} GFLOP/s, "
        f"{rate / ceilings.multiply:.0%} of a large matrix product's {ceilings.multiply / 1e9:.0f}"
        f"; a large copy moves {ceilings.copy / 1e9:.1f} GB/s"
    )
    if staged.host_peak is not None:
        device = staged.device_peak
        on_device = "" if device is None else f", {device / 1e6:.0f} MB of the device's"
        yield f"  at the most {staged.host_peak / 1e6:.0f} MB of memory{on_device}"


def _of(stage: Stage, staged: Staged) -> str:
    """How near a stage is to its ceiling: the product's, or the copy's where it has no products."""
    if not stage.seconds:
        return ""
    if stage.flops:
        return f"{stage.flops / stage.seconds / staged.ceilings.multiply:.0%}"
    if stage.least_bytes:
        return f"copy {stage.least_bytes / stage.seconds / staged.ceilings.copy:.0%}"
    return ""


def _peer(peer: Peer) -> Iterator[str]:
    if peer.absent:
        yield f"{peer.name}: not run: {peer.absent}"
        return
    large = (SCALE * peer.size[0], SCALE * peer.size[1])
    work = f", {peer.flops / 1e9:.1f} GFLOP" if peer.flops else ""
    yield (
        f"{peer.name}, {_sides(peer.size)} -> {_sides(large)}, {peer.dtype}: median "
        f"{peer.seconds:.3f} s a frame{work}"
    )


def as_values(told: Iterable[Timed | Staged | Peer]) -> dict[str, list[dict[str, Any]]]:
    """For JSON: ``models`` with their stages, and ``peers``. Seconds, bytes, operations a frame;
    sizes are height and width."""
    told = list(told)
    models = []
    for one in told:
        if isinstance(one, Staged):
            values = asdict(one)
            shares = {"network_share": one.timed.seconds / one.file_to_file, "rest": one.rest}
            models.append(values.pop("timed") | {"seconds": one.timed.seconds} | values | shares)
    return {"models": models, "peers": [asdict(one) for one in told if isinstance(one, Peer)]}


def _sides(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
