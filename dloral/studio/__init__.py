"""The page: layout, handlers, jobs, theme. :func:`launch` opens it and stays until it is ended."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path


def launch(arguments: Sequence[str] | None = None) -> None:
    """Serve the page with the options of ``app.py``; returns when it is ended.

    Uploads and results live in a private folder (inside ``GRADIO_TEMP_DIR``, where that is set)
    that goes with the page.
    """
    with tempfile.TemporaryDirectory(
        prefix="dloral-page-", dir=os.environ.get("GRADIO_TEMP_DIR"), ignore_cleanup_errors=True
    ) as folder:
        # Gradio reads this when it is imported and when components are made.
        os.environ["GRADIO_TEMP_DIR"] = folder
        from dloral.studio.server import serve

        serve(Path(folder), arguments)
