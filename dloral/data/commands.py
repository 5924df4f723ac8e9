"""``dloral data``: what there is to train on, packs of clips, and what is held out.

Importing costs nothing.
"""

import argparse
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from dloral.arguments import exact_seconds, number, path_of, path_text, place, whole
from dloral.errors import one_line

Commands = Any


def add_data(commands: Commands, add_list: Callable[[Commands], None]) -> None:
    """``add_list`` adds ``dloral data list``, which knows the configurations of trainings."""
    parser = commands.add_parser(
        "data",
        help="clips to train on and to measure with",
        description="List training material, make packs of clips, hold material out.",
    )
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    add_list(actions)
    _add_pack(actions)
    _add_manifest(actions)


def _add_pack(actions: Commands) -> None:
    parser = actions.add_parser(
        "pack",
        help="write degraded clips to disk, to train on or to measure with",
        description="Draw clips from photographs or videos, degrade them, and write them once. "
        "The same seed gives the same pack with any number of workers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "places",
        nargs="+",
        type=place,
        metavar="KIND:PATH",
        help="such as photos:DIR videos:FILE list:FILE",
    )
    add("-o", "--output", type=path_of, required=True, metavar="PACK", help="new folder to write")
    add("--count", type=whole, required=True, help="total number of clips")
    add("--frames", type=whole, default=1, help="frames per clip; 1 for stills")
    add("--size", type=whole, default=256, help="pixels a side")
    add("--seed", type=whole, default=0, help="seed of all random draws")
    add("--workers", type=whole, default=2, help="processes")
    add("--video-share", type=number, help="share of videos, 0 to 1; half if there are both")
    add("--video-from", type=exact_seconds, default=Fraction(0), metavar="SECOND", help="of videos")
    add(
        "--video-until",
        type=exact_seconds,
        metavar="SECOND",
        help="of videos; to the end by default",
    )
    add("--exclude", nargs="+", default=[], metavar="WORD", help="parts of names to leave out")
    add("--only", nargs="+", default=[], metavar="WORD", help="parts of names to keep")
    _add_held_out(parser)
    parser.set_defaults(command=_pack)


def _add_held_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--held-out",
        choices=("without", "only", "with"),
        default="without",
        help="held-out material: leave it out, use nothing else (to measure with), or ignore "
        "that it is held out",
    )
    parser.add_argument(
        "--manifest", type=path_of, help="what is held out; the project's own list by default"
    )


def _pack(options: argparse.Namespace) -> None:
    from dloral.data.manifest import HeldOut
    from dloral.data.pack_maker import make_pack
    from dloral.data.sources import find_sources
    from dloral.data.spec import ClipSpec

    spec = ClipSpec(
        tuple(options.places),
        tuple(options.exclude),
        tuple(options.only),
        options.video_share,
        video_spacing=5 / 3,
        video_from=float(options.video_from),
        video_until=None if options.video_until is None else float(options.video_until),
        frames=options.frames,
        size=options.size,
        seed=options.seed,
    )
    sources = find_sources(spec)
    if options.held_out != "with":
        held_out = HeldOut.load(options.manifest)
        chosen = held_out.only if options.held_out == "only" else held_out.exclude
        sources = chosen(sources, spec.frames).checked(spec)
    print(
        f"{len(sources.photos)} photographs, {len(sources.windows)} places in videos, "
        f"{len(sources.left_out)} files left out"
    )
    for name, reason in sources.left_out.items():
        print(one_line(f"  {name}: {reason}"))
    make_pack(sources, spec, options.count, options.output, options.workers)
    print(f"made: {options.output}")


def _add_manifest(actions: Commands) -> None:
    parser = actions.add_parser(
        "manifest",
        help="list held-out files by their SHA-256",
        description="Write names, sizes and SHA-256 of photographs and videos that are never "
        "trained on, as `dloral data pack --manifest` and trainings read it.",
    )
    add = parser.add_argument
    add("paths", nargs="*", type=path_of, metavar="PATH", help="files, or folders and all in them")
    add(
        "--film",
        nargs=2,
        type=path_text,
        action="append",
        default=[],
        metavar=("FILE", "FRAME"),
        help="a video held out from FRAME on",
    )
    add("-o", "--output", type=path_of, required=True, metavar="FILE", help="new file to write")
    parser.set_defaults(command=_manifest)


def _manifest(options: argparse.Namespace) -> None:
    from dloral.data.manifest import list_files, save_manifest
    from dloral.errors import OptionError

    if not options.paths and not options.film:
        raise OptionError("nothing to hold out; give files or folders")
    films = {}
    for path, frame in options.film:
        if not frame.isdecimal():
            raise OptionError(f"--film {path} {frame} has no frame number; give a whole number")
        films[Path(path)] = int(frame)
    entries = list_files(options.paths, films)
    save_manifest(entries, options.output)
    print(f"{len(entries)} files in {options.output}")
