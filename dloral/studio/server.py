"""Starting and ending the page: options and the web server."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import gradio as gr

import dloral
from dloral.errors import OptionError
from dloral.studio.handlers import Handlers
from dloral.studio.layout import build_layout
from dloral.studio.sessions import Model, Sessions
from dloral.studio.theme import STYLE_SHEET, build_theme
from dloral.weights.loading import find_model

LOOK_SECONDS = 600
"""How often files that are too old are looked for."""

KEEP_SECONDS = 6 * 3600
"""How long an upload or a result is kept at most; those of a closed page go at once."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Serve the page that restores clips.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--model", default="compact", help="compact, a folder, or a Hub id")
    add("--host", help="address to listen at: GRADIO_SERVER_NAME, or this machine only")
    add("--port", type=int, help="PORT, GRADIO_SERVER_PORT, or the first free one from 7860")
    add("--share", action="store_true", help="a public link for three days, through gradio.live")
    add("--max-upload", default="500mb", metavar="SIZE", help="largest file taken, such as 2gb")
    return parser


def serve(folder: Path, arguments: Sequence[str] | None = None) -> None:
    """Serve the page until it is ended by Ctrl-C or a signal; visitors' files are in ``folder``."""
    options = build_parser().parse_args(arguments)
    find_model(options.model)  # a wrong name is said now, not to the first visitor
    # So that the folder goes when a service manager or a container ends us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sessions, model = Sessions(folder / "sessions"), Model(options.model)
    blocks = build_page(sessions, model)
    try:
        launch_page(blocks, options)
        model.start()  # after the page is there, which is quick to see and slow to fill
        blocks.block_thread()
    finally:
        sessions.close_all()
        blocks.close(verbose=False)


def build_page(sessions: Sessions, model: Model) -> gr.Blocks:
    """The page with its handlers, not yet served."""
    with gr.Blocks(
        title="DLoRAL: video super-resolution",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(LOOK_SECONDS, KEEP_SECONDS),
    ) as blocks:
        page = build_layout(example_clips())
        Handlers(page, sessions, model).attach(blocks)
    return blocks.queue(default_concurrency_limit=4, api_open=False)


def example_clips() -> list[Path]:
    """The clips beside the package, where there are any (an installed package brings none)."""
    return sorted((Path(dloral.__file__).parents[1] / "examples").glob("*.mp4"))


def launch_page(blocks: gr.Blocks, options: argparse.Namespace) -> None:
    """Start serving and print the address."""
    port = options.port or os.environ.get("PORT") or None
    try:
        _, address, public = blocks.launch(
            server_name=options.host,
            server_port=int(port) if port else None,
            share=options.share,
            max_file_size=options.max_upload,
            theme=build_theme(),
            css_paths=STYLE_SHEET,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            pwa=False,
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except (OSError, ValueError) as error:
        raise OptionError(
            f"the page cannot be served: {error}; check --host, --port, --max-upload"
        ) from error
    print(f"DLoRAL is at {address} (Ctrl-C ends it)", flush=True)
    if public:
        print(f"and, for everyone who has the link, at {public}", flush=True)
