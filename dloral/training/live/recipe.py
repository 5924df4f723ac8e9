"""The live recipe's common ground; its phases are in ``base`` and ``algorithm1``."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dloral.frames.batch_degradation import DegradationBank
from dloral.models.flow import SPyNet
from dloral.pipeline import DLoRALPipeline
from dloral.training.compact import CompactSizes, build_pipeline, embed
from dloral.training.live.config import LiveConfig
from dloral.training.live.pairs import PairPool, Pictures
from dloral.training.packs import ClipBatch
from dloral.weights.finding import EMBEDDED
from dloral.weights.loading import load_pipeline


class Recipe:
    """What every phase shares: the model, the pool of pairs, the log (JSON lines), timed steps."""

    def __init__(
        self,
        config: LiveConfig,
        pictures: Pictures,
        features: nn.Module,
        out: Path,
        sizes: CompactSizes | None = None,
    ) -> None:
        self.config, self.out, self.device = config, out, pictures.device
        torch.manual_seed(config.seed)
        self.rng = np.random.default_rng(config.seed)
        self.pictures = pictures
        self.bank = DegradationBank(config.draws, config.seed, self.device)
        self.features = features.to(self.device)
        pipe = build_pipeline(sizes or CompactSizes(), config.seed)
        pipe.register_modules(flow=SPyNet.from_pretrained(EMBEDDED["compact"] / "flow"))
        self.pipe: DLoRALPipeline = pipe.to(self.device).channels_last()
        self.pool: PairPool | None = None
        self.started = time.monotonic()
        out.mkdir(parents=True, exist_ok=True)

    def take(self, folder: Path) -> None:
        """Go on from a pipeline's weights, and from its LoRAs and CFR where it has them."""
        self.pipe = load_pipeline(folder, self.device.type, "float32")

    def log(self, **entry: object) -> None:
        entry = {"seconds": round(time.monotonic() - self.started, 1), **entry}
        line = json.dumps(entry)
        print(line, flush=True)
        with (self.out / "log.jsonl").open("a") as log:
            log.write(line + "\n")

    def fill(self, num_frames: int) -> None:
        """A pool of clips of ``num_frames`` in place of the one before."""
        config = self.config
        self.pool = None
        held = config.stills_held if num_frames == 1 else config.clips_held
        at_a_time = config.stills_at_a_time if num_frames == 1 else config.clips_at_a_time
        self.pool = PairPool(
            self.pictures, self.bank, num_frames, held, at_a_time, config.light_share
        )
        for _ in range(config.warm_refills):
            self.pool.refill(self.rng)

    def run_phase(
        self,
        name: str,
        seconds: float,
        make_step: Callable[[int], Callable[[int], Mapping[str, Tensor]]],
    ) -> None:
        """Time a few steps of a throw-away plan, then run as many as fit."""
        begun = time.monotonic()
        trial = make_step(0)
        self.steps(trial, 6)
        self.wait()
        clock = time.monotonic()
        self.steps(trial, 12)
        self.wait()
        each = (time.monotonic() - clock) / 12
        left = seconds - (time.monotonic() - begun)
        steps = max(24, int(left / each))
        self.log(phase=name, steps=steps, milliseconds_a_step=round(1000 * each, 2))
        self.steps(make_step(steps), steps, name, begun + seconds)

    def steps(
        self,
        step: Callable[[int], Mapping[str, Tensor]],
        count: int,
        name: str = "",
        deadline: float = float("inf"),
    ) -> None:
        assert self.pool is not None
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        for index in range(count):
            if index % self.config.refill_every == 0:
                self.pool.refill(self.rng)
            for key, value in step(index).items():
                sums[key] = sums.get(key, 0.0) + value.detach()
                counts[key] = counts.get(key, 0) + 1
            if name and ((index + 1) % self.config.log_every == 0 or index + 1 == count):
                figures = {key: round((sums[key] / counts[key]).item(), 5) for key in sums}
                self.log(phase=name, step=index + 1, **figures)
                if not all(np.isfinite(list(figures.values()))):
                    raise FloatingPointError(f"{name} step {index + 1}: {figures}")
                sums, counts = {}, {}
                if time.monotonic() > deadline + 10:
                    self.log(phase=name, stopped_early_at=index + 1)
                    return

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def draw(self, count: int, crop: int) -> ClipBatch:
        assert self.pool is not None
        return self.pool.draw(count, crop, self.rng)

    def save(self, name: str) -> None:
        """The pipeline as it is now, in half precision, under ``out/name``."""
        self.pipe.save_pretrained(self.out / "whole" / name)
        embed(self.out / "whole" / name, self.out / name)
