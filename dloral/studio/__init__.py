"""The page: layout, handlers, jobs, theme. :func:`launch` opens it and stays until it is ended."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dloral.errors import OptionError
from dloral.packages import needs_extra
from dloral.threads import let_threads_sleep


def launch(arguments: Sequence[str] | None = None, name: str | None = None) -> None:
    """Serve the page with the options of ``app.py``; returns when it is ended.

    Uploads, jobs and results are kept in the folder of ``--data`` (``HF_HOME/dloral/page`` by
    default). Files of API calls, and everything where that default cannot be used, live in a
    private folder (inside ``GRADIO_TEMP_DIR``, where that is set) that goes with the page.
    ``name``: what the help calls the program. Raises :class:`DLoRALError` for what cannot be
    served.
    """
    let_threads_sleep()
    host = os.environ.get("GRADIO_SERVER_NAME", "")
    if ":" in host:  # of IPv6, but Gradio looks for a free port there by IPv4
        del os.environ["GRADIO_SERVER_NAME"]
        os.environ["DLORAL_HOST"] = os.environ.get("DLORAL_HOST") or host
    with _private_folder(os.environ.get("GRADIO_TEMP_DIR") or None) as folder:
        # Gradio reads this when it is imported and when components are made.
        os.environ["GRADIO_TEMP_DIR"] = folder
        with needs_extra("page", "the page"):
            from dloral.studio.server import serve

        serve(Path(folder), arguments, name)


def _private_folder(place: str | None) -> "tempfile.TemporaryDirectory[str]":
    """A new folder in ``place``, which is made, or in the system's; OptionError where none can."""
    try:
        if place is not None:
            Path(place).mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(
            prefix="dloral-page-", dir=place, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise OptionError(
            f"no folder for uploads can be made in {place or 'the temporary folder'}: "
            f"{(error.strerror or str(error)).lower()}; set GRADIO_TEMP_DIR to another"
        ) from error
