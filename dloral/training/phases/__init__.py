"""The phases of a training: each says what learns, from which clips, by which losses.

``flow`` (the flow net), ``base`` (VAE and UNet on clips, before any LoRA), ``decoder`` (a decoder
without a grid), ``algorithm1`` (the LoRAs and CFR). The loop is
:mod:`dloral.training.trainer`'s, the order and length :mod:`dloral.training.recipes`'.
"""
