"""The phases of training: each defines what learns, from which clips, with which losses.

``flow`` (the flow net), ``drawing`` (the decoder, from a teacher), ``base`` (VAE and UNet on clips,
before any LoRA), ``decoder`` (removing the decoder's grid), ``algorithm1`` (the LoRAs and CFR),
``detail`` (D-LoRA in the decoder). The loop is :mod:`dloral.training.trainer`'s; order and length
come from :mod:`dloral.training.plan` and :mod:`dloral.training.recipes`.
"""
