"""The compact model's recipe with pairs made while it trains.

``pairs``: photographs and film on the device, degraded in batches, and the pool they are drawn
from. ``config``: settings. ``recipe``: what all phases share, ``phase`` how weights are updated;
``base`` (flow, VAE and UNet), ``smoothing`` (a decoder without grids) and ``algorithm1`` (the
LoRAs and CFR) are the phases. The command is
:mod:`dloral.training.compact_live`.
"""
