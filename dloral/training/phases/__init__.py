"""The phases of training: each defines what learns, from which clips, by which losses.

``flow`` (the flow net), ``base`` (VAE and UNet on clips, before any LoRA), ``decoder`` (a decoder
without a grid), ``algorithm1`` (the LoRAs and CFR). The loop is
:mod:`dloral.training.trainer`'s; order and length come from :mod:`dloral.training.recipes`.
"""
