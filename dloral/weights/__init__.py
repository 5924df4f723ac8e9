"""Weights: finding, fetching and loading models, and converting the public release."""
