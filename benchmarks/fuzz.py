"""Damaged files by the thousand: what becomes of each, in a process of its own with limits.

    python benchmarks/fuzz.py --runs 3000

Each input is a kind of the corpus (``tests/media``) with bytes changed, removed, doubled or taken
from another file. It is restored with bicubic in a forked process that may take 30 s and grow by
2 GB. Right is a result or one line; a traceback, a crash, a hang or growth is a fault, and its
input is kept in ``--keep``.
"""

import argparse
import collections
import os
import random
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "media"))

from kinds_extras import write_helpers
from media_kinds import KINDS, make_all

from dloral import DLoRALError, UpscaleOptions, upscale_video
from dloral.weights.loading import load_pipeline

RESULT, REFUSED, TRACEBACK, NOT_CLEAN = 0, 1, 2, 3
NAMES = {0: "a result", 1: "one line", 2: "a traceback", 3: "something left behind"}


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """One to eight changes of a few kinds."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        if len(made) < 16:
            break
        at = rng.randrange(len(made))
        length = rng.choice((1, 2, 4, 4, 8, 64, 188, 1000))
        kind = rng.randrange(7)
        if kind == 0:
            made[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            made[at : at + length] = rng.randbytes(min(length, len(made) - at))
        elif kind == 2:
            made[at : at + length] = rng.choice((b"\0", b"\xff", b"\x7f")) * length
        elif kind == 3:
            del made[at : at + length]
        elif kind == 4:
            made[at:at] = made[at : at + length]
        elif kind == 5:
            begin = rng.randrange(len(other))
            made[at : at + length] = other[begin : begin + length]
        else:
            del made[max(at, 16) :]
    return bytes(made)


def restore(source: Path, folder: Path, suffix: str, codec: str, pipe) -> int:
    target = folder / f"out{suffix}"
    try:
        upscale_video(
            source, target, UpscaleOptions(model="bicubic", scale=1, codec=codec), pipe=pipe
        )
        status = RESULT
    except DLoRALError as error:
        status = REFUSED if "\n" not in str(error) else TRACEBACK
    left = [file for file in folder.iterdir() if status == REFUSED or file != target]
    return NOT_CLEAN if left else status


def in_a_process(arguments: tuple, seconds: int, megabytes: int) -> str:
    """What became of ``restore(*arguments)``."""
    child = os.fork()
    if child == 0:
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 2)
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            limit = used + (megabytes << 20)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            signal.alarm(seconds)
            os._exit(restore(*arguments))
        except BaseException:  # all that restore has not expected is what this looks for
            os._exit(TRACEBACK)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "a hang" if number == signal.SIGALRM else f"a crash ({signal.Signals(number).name})"
    return NAMES.get(os.WEXITSTATUS(status), "a crash")


def fuzz(given: argparse.Namespace, folder: Path) -> collections.Counter[str]:
    pipe = load_pipeline("bicubic")
    counts: collections.Counter[str] = collections.Counter()
    write_helpers(folder)
    kinds = [kind for kind in KINDS if kind.usual and not kind.refused and kind.size[0] <= 200]
    make_all(kinds, folder)
    files = [(kind, (folder / kind.name).read_bytes()) for kind in kinds]
    print(f"{len(files)} kinds", flush=True)
    began = time.monotonic()
    for run in range(given.runs):
        if given.minutes and time.monotonic() - began > 60 * given.minutes:
            break
        rng = random.Random(f"{given.seed} {run}")
        (kind, data), (_, other) = rng.choice(files), rng.choice(files)
        place = folder / "run"
        place.mkdir()
        source = folder / f"source{Path(kind.name).suffix}"
        source.write_bytes(mutated(data, other, rng))
        suffix, codec = rng.choice(((".mp4", "h264"), (".mkv", "ffv1"), (".webm", "vp9")))
        arguments = (source, place, suffix, codec, pipe)
        outcome = in_a_process(arguments, given.seconds, given.megabytes)
        counts[outcome] += 1
        if outcome not in (NAMES[RESULT], NAMES[REFUSED]):
            given.keep.mkdir(exist_ok=True)
            kept = given.keep / f"{given.seed}-{run}-{kind.name}"
            kept.write_bytes(source.read_bytes())
            print(f"run {run}: {outcome} from {kind.name} to {suffix}", flush=True)
        for file in (*place.iterdir(), source):
            file.unlink()
        place.rmdir()
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=3000)
    parser.add_argument("--minutes", type=float, help="stop then, whatever is left")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--megabytes", type=int, default=2048)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-faults"))
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        counts = fuzz(given, Path(name))
    seconds = time.monotonic() - began
    print(f"{counts.total()} inputs in {seconds:.0f} s, seed {given.seed}:")
    for outcome, count in counts.most_common():
        print(f"  {outcome}: {count}")


if __name__ == "__main__":
    main()
