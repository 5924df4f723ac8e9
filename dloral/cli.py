"""The command line: parsing only; every command hands over to the room that does the work.

Exit status: 0 done, 1 the job failed, 2 the call was wrong, 130 stopped by Ctrl-C. A person's
mistake is answered with one line on stderr, never with a traceback.
"""

import argparse
import re
import signal
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from dloral import __version__
from dloral.data.commands import add_data
from dloral.errors import OptionError, Terminated, exit_status
from dloral.evaluation.benchmark_commands import add_baseline, add_benchmark
from dloral.evaluation.commands import add_compare, add_evaluate
from dloral.evaluation.study_commands import add_study
from dloral.threads import let_threads_sleep
from dloral.training.commands import add_curve, add_data_list, add_embed, add_train


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    let_threads_sleep()
    # A console of another encoding, or a name that is no UTF-8, is no reason for a traceback.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = build_parser().parse_args(arguments)
    # A polite request to stop takes away what is half written, as Ctrl-C does.
    signal.signal(signal.SIGTERM, _terminate)
    command: Callable[[argparse.Namespace], int | None] = options.command
    return exit_status(lambda: command(options))


def _terminate(number: int, frame: object) -> None:
    raise Terminated


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a call in one line; ``--help`` has the rest."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog="dloral",
        description="One-step diffusion video super-resolution: larger, sharper, free of flicker.",
    )
    parser.add_argument("--version", action="version", version=f"dloral {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_upscale(commands)
    _add_fetch(commands)
    _add_convert(commands)
    _add_bench(commands)
    _add_app(commands)
    add_train(commands)
    add_embed(commands)
    add_curve(commands)
    add_data(commands, add_data_list)
    add_evaluate(commands)
    add_compare(commands)
    add_study(commands)
    add_benchmark(commands)
    add_baseline(commands)
    return parser


def _add_upscale(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "upscale",
        help="restore clips, images and folders of frames",
        description="Restore clips and write them larger, with their sound. Several sources, a "
        "folder of clips, a pattern or a list are a batch: OUT is then a folder for the results.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("sources", metavar="IN", nargs="*", help="a video, a GIF, an image, or a folder of frames")
    add(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help=".mp4, .mkv, .mov or .webm; an image for an image; a folder for PNG frames; a folder "
        "for the results of a batch",
    )
    _add_batch_options(parser)
    _add_engine_options(parser)
    _add_model_options(parser)
    _add_size_options(parser)
    add("--consistency", type=float, default=1.0, help="C-LoRA: steadiness in time, 0 to 2")
    add("--detail", type=float, default=1.0, help="D-LoRA: fine detail, 0 to 2")
    add("--strength", type=float, default=1.0, help="restored in the result, 0 (bicubic) to 1")
    add("--window", type=int, default=1, help="earlier frames looked at: 0, 1, 3 or 5")
    add("--prompt", default="", help="what the clip shows, added to what the tagger sees")
    add("--tagger", default="auto", help="dape, ram, none, or auto: dape where it is fetched")
    add("--vae", default="auto", help="tiny, tiny-decoder, or auto: the model's own")
    add("--color-fix", default="auto", help="adain, wavelet, none, or auto: the model's own")
    add(
        "--tile",
        type=_tile,
        default="auto",
        help="latent cells (8 pixels) a tile side; auto, or none",
    )
    add("--tile-overlap", type=int, default=32, help="latent cells that tiles share")
    add("--batch-size", type=int, default=1, help="frames restored at a time")
    add("--start", type=_seconds, default=0.0, help="first second to restore, or HH:MM:SS")
    add("--duration", type=_seconds, help="seconds or HH:MM:SS; all that is left by default")
    add("--size-changes", default="scale", help="scale frames of another size, or refuse them")
    _add_source_options(parser)
    _add_encoder_options(parser)
    add(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default="auto",
        help="keep finished parts beside OUT until it is written, and go on from those there; "
        "auto: for jobs of more than two minutes",
    )
    add("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(command=_upscale)


def _add_size_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_mutually_exclusive_group().add_argument
    add("--scale", type=float, default=4.0, help="enlargement, 1 to 4")
    add("--height", type=int, help="target height in pixels, in the place of --scale")
    add("--width", type=int, help="target width in pixels")
    add("--fit", metavar="WxH", help="as large as fits into this, such as 3840x2160")


def _add_source_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what is done with the source").add_argument
    add(
        "--deinterlace",
        default="auto",
        help="off, frame, field (twice the rate), film (inverse telecine), or auto: frame where "
        "the clip is interlaced",
    )
    add("--hdr", default="keep", help="keep PQ and HLG, or tone-map to sdr")
    add("--fps", type=float, help="of a folder of frames; 24 by default")


def _add_encoder_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("how the result is written").add_argument
    add(
        "--codec",
        default="h264",
        help="h264, h265, av1, vp9, prores or ffv1; h264-nvenc, h265-qsv, h265-videotoolbox and "
        "the like on graphics cards that have it",
    )
    add("--crf", type=int, help="quality of the written video, lower is better")
    add("--bit-depth", type=_bit_depth, default="auto", help="8, 10, or auto: as the source")
    add("--preset", help="the encoder's speed: slow for h264, 4 for av1, p7 for nvenc, ...")
    add("--chroma", default="auto", help="420, 422, 444, or auto: 420 for even sizes")
    add(
        "--encoder-option",
        dest="encoder_options",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="one of FFmpeg's options for the encoder; may be given again",
    )
    add("--audio", default="auto", help="copy, aac (other sound encoded anew), none, or auto")
    add(
        "--keep-names",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="frames in a folder have the names of the source's frames",
    )


def _bit_depth(text: str) -> int | str:
    return text if text == "auto" else int(text)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="compact", help="compact, sd21, a folder, or a Hub id")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16")


def _tile(text: str) -> int | str | None:
    if text in ("auto", "none"):
        return "auto" if text == "auto" else None
    return int(text)


def _add_batch_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("batches").add_argument
    add("--list", metavar="FILE", help="a text file with one more IN a line")
    add("--recursive", action="store_true", help="look for clips in subfolders too")
    add("--name", default="{stem}", help="of each result: {stem}, {name}, {index}, {scale}, ...")
    add("--overwrite", action="store_true", help="restore again what is there already")


def _seconds(text: str) -> float:
    """Seconds, or [HH:]MM:SS with a fraction of a second."""
    found = re.fullmatch(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:\.\d*)?)", text)
    try:
        if found is None:
            return float(text)
        hours, minutes, seconds = int(found[1] or 0), int(found[2]), float(found[3])
        if seconds >= 60 or (minutes >= 60 and found[1]):
            raise ValueError(text)
    except ValueError:
        message = f"{text!r} is not a time; give seconds (90.5) or HH:MM:SS (00:01:30.5)"
        raise argparse.ArgumentTypeError(message) from None
    return hours * 3600 + minutes * 60 + seconds


def _add_engine_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("several devices and machines").add_argument
    add("--devices", help="all, or cuda:0,cuda:1: one process for each of them")
    add("--engine", default="auto", help="ray, or auto: accelerate's processes, --devices, or here")
    add("--ray-address", metavar="HOST:PORT", help="of a Ray cluster; one is started here if not")


def _upscale(options: argparse.Namespace) -> int:
    from dloral.engines import engine_of
    from dloral.jobs.batches import FAILED, is_batch, plan_batch, run_batch
    from dloral.options import UpscaleOptions
    from dloral.terminal import show_batch, show_progress
    from dloral.upscale import shared_runs, upscale_steps

    chosen = vars(options)
    fields = UpscaleOptions.__dataclass_fields__
    chosen["encoder_options"] = tuple(chosen["encoder_options"])
    upscale = UpscaleOptions(**{name: chosen[name] for name in fields})
    with engine_of(options.engine, options.devices, options.ray_address) as (engine, is_first):
        if not is_first:
            return 0
        if not is_batch(options.sources, options.list):
            steps = upscale_steps(options.sources[0], options.output, upscale, engine=engine)
            show_progress(steps, quiet=options.quiet)
            return 0
        items = plan_batch(
            options.sources,
            Path(options.output),
            upscale,
            options.name,
            options.recursive,
            options.list,
        )
        run = shared_runs(upscale, engine)
        batch = run_batch(items, upscale, run, options.overwrite)
        outcomes = show_batch(batch, quiet=options.quiet)
    return int(any(outcome.state == FAILED for outcome in outcomes))


def _add_convert(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "convert",
        help="turn the released model.pkl into a folder of safetensors",
        description="Make a model folder from DLoRAL's released checkpoint and its SD 2.1 base.",
    )
    parser.add_argument("checkpoint", type=Path, help="the released model.pkl")
    parser.add_argument("--base", type=Path, required=True, help="Stable Diffusion 2.1-base folder")
    parser.add_argument("-o", "--output", type=Path, required=True, help="new folder to write")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16; as stored by default")
    parser.add_argument("--push-to-hub", metavar="ID", help="then upload it as owner/name")
    parser.set_defaults(command=_convert)


def _convert(options: argparse.Namespace) -> None:
    from dloral.weights.convert import convert
    from dloral.weights.loading import DTYPES

    if options.dtype is not None and options.dtype not in DTYPES:
        raise OptionError(f"--dtype is {options.dtype!r}; choose from {', '.join(DTYPES)}")
    dtype = DTYPES[options.dtype] if options.dtype else None
    convert(options.checkpoint, options.base, options.output, dtype)
    print(f"wrote {options.output}; use it with --model {options.output}")
    if options.push_to_hub:
        from dloral.weights.card import push

        address = push(options.output, options.push_to_hub)
        print(f"pushed to {address}; use it with --model {options.push_to_hub}")


def _add_fetch(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "fetch",
        help="download a model from the Hugging Face Hub, once",
        description="Download a model, convert it to safetensors and keep it (in HF_HOME).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="sd21, tagger, taesd, or a Hub id owner/name")
    add("--without", action="append", default=[], metavar="PART", help="sd21: tagger")
    add("--dry-run", action="store_true", help="say what would be downloaded, and stop")
    add("--dtype", default="float16", help="kept as float16, bfloat16, or float32: as released")
    add("--keep-downloads", action="store_true", help="keep the released files too")
    parser.set_defaults(command=_fetch)


def _fetch(options: argparse.Namespace) -> None:
    from dloral.weights.fetch import TerminalFetch, fetch, plan_fetch
    from dloral.weights.resolve import find_model

    if "/" in options.name:
        if options.dry_run:
            raise OptionError(
                "--dry-run knows sd21, tagger and taesd; a Hub id is fetched as it is"
            )
        print(f"{options.name} is in {find_model(options.name)}")
        return
    if options.dry_run:
        print("\n".join(plan_fetch(options.name, options.without).lines()))
        return
    shown = TerminalFetch()
    folder = fetch(
        options.name,
        without=options.without,
        dtype=options.dtype,
        keep_downloads=options.keep_downloads,
        on_plan=shown.plan,
        on_progress=shown.progress,
    )
    print(f"{options.name} is in {folder}")


def _add_bench(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "bench",
        help="time a model on this machine",
        description="Time one restored frame, and say on what machine.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_model_options(parser)
    parser.add_argument("--size", default="128x128", help="input width x height")
    parser.add_argument("--scale", type=float, default=4.0, help="enlargement, 1 to 4")
    parser.add_argument("--frames", type=int, default=20, help="frames timed, after 3 to warm up")
    parser.set_defaults(command=_bench)


def _bench(options: argparse.Namespace) -> None:
    from dloral.bench import bench
    from dloral.options import SCALE_RANGE

    size = re.fullmatch("([0-9]{1,5})x([0-9]{1,5})", options.size)
    width, height = map(int, size.groups()) if size else (0, 0)
    if not (width and height):
        raise OptionError(f"--size is {options.size!r}; give width x height, such as 128x128")
    least, most = SCALE_RANGE
    if not least <= options.scale <= most:
        raise OptionError(f"--scale is {options.scale}; give a number from {least:g} to {most:g}")
    if options.frames < 1:
        raise OptionError(f"--frames is {options.frames}; give 1 or more")
    print(
        bench(
            options.model,
            options.device,
            options.dtype,
            height,
            width,
            options.scale,
            options.frames,
        )
    )


def _add_app(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "app",
        help="open the page",
        description="Serve the page; the same as app.py.",
        add_help=False,
        # No argument begins with this one, so that all of them, --help too, are the page's.
        prefix_chars="\0",
    )
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    parser.set_defaults(command=_app)


def _app(options: argparse.Namespace) -> None:
    from dloral.studio import launch

    launch(options.rest, "dloral app")
