"""Clips, images and folders of frames: the only place that knows codecs and containers."""
