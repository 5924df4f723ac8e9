"""Measures and held-out results."""
