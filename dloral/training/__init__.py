"""Training: from clips to weights.

* the user's side: ``commands``, ``config``, ``recipes`` (named configurations), ``run``;
* Algorithm 1: ``phases.algorithm1``, ``schedule``, ``start`` (the initial model), ``preview``
  (held-out figures and sample grids);
* losses: ``objective``, ``losses``, ``csd``, ``adversarial``, ``perceptual``, ``hints``;
* the loop: ``loop``, ``trainer``, ``soap``, ``checkpoints``, ``monitor``, ``curve``;
* the compact model: ``chain`` (all phases in turn), ``plan``, ``fresh``, ``phases``.

Clips come from :mod:`dloral.data`.
"""
