"""Damaged files by the thousand: what becomes of each, in a process of its own with limits.

    python benchmarks/fuzz.py --runs 3000

Each input is a kind of the corpus (``tests/media``) with bytes changed, removed, doubled or taken
from another file, or with numbers changed in its time stamps and index tables. It is restored with
bicubic in a forked process that may take 30 s of the processor, or ten times as much of the clock,
and grow by 2 GB. Right is a result or one line; a traceback, a crash, a hang, growth or a pixel
outside [0, 1] is a fault, and its input is kept in ``--keep``.
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

_HERE = Path(__file__).parents[1]
sys.path[:0] = [str(_HERE), str(_HERE / "tests" / "media")]

from kinds_extras import write_helpers  # noqa: E402
from media_kinds import KINDS, make_all  # noqa: E402

from dloral import DLoRALError, UpscaleOptions  # noqa: E402
from dloral.upscale import upscale_steps  # noqa: E402
from dloral.weights.loading import load_pipeline  # noqa: E402

RESULT, REFUSED, TRACEBACK, NOT_CLEAN, OUTSIDE = 0, 1, 2, 3, 4
NAMES = {
    RESULT: "a result",
    REFUSED: "one line",
    TRACEBACK: "a traceback",
    NOT_CLEAN: "something left behind",
    OUTSIDE: "pixels outside [0, 1]",
}

TIMES = (
    *((b"mvhd", 28), (b"tkhd", 32), (b"mdhd", 24), (b"stts", 24), (b"ctts", 24), (b"elst", 24)),
    *((b"tfdt", 12), (b"mehd", 12), (b"sidx", 32)),  # MP4
    *((b"\x2a\xd7\xb1", 5), (b"\x44\x89", 9), (b"\xe7", 5), (b"\xa3", 5), (b"\x9b", 4)),  # Matroska
    *((b"\0\0\1\xe0", 15), (b"\0\0\1\xc0", 15), (b"\0\0\1\xbd", 15), (b"\0\0\1\xba", 10)),  # MPEG
    *((b"\x09", 8), (b"\x08", 8)),  # FLV: a tag of video, of sound
    *((b"OggS", 14), (b"fcTL", 26), (b"\x21\xf9\x04", 4), (b"ANMF", 20), (b"DKIF", 32)),
)
"""What time stamps stand behind in files, and within how many bytes."""

INDEXES = (
    *((b"stsz", 20), (b"stz2", 20), (b"stsc", 24), (b"stco", 16), (b"co64", 20), (b"stss", 16)),
    *((b"trun", 24), (b"tfra", 24), (b"tfhd", 24), (b"sidx", 40)),
    *((b"idx1", 36), (b"indx", 40), (b"avih", 60), (b"strh", 60)),  # AVI
    *((b"\x1c\x53\xbb\x6b", 24), (b"\x11\x4d\x9b\x74", 24), (b"\xbb", 12), (b"\xb7", 12)),
    *((b"II*\0", 100), (b"MM\0*", 100), (b"acTL", 8), (b"OggS", 27), (b"iloc", 40)),
)
"""The same of tables that say where frames are and how large."""

EXTREMES = (0, 1, 2, 255, 0x7FFF, 0xFFFF, 10**6, 10**9, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, -1)


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """One to eight changes of a few kinds."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        if len(made) < 16:
            break
        at = rng.randrange(len(made))
        length = rng.choice((1, 2, 4, 4, 8, 64, 188, 1000))
        kind = rng.randrange(9)
        if kind > 6 and change_number(made, INDEXES if kind == 7 else TIMES, rng):
            continue
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


def change_number(made: bytearray, places: tuple, rng: random.Random) -> bool:
    """Write an extreme number, or one near the old, where such a table begins; False without."""
    found = [
        (at + len(mark), span)
        for mark, span in places
        if (at := made.find(mark, rng.randrange(len(made)))) >= 0 or (at := made.find(mark)) >= 0
    ]
    if not found:
        return False
    begin, span = rng.choice(found)
    at, length = begin + rng.randrange(span), rng.choice((1, 2, 4, 4, 8))
    order = rng.choice(("big", "little"))
    old = int.from_bytes(made[at : at + length], order)
    new = rng.choice((*EXTREMES, old + rng.randrange(-3, 4), old * 1000, rng.getrandbits(33)))
    made[at : at + length] = (new % (1 << 8 * length)).to_bytes(length, order)
    return True


def restore(source: Path, folder: Path, suffix: str, codec: str, pipe) -> int:
    target = folder / f"out{suffix}"
    try:
        options = UpscaleOptions(model="bicubic", scale=1, codec=codec)
        status = RESULT
        for progress in upscale_steps(source, target, options, pipe):
            for frame in (progress.lq_frame, progress.restored_frame):
                if frame is not None and not (0 <= frame.min() <= frame.max() <= 1):
                    status = OUTSIDE
    except DLoRALError as error:
        status = REFUSED if "\n" not in str(error) else TRACEBACK
    left = [file for file in folder.iterdir() if status == REFUSED or file != target]
    return NOT_CLEAN if left and status != OUTSIDE else status


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
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
            signal.alarm(10 * seconds)  # on a busy machine the clock says little
            os._exit(restore(*arguments))
        except BaseException:  # all that restore has not expected is what this looks for
            os._exit(TRACEBACK)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        is_hang = number in (signal.SIGXCPU, signal.SIGALRM)
        return "a hang" if is_hang else f"a crash ({signal.Signals(number).name})"
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
        if run % 500 == 499:
            print(f"{run + 1} inputs, {time.monotonic() - began:.0f} s: {dict(counts)}", flush=True)
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
