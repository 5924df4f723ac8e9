"""Training: from clips to weights.

* the user's side: ``commands``, ``config``, ``configurations``, ``run``;
* Algorithm 1: ``algorithm1``, ``schedule``, ``losses``, ``csd``, ``adversarial``, ``perceptual``,
  ``start`` (the model it starts from), ``preview`` (held-out figures and sample grids);
* the loop: ``trainer``, ``checkpoints``, ``monitor``;
* clips: ``sources`` (what there is), ``data`` (one sample), ``motion``, ``stream`` (micro-batches),
  ``prepare`` and ``packs`` (samples made once, on disk);
* the compact model's recipe: ``compact``, ``base``, ``flow``, ``curve``.
"""
