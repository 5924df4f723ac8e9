r"""The compact model's recipe for one GPU: every phase, from photographs to weights, in one run.

    python -m dloral.training.compact_live --photos PHOTOS --film FILM --out RUN --seconds 500

The step counts are what fits into ``--seconds`` on the GPU at hand, split by ``SHARES`` and
measured at the start of each phase; the log holds them. Pairs are made on the GPU all the while
(:mod:`dloral.training.live`). In order:

* ``flow``: the flow net goes on from the embedded one's weights, on exact flow;
* ``base``: VAE and UNet on single frames, and clean frames through the VAE alone;
* ``smoothing``, where ``stages`` begins with S: the decoder loses its grids;
* ``algorithm1``: C-LoRA with CFR, then D-LoRA, in turn (``stages``, C D C D C).

``--base MODEL`` goes on from a model, without the first two.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from dloral.data.pictures import Pictures, film_clips
from dloral.data.sources import Window
from dloral.errors import InputError, exit_status
from dloral.models.perceptual import LPIPSLike
from dloral.training.live.algorithm1 import LiveAlgorithm1
from dloral.training.live.base import train_base, train_flow
from dloral.training.live.config import changed_config
from dloral.training.live.recipe import Recipe
from dloral.training.live.smoothing import lose_grids
from dloral.training.monitor import writing
from dloral.video.probe import probe
from dloral.weights.loading import choose_device
from dloral.weights.resolve import find_model

SHARES = {"flow": 0.06, "base": 0.46, "smoothing": 0.1}
"""Algorithm 1 gets the rest."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--film", type=Path, help="video of five-frame shots")
    parser.add_argument(
        "--features",
        type=Path,
        help="LPIPS-like weights in a file (docs/training.md); without it, "
        "what requirements-metrics.txt installs",
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", help="go on from this model: what stages names, no more")
    parser.add_argument("--seconds", type=float, default=500)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    given = parser.parse_args()
    config = changed_config(given.set)
    device = choose_device(given.device)
    base = find_model(given.base) if given.base else None
    torch.backends.cudnn.benchmark = True
    begun = time.monotonic()
    film = None
    if given.film:
        clip = probe(given.film)
        shots = range((clip.num_frames or 0) // 5)
        film = film_clips([Window(clip, 5 * n / clip.fps) for n in shots], 5)
    photos = sorted(given.photos.glob("*.jpg"))
    if not photos:
        raise InputError(f"{given.photos} holds no .jpg photographs; give a folder that does")
    pictures = Pictures(photos, film, config.size, device, config.film_share)
    features = LPIPSLike(given.features, blocks=4)
    recipe = Recipe(config, pictures, features, given.out)
    recipe.started = begun
    with writing(given.out):
        (given.out / "config.json").write_text(json.dumps(asdict(config), indent=1))
    recipe.log(photographs=len(photos), film_shots=0 if film is None else len(film))
    try:
        train(recipe, base, begun, given.seconds)
    except BaseException:
        recipe.save("unfinished")  # hours, perhaps, and what is good for a --base
        raise
    recipe.log(done=True)


def train(recipe: Recipe, base: Path | None, begun: float, seconds: float) -> None:
    """Every phase that the recipe's settings ask for, in what is left of ``seconds``."""
    stages = recipe.config.stages
    if base:
        recipe.take(base)
    else:
        train_flow(recipe, SHARES["flow"] * seconds)
        train_base(recipe, SHARES["base"] * seconds)
        recipe.save("base")
    if stages.startswith("S"):
        left = seconds - (time.monotonic() - begun)
        lose_grids(recipe, left if stages == "S" else SHARES["smoothing"] * seconds)
        recipe.save("smooth")
    if stages != "S":
        LiveAlgorithm1(recipe).train(seconds - (time.monotonic() - begun))


if __name__ == "__main__":
    sys.exit(exit_status(main, "compact_live"))
