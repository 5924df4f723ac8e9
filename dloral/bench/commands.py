"""``dloral bench``: its arguments, parsed. Importing costs nothing."""

import argparse
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dloral.arguments import number, path_of, whole
from dloral.errors import OptionError, OutputError, Setting
from dloral.evaluation.benchmark_commands import add_network, networks_of

if TYPE_CHECKING:
    from dloral.bench.peers import Peer
    from dloral.bench.run import Size, Staged, Timed


def add_bench(commands: Any) -> argparse.ArgumentParser:
    """The parser, which still lacks the options of a model."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "bench",
        help="time a model on this machine, stage by stage",
        description="Time restored frames on this machine; then each stage from file to file, its "
        "arithmetic, memory, and how near it is to what the machine can do.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--devices", metavar="NAMES", help="instead of --device, one after another: cpu,cuda:0")
    add("--size", nargs="+", default=["128x128"], help="size of the input, width x height")
    add("--scale", type=number, default=4.0, help="enlargement, 1 to 4")
    add("--frames", type=whole, default=20, help="frames timed, after 3 warm-up frames")
    add(
        "--peers",
        nargs="*",
        metavar="NAME",
        help="also time other upscalers, which enlarge four times: bicubic, span, "
        "realesr-general-x4v3, realesrgan-x4plus; without names, all available",
    )
    add_network(parser)
    add("--json", type=path_of, metavar="FILE", help="also write the figures to FILE")
    parser.set_defaults(command=_bench)
    return parser


def _bench(options: argparse.Namespace) -> None:
    from dloral.bench.report import as_values, lines_of
    from dloral.files import write_json
    from dloral.options import SCALE_RANGE

    sizes = [_size(text) for text in options.size]
    least, most = SCALE_RANGE
    if not least <= options.scale <= most:
        raise OptionError(f"--scale is {options.scale}; give a number from {least:g} to {most:g}")
    if options.frames < 1:
        raise OptionError(f"--frames is {options.frames}; give 1 or more")
    if options.json is not None and not options.json.parent.is_dir():
        raise OutputError("{path} is not a directory", path=options.json.parent)
    told = []
    for one in _told(options, sizes):
        told.append(one)
        print("\n".join(lines_of(one)), flush=True)
    if options.json is not None:
        write_json(options.json, as_values(told))


def _told(options: argparse.Namespace, sizes: list["Size"]) -> Iterator["Timed | Staged | Peer"]:
    from dloral.bench.peers import time_peers
    from dloral.bench.run import bench_steps
    from dloral.devices import choose_device
    from dloral.weights.loading import choose_dtype

    devices = [options.device] if options.devices is None else options.devices.split(",")
    places = {device: choose_device(device) for device in devices}  # raises before any work
    networks = networks_of(options.network)
    for device, place in places.items():
        yield from bench_steps(
            options.model,
            device,
            options.dtype,
            sizes,
            options.scale,
            options.frames,
            options.runtime,
        )
        if options.peers is not None:
            dtype = choose_dtype(options.dtype, place)
            yield from time_peers(options.peers, networks, device, dtype, sizes, options.frames)


def _size(text: str) -> "Size":
    found = re.fullmatch("([0-9]{1,5})x([0-9]{1,5})", text)
    width, height = map(int, found.groups()) if found else (0, 0)
    if not (width and height):
        raise OptionError(
            "{option} is {value!r}",
            remedy="give width x height, such as 128x128",
            option=Setting("size"),
            value=text,
        )
    return height, width
