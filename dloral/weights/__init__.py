"""Weights: where models are, how they are loaded, and how the public release is converted."""
