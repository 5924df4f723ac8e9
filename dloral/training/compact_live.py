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

from dloral.errors import InputError, exit_status
from dloral.models.perceptual import LPIPSLike
from dloral.training.live.algorithm1 import LiveAlgorithm1
from dloral.training.live.base import train_base, train_flow
from dloral.training.live.config import changed_config
from dloral.training.live.pairs import Pictures, read_film
from dloral.training.live.recipe import Recipe
from dloral.training.live.smoothing import lose_grids

SHARES = {"flow": 0.06, "base": 0.46, "smoothing": 0.1}
"""Algorithm 1 gets the rest."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--film", type=Path, help="video of five-frame shots")
    parser.add_argument("--features", type=Path, help="LPIPS-like weights (safetensors)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", type=Path, help="go on from these weights: Algorithm 1 alone")
    parser.add_argument("--seconds", type=float, default=500)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    given = parser.parse_args()
    config = changed_config(given.set)
    if given.base and not given.base.is_dir():
        raise InputError(f"{given.base} is no folder; give the base of an earlier run")
    torch.backends.cudnn.benchmark = True
    begun = time.monotonic()
    film = read_film(given.film, 5) if given.film else None
    photos = sorted(given.photos.glob("*.jpg"))
    if not photos:
        raise InputError(f"{given.photos} holds no .jpg photographs; give a folder that does")
    pictures = Pictures(photos, film, config.size, given.device, config.film_share)
    features = LPIPSLike(given.features, blocks=4)
    recipe = Recipe(config, pictures, features, given.out)
    recipe.started = begun
    (given.out / "config.json").write_text(json.dumps(asdict(config), indent=1))
    recipe.log(photographs=len(photos), film_shots=0 if film is None else len(film))
    if given.base:
        recipe.take(given.base)
    else:
        train_flow(recipe, SHARES["flow"] * given.seconds)
        train_base(recipe, SHARES["base"] * given.seconds)
        recipe.save("base")
    if config.stages.startswith("S"):
        only = config.stages == "S"
        lose_grids(recipe, given.seconds if only else SHARES["smoothing"] * given.seconds)
        recipe.save("smooth")
    if config.stages != "S":
        LiveAlgorithm1(recipe).train(given.seconds - (time.monotonic() - begun))
    recipe.log(done=True)


if __name__ == "__main__":
    sys.exit(exit_status(main, "compact_live"))
