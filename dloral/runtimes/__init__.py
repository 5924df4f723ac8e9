"""Generators that do not run in diffusers, each a module with ``open_folder``."""
