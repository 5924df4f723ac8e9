"""Other programs that restore with this package: what they share, and VapourSynth's filter."""
