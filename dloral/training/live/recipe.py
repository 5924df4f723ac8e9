"""The live recipe's common ground; its phases are in ``base``, ``smoothing`` and
``algorithm1``."""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dloral.data.batch_degradation import DegradationBank
from dloral.data.clips import Clips
from dloral.data.pictures import Pictures
from dloral.data.pool import PairPool
from dloral.models.flow import SPyNet
from dloral.pipeline import DLoRALPipeline
from dloral.training.compact import CompactSizes, build_pipeline, embed
from dloral.training.live.config import LiveConfig
from dloral.training.live.phase import Phase
from dloral.training.monitor import make_run_folder, writing
from dloral.training.trainer import NotFiniteError
from dloral.weights.resolve import EMBEDDED
from dloral.weights.torch_folder import load_torch_pipeline


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
        make_run_folder(out)

    def take(self, folder: Path) -> None:
        """Go on from a pipeline's weights, and from its LoRAs and CFR where it has them."""
        self.pipe = load_torch_pipeline(folder, str(self.device), "float32")

    def log(self, **entry: object) -> None:
        entry = {"seconds": round(time.monotonic() - self.started, 1), **entry}
        line = json.dumps(entry)
        print(line, flush=True)
        with writing(self.out), (self.out / "log.jsonl").open("a") as log:
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
        weights: list[nn.Parameter],
        rate: float,
        losses: Callable[[float], tuple[Tensor, Mapping[str, Tensor]]],
        ema: float = 0.999,
    ) -> None:
        """Train ``weights`` for as many steps as fit; the steps that are timed first count for
        nothing. ``losses`` of the share that is done, 0 to 1: (what is minimised, for the log)."""
        for weight in weights:
            weight.requires_grad_(True)
        start = [weight.detach().clone() for weight in weights]

        def phase_of(steps: int) -> Phase:
            with torch.no_grad():
                for weight, value in zip(weights, start, strict=True):
                    weight.copy_(value)
            return Phase(weights, rate, steps, ema)

        def step_of(phase: Phase) -> Callable[[int], Mapping[str, Tensor]]:
            def step(index: int) -> Mapping[str, Tensor]:
                total, figures = losses(index / max(phase.steps, 1))
                total.backward()
                phase.update()
                return figures

            return step

        begun = time.monotonic()
        each = self.timed(step_of(phase_of(0)), warm=6, count=12)
        left = seconds - (time.monotonic() - begun)
        phase = phase_of(max(24, int(left / each)))
        self.log(phase=name, steps=phase.steps, milliseconds_a_step=round(1000 * each, 2))
        self.steps(step_of(phase), phase.steps, name, begun + seconds)
        phase.load_ema()
        for weight in weights:
            weight.requires_grad_(False)

    def timed(self, step: Callable[[int], Mapping[str, Tensor]], warm: int, count: int) -> float:
        """Seconds a step."""
        self.steps(step, warm)
        self.wait()
        clock = time.monotonic()
        self.steps(step, count)
        self.wait()
        return (time.monotonic() - clock) / count

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
                    raise NotFiniteError(
                        f"{name}, step {index + 1}: a loss is not finite ({figures}); "
                        "use lower rates or another seed"
                    )
                sums, counts = {}, {}
                if time.monotonic() > deadline + 10:
                    self.log(phase=name, stopped_early_at=index + 1)
                    return

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def draw(self, count: int, crop: int) -> Clips:
        assert self.pool is not None
        return self.pool.draw(count, crop, self.rng)

    def save(self, name: str) -> None:
        """The pipeline as it is now, in half precision under ``out/name`` and in float32 under
        ``out/whole/name``; each takes the place of an earlier one when it is whole."""
        with writing(self.out), tempfile.TemporaryDirectory(prefix=".", dir=self.out) as made:
            self.pipe.save_pretrained(Path(made, "whole"))
            embed(Path(made, "whole"), Path(made, "half"))
            for kind, place in (("whole", self.out / "whole" / name), ("half", self.out / name)):
                place.parent.mkdir(exist_ok=True)
                shutil.rmtree(place, ignore_errors=True)
                Path(made, kind).replace(place)
