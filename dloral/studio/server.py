"""Start and stop the page: options, the web server, and who can reach it."""

import argparse
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
from starlette.middleware import Middleware
from starlette.routing import Mount

import dloral
from dloral.arguments import OneLineParser, number, path_text, whole
from dloral.errors import OptionError
from dloral.studio.api import attach_api
from dloral.studio.checked_calls import CheckedBlocks, CheckedNames
from dloral.studio.data_folder import LIST, SESSIONS, kept_folder
from dloral.studio.disk import Disk
from dloral.studio.health import health_routes
from dloral.studio.hygiene import HUGGING_FACE, SPACES, Hygiene, framed_by
from dloral.studio.jobs import Job
from dloral.studio.limits import Limits, Patience, planned_bytes
from dloral.studio.models import EVERYBODY, NOBODY, THIS_MACHINE, Models
from dloral.studio.origins import Origins, own_addresses
from dloral.studio.page import STYLE_SHEETS, build_component
from dloral.studio.records import open_records
from dloral.studio.routes import build_routes
from dloral.studio.routes.model import LOCAL_HOSTS
from dloral.studio.runtime import JobQueue, Model
from dloral.studio.sessions import Sessions
from dloral.studio.speeds import Speeds
from dloral.studio.studio import Studio
from dloral.studio.sweep import claim, remove_dead, sweep_hourly
from dloral.studio.theme import build_theme
from dloral.video.worker import warm_up
from dloral.weights.registry import models_home
from dloral.weights.resolve import find_model

LOOK_SECONDS = 600
"""How often expired files of API calls are looked for."""

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def build_parser(name: str | None = None) -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog=name,
        description="Serve the page that restores clips.",
        epilog="Each option can also be set by the environment variable in brackets.",
    )

    def add(name: str, help: str, default: Any = None, **more: Any) -> None:
        variable = "DLORAL_" + name.strip("-").upper().replace("-", "_")
        told = os.environ.get(variable) or None
        if more.get("action") == "store_true":
            default = (told or "").lower() in ("1", "true", "yes", "on")
        elif told is not None:
            default = told  # argparse converts it as if typed
        parser.add_argument(name, help=f"{help} [{variable}]", default=default, **more)

    add("--model", "compact, sd21, a folder, or a Hub id; compact by default", "compact")
    add("--host", "address to listen on; GRADIO_SERVER_NAME or this machine only by default")
    add(
        "--port",
        "PORT, GRADIO_SERVER_PORT, or the first free one from 7860 by default",
        type=whole,
    )
    add("--share", "a public link for up to a week, through gradio.live", action="store_true")
    add("--auth", "require this login", metavar="USER:PASSWORD")
    add("--max-upload", "largest upload, 500mb by default", "500mb", metavar="SIZE")
    add("--max-disk", "disk space for all visitors' files; all but 500mb by default")
    add(
        "--max-minutes", "longest part of a clip restored at once; no limit by default", type=number
    )
    add("--max-megapixels", "largest frame of a result; no limit by default", type=number)
    add("--max-hours", "longest run accepted, by the estimate; no limit by default", type=number)
    add("--queue", "how many jobs may wait; no limit by default", type=whole, metavar="N")
    add(
        "--data",
        "folder for visitors' clips, jobs and results, kept across restarts",
        type=path_text,
    )
    add("--keep-hours", "how long a result is kept, 6 by default", 6.0, type=number)
    add("--allow-fetch", "let every visitor change the model and download it", action="store_true")
    add("--allow-host", "another host name of the page; separate several by commas", "")
    add("--allow-framing", "let Hugging Face's pages embed this one", action="store_true")
    add("--mcp", "also offer the API as tools of an MCP server", action="store_true")
    return parser


def serve(folder: Path, arguments: Sequence[str] | None = None, name: str | None = None) -> None:
    """Serve the page until Ctrl-C or a signal ends it. Visitors' files are in the folder of
    ``--data``, or, if none can be used (:func:`kept_folder`), in ``folder``, which is removed
    with the page."""
    options = build_parser(name).parse_args(arguments)
    check(options)
    find_model(options.model)  # report a wrong name now, not to the first visitor
    # So that the folder is removed when a service manager or a container stops us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    warm_up()
    lock = claim(folder)
    remove_dead(folder)
    swept = sweep_hourly(folder, 3600 * options.keep_hours, folder / SESSIONS)
    with kept_folder(options.data) as data:
        studio = build_studio((data or folder) / SESSIONS, options, data is not None)
        blocks = build_page(studio)
        try:
            # before a page left open can ask for its visit
            studio.sessions.recover()
            launch_page(blocks, studio, options)
            studio.model.start()  # once the page is up: that is quick, loading the model is not
            blocks.block_thread()
        finally:
            swept.set()
            studio.sessions.close_all()
            blocks.close(verbose=False)
            lock.release()


def check(options: argparse.Namespace) -> None:
    """One-line OptionError for an option that the page cannot be served with."""
    bytes_of_size(options.max_upload)
    if options.max_disk:
        bytes_of_size(options.max_disk, "--max-disk")
    chosen_port(options)
    if options.auth is not None and not all(options.auth.partition(":")):
        raise OptionError("--auth has no user or no password; give USER:PASSWORD")
    for name in ("max_minutes", "max_megapixels", "max_hours", "keep_hours"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise OptionError(f"--{name.replace('_', '-')} is {value:g}; give a number above 0")
    if options.queue is not None and options.queue < 0:
        raise OptionError(f"--queue is {options.queue}; give 0 or more jobs that may wait")
    if options.mcp:
        try:
            import mcp  # noqa: F401
        except ImportError as error:
            raise OptionError(
                '--mcp needs another package: python -m pip install "gradio[mcp]"'
            ) from error


def chosen_port(options: argparse.Namespace) -> int | None:
    """From ``--port`` or ``PORT``; None: Gradio finds a free one. OptionError if it is invalid."""
    said: dict[str, Any] = {"--port": options.port}
    said |= {name: os.environ.get(name) or None for name in ("PORT", "GRADIO_SERVER_PORT")}
    name, port = next(((k, v) for k, v in said.items() if v is not None), ("", None))
    if port is None:
        return None
    if not re.fullmatch("[0-9]{1,5}", str(port)) or not 0 < int(port) < 65536:
        raise OptionError(f"{name} is {port}; give a port from 1 to 65535")
    # Gradio itself starts its search at GRADIO_SERVER_PORT.
    return None if name == "GRADIO_SERVER_PORT" else int(port)


def bytes_of_size(text: str, option: str = "--max-upload") -> int:
    """``500mb`` -> 500000000; OptionError for anything that is not a size."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?b?)", text.strip().lower())
    unit = found[2] if found else ""
    if not found or (unit not in _UNITS and unit + "b" not in _UNITS):
        raise OptionError(f"{option} is {text!r}; give a size such as 500mb or 2gb")
    return int(float(found[1]) * (_UNITS[unit] if unit in _UNITS else _UNITS[unit + "b"]))


def build_studio(folder: Path, options: argparse.Namespace, is_kept: bool = False) -> Studio:
    """``is_kept``: jobs in ``folder`` outlive the server."""
    models, queue = Models(_first_model(options), menu_for(options)), JobQueue(options.queue)
    patience = Patience(kept=3600 * options.keep_hours)
    records = None
    if is_kept:
        folder.mkdir(parents=True, exist_ok=True)
        records = open_records(folder.parent / LIST, patience.kept, folder)
    return Studio(
        sessions=Sessions(folder, models, queue, patience, records),
        models=models,
        queue=queue,
        limits=Limits(
            bytes_of_size(options.max_upload),
            options.max_minutes,
            None if options.max_megapixels is None else round(1e6 * options.max_megapixels),
            options.max_hours,
            _disk(folder, options, queue),
        ),
        examples=example_clips(),
    )


def _disk(folder: Path, options: argparse.Namespace, queue: JobQueue) -> Disk:
    """For visits and files Gradio keeps from calls; counts what queued jobs will still write."""

    def promised() -> float:
        return sum(
            planned_bytes(job.clip, job.settings.options, job.settings.format)
            for job in queue.jobs()
            if isinstance(job, Job)
        )

    gradios = Path(os.environ.get("GRADIO_TEMP_DIR") or folder)  # set by dloral.studio.launch
    folders = {gradios, folder} if folder.parent != gradios else {gradios}
    most = bytes_of_size(options.max_disk, "--max-disk") if options.max_disk else None
    return Disk(tuple(folders), most, promised)


def _first_model(options: argparse.Namespace) -> Model:
    return Model(options.model, speeds=Speeds(models_home() / "speeds.json"))


def menu_for(options: argparse.Namespace) -> str:
    """Who gets the menu of models: where strangers may visit, nobody unless an option says so."""
    if options.allow_fetch:
        return EVERYBODY
    is_alone = listens_at(options) in LOCAL_HOSTS and not options.share and not options.auth
    return THIS_MACHINE if is_alone else NOBODY


def listens_at(options: argparse.Namespace) -> str:
    """The address to listen on; an IPv6 one may be typed with brackets."""
    host = options.host or os.environ.get("GRADIO_SERVER_NAME") or LOCAL_HOSTS[0]
    return str(host).removeprefix("[").removesuffix("]")


def in_address(host: str) -> str:
    """``host`` as a URL has it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def build_page(studio: Studio) -> gr.Blocks:
    """The page with its endpoints, not yet served."""
    with CheckedBlocks(
        studio.limits,
        title="DLoRAL: video super-resolution",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(LOOK_SECONDS, int(studio.sessions.patience.kept)),
    ) as blocks:
        build_component(studio)
        attach_api(studio)
    return blocks.queue(api_open=False)


EXAMPLES = ("people", "butterfly", "film", "city")
"""Clips that the page offers, the most telling first."""


def example_clips(folder: Path | None = None) -> dict[str, Path]:
    """The clips that the page offers, from ``folder``; by default inside the installed package, or
    beside it in a clone."""
    if folder is None:
        package = Path(dloral.__file__).parent
        inside = package / "examples"
        folder = inside if inside.is_dir() else package.parent / "examples"
    found = {name: folder / f"{name}.mp4" for name in EXAMPLES}
    return {name: path for name, path in found.items() if path.is_file()}


def launch_page(blocks: gr.Blocks, studio: Studio, options: argparse.Namespace) -> None:
    """Start serving and print the address."""
    user, _, password = (options.auth or "").partition(":")
    rules = hygiene(options)
    try:
        _, address, public = blocks.launch(
            server_name=in_address(listens_at(options)),
            server_port=chosen_port(options),
            share=options.share,
            auth=(user, password) if options.auth else None,
            max_file_size=studio.limits.max_upload,
            theme=build_theme(),
            css_paths=STYLE_SHEETS,
            app_kwargs={
                "routes": [Mount("/studio", build_routes(studio)), *health_routes(studio)],
                "middleware": [
                    Middleware(Hygiene, **rules, disk=studio.limits.disk),
                    Middleware(CheckedNames),
                ],
                "lifespan": _hygiene_first,
            },
            mcp_server=options.mcp,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            pwa=False,
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except (OSError, ValueError, httpx.InvalidURL) as error:
        raise OptionError(f"the page cannot be served: {error}; check --host and --port") from error
    print(f"DLoRAL is at {address} (Ctrl-C stops it)", flush=True)
    if unfinished := len(studio.queue):
        clips = "1 clip" if unfinished == 1 else f"{unfinished} clips"
        print(f"{clips} from an earlier run will be restored first", flush=True)
    if public:
        rules["origins"].add(public)
        print(f"and, for anyone with the link, at {public}", flush=True)
    if warning := open_to_all(listens_at(options), bool(public), bool(options.auth)):
        print(warning, file=sys.stderr, flush=True)


def hygiene(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments of :class:`Hygiene`. A page for this machine answers only to its own names and
    those of ``--allow-host``, so that a foreign page cannot reach it through a domain of its own
    (DNS rebinding); elsewhere to any name, unless ``--allow-host`` is given."""
    named = [host.strip() for host in (options.allow_host or "").split(",") if host.strip()]
    is_alone = listens_at(options) in LOCAL_HOSTS and not options.share
    hosts = [*LOCAL_HOSTS, *named] if is_alone or named else None
    framed = framed_by(options.allow_framing)
    guests = framed.split() if framed == SPACES else []
    if options.auth:  # anyone may have a Space, and its page would call with a visitor's login
        guests = [guest for guest in guests if guest == HUGGING_FACE]
    origins = Origins([*named, *own_addresses()], guests)
    return {"hosts": hosts, "may_be_framed_by": framed, "origins": origins}


@asynccontextmanager
async def _hygiene_first(app: Any) -> AsyncIterator[None]:
    """Put :class:`Hygiene` around all other middleware, from the server's start on. Gradio puts
    what it adds around what it is given, and would answer preflights itself."""
    app.user_middleware.sort(key=lambda middleware: middleware.cls is not Hygiene)
    app.middleware_stack = app.build_middleware_stack()
    yield


def open_to_all(host: str, is_shared: bool, has_password: bool) -> str | None:
    """A warning if strangers can use this machine or read its password; None if they cannot."""
    if host in LOCAL_HOSTS and (has_password or not is_shared):  # a shared link is HTTPS
        return None
    if has_password:
        return (
            f"WARNING: the password for {host} is sent over plain HTTP, where others on that "
            "network can read it. Put an HTTPS proxy in front, listen on 127.0.0.1 and give the "
            "proxy's name with --allow-host."
        )
    where = "the internet" if is_shared else f"every network that reaches {host}"
    return (
        f"WARNING: anyone on {where} can use this page and this machine's CPU. "
        "Use --auth USER:PASSWORD to require a login."
    )
