"""Clips to train on and to measure with.

* what there is: ``spec`` (the request), ``sources`` (what places hold), ``manifest`` (what is held
  out);
* one sample: ``samples``, ``motion`` (clips from photographs), ``degradation`` (one clip),
  ``batch_degradation`` (many, on a device);
* micro-batches, each a :class:`~dloral.data.clips.ClipSource`: ``packs`` (made once by
  ``pack_maker``, on disk), ``streams`` (drawn by worker processes), ``pool`` (made on the device);
* ``commands``: ``dloral data``.
"""
