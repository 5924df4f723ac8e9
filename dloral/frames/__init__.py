"""Pure functions on frames: resize, pad, tiles, colour fix, crispness, degradation."""
