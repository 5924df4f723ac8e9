"""The command line: parsing only; every command hands over to the module that does the work.

Exit status: 0 done, 1 the job failed, 2 the call was wrong, 130 stopped by Ctrl-C. A user's
mistake is answered with one line on stderr, never with a traceback.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper

from dloral import __version__
from dloral.arguments import OneLineParser, number, path_of
from dloral.bench.commands import add_bench
from dloral.data.commands import add_data
from dloral.doctor import add_doctor
from dloral.errors import OptionError, Terminated, exit_status
from dloral.evaluation.benchmark_commands import add_baseline, add_benchmark
from dloral.evaluation.commands import add_compare, add_evaluate
from dloral.evaluation.study_commands import add_study
from dloral.threads import let_threads_sleep
from dloral.training.commands import add_curve, add_data_list, add_embed, add_train
from dloral.upscale_command import add_model_options, add_upscale


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    let_threads_sleep()
    # A console in another encoding, or a name that is not UTF-8, must not cause a traceback.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = build_parser().parse_args(arguments)
    # SIGTERM removes half-written files, as Ctrl-C does.
    signal.signal(signal.SIGTERM, _terminate)
    command: Callable[[argparse.Namespace], int | None] = options.command
    return exit_status(lambda: command(options))


def _terminate(number: int, frame: object) -> None:
    raise Terminated


def build_parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = OneLineParser(
        prog="dloral",
        description="One-step diffusion video super-resolution with dials: steadiness and detail.",
    )
    parser.add_argument("--version", action="version", version=f"dloral {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_upscale(commands)
    _add_fetch(commands)
    _add_convert(commands)
    _add_export(commands)
    add_model_options(add_bench(commands))
    add_doctor(commands)
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


def _add_convert(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "convert",
        help="convert the released model.pkl to a folder of safetensors",
        description="Make a model folder from DLoRAL's released checkpoint and its SD 2.1 base.",
    )
    parser.add_argument("checkpoint", type=path_of, help="the released model.pkl")
    parser.add_argument(
        "--base", type=path_of, required=True, help="Stable Diffusion 2.1-base folder"
    )
    parser.add_argument("-o", "--output", type=path_of, required=True, help="new folder to write")
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


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "export",
        help="write a model's networks as ONNX",
        description="Write the encoder, the UNet and the decoder, with both LoRAs, as ONNX files "
        "for other programs, for any frame size and count. Needs the package onnx.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("-o", "--output", type=path_of, required=True, metavar="FOLDER", help="folder to write")
    add("--model", default="compact", help="compact, a folder, or a Hub id; one without prompts")
    add("--consistency", type=number, default=1.0, help="scale of C-LoRA, 0 to 2")
    add("--detail", type=number, default=1.0, help="scale of D-LoRA, 0 to 2")
    parser.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> None:
    from dloral.runtimes.graphs import write_onnx
    from dloral.weights.loading import load_pipeline

    pipe = load_pipeline(options.model, "cpu", "float32")
    for path in write_onnx(pipe, options.output, options.consistency, options.detail):
        print(f"wrote {path}")


def _add_fetch(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "fetch",
        help="download a model from the Hugging Face Hub, once",
        description="Download a model, convert it to safetensors and keep it (in HF_HOME).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="sd21, tagger, taesd, or a Hub id owner/name")
    add("--without", action="append", default=[], metavar="PART", help="part to leave out: tagger")
    add("--dry-run", action="store_true", help="show what would be downloaded, and stop")
    add("--dtype", default="float16", help="kept as float16, bfloat16, or float32: as released")
    add("--keep-downloads", action="store_true", help="keep the released files too")
    parser.set_defaults(command=_fetch)


def _fetch(options: argparse.Namespace) -> None:
    from dloral.weights.fetch import TerminalFetch, fetch
    from dloral.weights.fetch_plan import plan_fetch
    from dloral.weights.resolve import find_model

    if "/" in options.name:
        if options.dry_run:
            raise OptionError("--dry-run takes sd21, tagger or taesd; a Hub id is fetched as it is")
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


def _add_app(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "app",
        help="serve the page",
        description="Serve the page; the same as app.py.",
        add_help=False,
        # No argument starts with this prefix, so all of them, even --help, go to the page.
        prefix_chars="\0",
    )
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    parser.set_defaults(command=_app)


def _app(options: argparse.Namespace) -> None:
    from dloral.studio import launch

    launch(options.rest, "dloral app")
