"""``dloral upscale``: its arguments, and how a call becomes a job or a batch."""

import argparse
import re
import sys
from typing import TYPE_CHECKING

from dloral.arguments import number, path_text, rate, refused, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from dloral.frame_generator import FrameGenerator
    from dloral.jobs.batches import Item
    from dloral.jobs.progress import Progress
    from dloral.jobs.running import Engine
    from dloral.options import UpscaleOptions

EVERY_STEM = "{stem}"
"""The usual pattern of a batch's results: named as their sources."""


def add_upscale(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "upscale",
        help="restore clips, images and folders of frames",
        description="Restore clips and write them larger, with their sound. Several sources, a "
        "folder of clips, a pattern or a list are a batch: OUT is then a folder for the results.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "sources",
        metavar="IN",
        nargs="*",
        type=path_text,
        help="a video, a GIF, an image, a folder of frames, or - for y4m on standard input",
    )
    add(
        "-i",
        "--input",
        type=path_text,
        metavar="IN",
        action="append",
        default=[],
        help="another IN",
    )
    add(
        "-o",
        "--output",
        type=path_text,
        metavar="OUT",
        required=True,
        help=".mp4, .mkv, .mov or .webm; .gif, .apng, .webp or .tif for all frames in one picture; "
        "an image for an image; a folder for PNG frames; a folder for the results of a batch; - "
        "for uncompressed frames on standard output",
    )
    _add_batch_options(parser)
    _add_engine_options(parser)
    add_model_options(parser)
    _add_size_options(parser)
    _add_dials(parser)
    _add_steps(parser)
    add("--start", type=_seconds, default=0.0, help="first second to restore, or HH:MM:SS")
    add("--duration", type=_seconds, help="seconds or HH:MM:SS; to the end by default")
    add("--size-changes", default="scale", help="scale or refuse frames of another size")
    _add_source_options(parser)
    _add_encoder_options(parser)
    add(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default="auto",
        help="keep finished parts beside OUT until it is written, and resume from them; "
        "auto: for jobs of more than two minutes",
    )
    add("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(command=_upscale)


def _add_dials(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--consistency", type=number, default=1.0, help="C-LoRA and blending: steadiness, 0 to 2")
    add("--detail", type=number, default=1.0, help="D-LoRA and crispness: detail, 0 to 2")
    add("--strength", type=number, default=1.0, help="amount of restoration, 0 (bicubic) to 1")
    add("--window", type=whole, default=1, help="earlier frames used for each frame: 0, 1, 3 or 5")
    add("--prompt", default="", help="what the clip shows, added to what the tagger sees")
    add("--tagger", default="auto", help="dape, ram, none, or auto: dape if fetched")
    add("--vae", default="auto", help="tiny, tiny-decoder, or auto: the model's own")
    add("--color-fix", default="auto", help="adain, wavelet, none, or auto: the model's own")
    add("--bicubic", default="torch", help="kernel of the model's input: torch, or pil (Pillow's)")


def _add_steps(parser: argparse.ArgumentParser) -> None:
    """What is restored at a time."""
    add = parser.add_argument
    add(
        "--tile",
        type=_tile,
        default="auto",
        help="tile side in latent cells (8 pixels), auto, or none",
    )
    add("--tile-overlap", type=whole, default=32, help="overlap of tiles in latent cells")
    add("--batch-size", type=whole, default=1, help="frames restored at a time")


def _add_size_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_mutually_exclusive_group().add_argument
    add("--scale", type=number, default=4.0, help="enlargement, 1 to 4")
    add("--height", type=whole, help="target height in pixels, instead of --scale")
    add("--width", type=whole, help="target width in pixels")
    add("--fit", metavar="WxH", help="largest size that fits, such as 3840x2160")


def _add_source_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("source").add_argument
    add(
        "--deinterlace",
        default="auto",
        help="off, frame, field (twice the rate), film (inverse telecine), or auto: frame if "
        "the clip is interlaced",
    )
    add("--hdr", default="keep", help="keep PQ and HLG, or tone-map to sdr")
    add("--fps", type=rate, help="rate of a folder of frames (24 by default) or of raw video")
    add("--size", metavar="WxH", help="size of raw video on standard input")
    add("--pixel-format", help="for raw video: yuv420p, yuv420p10le, rgb24, ... as in FFmpeg")


def _add_encoder_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("output").add_argument
    add(
        "--codec",
        default="h264",
        help="h264, h265, av1, vp9, prores or ffv1; h264-nvenc, h265-qsv, h265-videotoolbox and "
        "the like on graphics cards that support it",
    )
    add("--crf", type=whole, help="quality of the written video, lower is better")
    add("--bit-depth", type=_bit_depth, default="auto", help="8, 10, or auto: as the source")
    add("--preset", help="the encoder's speed: slow for h264, 4 for av1, p7 for nvenc, ...")
    add("--chroma", default="auto", help="420, 422, 444, or auto: 420 for even sizes")
    add(
        "--encoder-option",
        dest="encoder_options",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="an FFmpeg option for the encoder; may be repeated",
    )
    add("--audio", default="auto", help="copy, aac (other sound re-encoded), none, or auto")
    add(
        "--keep-names",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="name frames in a folder after the source's frames",
    )
    add("--pipe-format", default="y4m", help="for frames on standard output: y4m or rawvideo")


def _bit_depth(text: str) -> int | str:
    if text != "auto" and not text.isdecimal():
        raise refused(text, "is not a bit depth", "give 8, 10 or auto")
    return text if text == "auto" else int(text)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="compact", help="compact, sd21, a folder, or a Hub id")
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, rocm, xpu, mps, directml, or cuda:1"
    )
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16")
    parser.add_argument(
        "--runtime",
        default="torch",
        help="for the compact model on a CPU: torch, openvino, onnx, or auto: the fastest that is "
        "installed, measured once",
    )


def _tile(text: str) -> int | str | None:
    if text in ("auto", "none"):
        return "auto" if text == "auto" else None
    if not text.isdecimal():
        raise refused(text, "is not a tile side", "give latent cells (8 pixels each), auto or none")
    return int(text)


def _add_batch_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("batches").add_argument
    add("--list", type=path_text, metavar="FILE", help="a text file with one IN per line")
    add("--recursive", action="store_true", help="look for clips in subfolders too")
    add("--name", default=EVERY_STEM, help="result names: {stem}, {name}, {index}, {scale}, ...")
    add("--overwrite", action="store_true", help="replace results that exist")


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
        remedy = "give seconds (90.5) or HH:MM:SS (00:01:30.5)"
        raise refused(text, "is not a time", remedy) from None
    return hours * 3600 + minutes * 60 + seconds


def _add_engine_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("several devices and machines").add_argument
    add("--devices", help="all, or cuda:0,cuda:1: one process each")
    add("--engine", default="auto", help="ray, or auto: accelerate's processes, --devices, or here")
    add(
        "--ray-address",
        metavar="HOST:PORT",
        help="of a Ray cluster; by default one is started here",
    )


def _upscale(options: argparse.Namespace) -> int:
    from dloral.engines import engine_of
    from dloral.errors import OptionError, Setting, one_line
    from dloral.jobs.batches import FAILED, is_batch, left_out_of, plan_batch, run_batch
    from dloral.options import UpscaleOptions
    from dloral.terminal import show_batch, show_progress
    from dloral.upscale import upscale_steps

    chosen = vars(options)
    fields = UpscaleOptions.__dataclass_fields__
    chosen["encoder_options"] = tuple(chosen["encoder_options"])
    upscale = UpscaleOptions(**{name: chosen[name] for name in fields})
    with engine_of(options.engine, options.devices, options.ray_address) as (engine, is_first):
        if not is_first:
            return 0
        sources = [*options.input, *options.sources]
        if not is_batch(sources, options.list, options.recursive):
            if options.name != EVERY_STEM:
                raise OptionError(
                    "{option} names the results of a batch, and this is one clip",
                    remedy="leave it out: OUT is the name",
                    option=Setting("name"),
                )
            steps = upscale_steps(sources[0], options.output, upscale, engine=engine)
            show_progress(steps, options.quiet, sys.stderr if options.output == "-" else None)
            return 0
        items = plan_batch(
            sources,
            options.output,
            upscale,
            options.name,
            options.recursive,
            options.list,
        )
        for note in left_out_of(sources, options.recursive):
            print(one_line(f"note: {note}"), file=sys.stderr)
        run = _shared_runs(upscale, engine)
        batch = run_batch(items, upscale, run, options.overwrite)
        outcomes = show_batch(batch, quiet=options.quiet)
    return int(any(outcome.state == FAILED for outcome in outcomes))


def _shared_runs(
    options: "UpscaleOptions", engine: "Engine | None"
) -> "Callable[[Item], Generator[Progress, None, None]]":
    """Starts a batch's jobs one after another, all with one pipeline, loaded for the first."""
    from dloral.jobs.loading import load_steps
    from dloral.upscale import upscale_steps

    pipe: FrameGenerator | None = None

    def run(item: "Item") -> "Generator[Progress, None, None]":
        nonlocal pipe
        if pipe is None and engine is None:
            pipe = yield from load_steps(options)
        yield from upscale_steps(item.source, item.target, options, pipe, engine=engine)

    return run
