"""The page's server ended the hard way in mid-run, and what the next one makes of it.

    python benchmarks/hard_ends.py --ends 25 --seed 0

Each time one visitor's job runs and another's waits, a third has a clip alone, and a fourth has
sent half of one. Then the server is ended: by SIGKILL or SIGHUP; by a disk that is full, and then
SIGKILL; by SIGKILL and damage to what it had stored (the list of jobs, a segment, a journal). The
next server is started on the same folder. A row is good if both jobs end with the frames and the
sound of an unbroken run, those without a job are gone, and neither a file nor a process is left.

The clips are restored with bicubic. ``benchmarks/kills.py`` does the same to the command line.
"""

import argparse
import contextlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
from endings import small_disk, table_of, used_of
from page_server import DOOR, ROOT, VISIT, Server, start

sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from clips import frames_of, sound_of, write_clip  # noqa: E402

from dloral.jobs.journal import JOURNAL  # noqa: E402

FRAMES = 480
NAMES = {"runs": {"format": "h264"}, "waits": {"format": "png"}}
"""Each time's jobs, and how their results are kept."""

KILL, HANGUP, DISK = "SIGKILL", "SIGHUP", "full disk"
LIST, SEGMENT, JOURNALS = "damaged list", "damaged segment", "damaged journal"
SHARES = {KILL: 8, HANGUP: 5, DISK: 4, LIST: 4, SEGMENT: 2, JOURNALS: 2}

PATIENCE = 600
_FULL = "The disk is full"
ENDED = ("done", "failed", "stopped")


class Visitor:
    """Somebody with a page: a token, and what may be asked with it."""

    def __init__(self, base: str) -> None:
        self._client = httpx.Client(base_url=base, timeout=PATIENCE)
        self.token = str(self._client.post(DOOR, json=VISIT).json())

    def at(self, base: str) -> "Visitor":
        """The same one, at the server that was started anew."""
        self._client = httpx.Client(base_url=base, timeout=PATIENCE)
        return self

    def call(self, method: str, path: str, **more: object) -> dict:
        answer = self._client.request(method, f"/studio/{self.token}/{path}", **more)
        return dict(answer.json())

    @property
    def state(self) -> dict:
        return self.call("GET", "state")

    def drop(self, clip: Path) -> None:
        name = {"name": clip.name}
        state = self.call("POST", "clip", params=name, content=clip.read_bytes())
        assert state.get("clip"), state

    def restore(self, settings: dict) -> None:
        state = self.call("POST", "job", json={"settings": {"scale": 2, **settings}})
        assert state.get("job"), state

    def ended(self) -> dict:
        """Its job, once that has ended."""
        end = time.monotonic() + PATIENCE
        while (state := self.state).get("job") and state["job"]["stage"] not in ENDED:
            assert time.monotonic() < end, state
            time.sleep(0.1)
        return state

    def fetch(self, file: str, folder: Path) -> Path:
        target = folder / file
        answer = self._client.get(f"/studio/{self.token}/files/{file}")
        answer.raise_for_status()
        target.write_bytes(answer.content)
        return target


def half_sent(base: str, token: str) -> socket.socket:
    """An upload that stays where it is, under way."""
    host, port = base.removeprefix("http://").split(":")
    line = socket.create_connection((host, int(port)))
    head = f"POST /studio/{token}/clip?name=half.mp4 HTTP/1.1\r\nhost: {host}:{port}\r\n"
    line.sendall(head.encode() + b"content-length: 400000\r\n\r\n" + bytes(200_000))
    return line


def contents(file: Path) -> tuple:
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            return tuple((name, archive.read(name)) for name in sorted(archive.namelist()))
    return frames_of(file), sound_of(file)


def family_of(server: Server) -> list[psutil.Process]:
    return [server.process, *server.process.children(recursive=True)]


def shape_of(folder: Path) -> Counter[str]:
    """The files below ``folder``, random names as stars."""
    return Counter(
        "/".join("*" if len(part) >= 16 and "." not in part else part for part in place.parts)
        for file in folder.rglob("*")
        if file.is_file()
        for place in [file.relative_to(folder).with_name(_plain(file.name))]
    )


def _plain(name: str) -> str:
    return "*.job" if name.endswith(".job") else name


class Bench:
    """One server after the other on one folder, each with the visitors of one row."""

    def __init__(self, folder: Path, resize: Callable[[int], None] | None) -> None:
        self.folder, self._resize = folder, resize
        self.data, self.place = folder / "disk" / "data", folder / "page"
        self.place.mkdir(exist_ok=True)
        self.clip = write_clip(folder / "in.mp4", FRAMES, 48, 32)
        self.server = self.start()
        self.whole: dict[str, tuple] = {}
        self.seconds: dict[str, float] = {}
        visitors = self._visitors()
        for name, visitor in visitors.items():
            began = time.monotonic()
            self.whole[name] = self._result(visitor)
            self.seconds[name] = time.monotonic() - began
        self._shape = shape_of(self.data / "sessions")
        self._leave(visitors.values())

    def start(self) -> Server:
        temporary = {"TMPDIR": str(self.folder / "tmp"), "DLORAL_DATA": str(self.data)}
        (self.folder / "tmp").mkdir(exist_ok=True)
        return start(self.place, environment=temporary)

    def _visitors(self) -> dict[str, Visitor]:
        """Those with a job: the first one's runs, the second's waits."""
        found = {}
        for name, settings in NAMES.items():
            found[name] = visitor = Visitor(self.server.base)
            visitor.drop(self.clip)
            visitor.restore(settings)
        return found

    def _result(self, visitor: Visitor) -> tuple:
        state = visitor.ended()
        if not state.get("result"):
            return (str(state.get("error") or state.get("job") or state),)
        file = visitor.fetch(state["result"]["file"], self.folder)
        found = contents(file)
        file.unlink()
        return found

    def _leave(self, visitors) -> None:
        for visitor in visitors:
            visitor.call("DELETE", "clip")
            visitor.call("POST", "leave")

    def end(self, kind: str) -> dict[str, str]:
        """End the server in mid-run, start the next, and say for each job how that went."""
        visitors = self._visitors()
        idle = Visitor(self.server.base)
        idle.drop(self.clip)
        uploading = Visitor(self.server.base)
        line = half_sent(self.server.base, uploading.token)
        how = self._at(visitors["runs"], random.randrange(FRAMES // 8, FRAMES * 3 // 4))
        family = family_of(self.server)
        faults = self._end_server(kind, visitors)
        line.close()
        self.server = self.start()
        _, alive = psutil.wait_procs(family, 10)
        faults += [f"RUNNING {one.name()}" for one in alive]
        for visitor in visitors.values():
            visitor.at(self.server.base)
            if (visitor.state.get("job") or {}).get("stage") == "failed":
                visitor.call("POST", "job/retry", json={})
        outcomes = {}
        for name, visitor in visitors.items():
            is_equal = self._result(visitor) == self.whole[name]
            outcomes[name] = how + ("" if is_equal else ", OTHER FRAMES OR SOUND")
        for visitor in (idle, uploading):
            if not visitor.at(self.server.base).state.get("gone"):
                faults.append("A VISIT WITHOUT A JOB IS STILL THERE")
        faults += self._left()
        self._leave(visitors.values())
        return {
            name: ", ".join([said, *faults]) if faults or "OTHER" in said else f"{said}, equal"
            for name, said in outcomes.items()
        }

    def _at(self, visitor: Visitor, frame: int) -> str:
        while (job := visitor.state["job"])["frame"] < frame and job["stage"] not in ENDED:
            time.sleep(0.02)
        return f"frame {job['frame']}" if job["stage"] not in ENDED else "NOT HIT"

    def _end_server(self, kind: str, visitors: dict[str, Visitor]) -> list[str]:
        faults = []
        if kind == DISK:
            assert self._resize is not None
            self._resize(used_of(self.folder / "disk") + random.randrange(1 << 12, 1 << 16))
            error = visitors["runs"].ended()["job"]["error"]
            if not (error or "").startswith(_FULL):
                faults.append(f"SAID {error!r}")
        self.server.end(signal.SIGHUP if kind == HANGUP else signal.SIGKILL)
        if kind == DISK and self._resize is not None:
            self._resize(1 << 30)
        self._damage(kind)
        return faults

    def _damage(self, kind: str) -> None:
        if kind == LIST:
            for file in self.data.glob("jobs.sqlite*"):
                way = random.choice(["overwrite", "lose", "cut"])
                if way == "lose":
                    file.unlink()
                elif way == "cut":
                    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
                else:
                    file.write_bytes(random.randbytes(file.stat().st_size))
        elif kind == SEGMENT:
            for file in sorted(self.data.rglob("*.segment"))[-1:]:
                content = bytearray(file.read_bytes())
                content[random.randrange(len(content))] ^= 1
                file.write_bytes(content)
        elif kind == JOURNALS:
            for file in self.data.rglob(JOURNAL):
                content = file.read_bytes()
                at = random.randrange(len(content))
                file.write_bytes(content[:at] + bytes(len(content) - at))

    def _left(self) -> list[str]:
        """What is there beside the files that an unbroken run leaves."""
        more = shape_of(self.data / "sessions") - self._shape
        pages = list((self.folder / "tmp").glob("dloral-page-*"))
        pages += list((self.place / "gradio").glob("dloral-page-*"))
        left = [f"LEFT {dict(more)}"] if more else []
        return left + ([f"LEFT {len(pages) - 1} PAGES' FOLDERS"] if len(pages) > 1 else [])


@contextlib.contextmanager
def disk_for(folder: Path) -> Iterator[Callable[[int], None] | None]:
    """A small disk at ``folder`` where one can be mounted, else a folder."""
    try:
        with small_disk(folder, 1 << 30) as resize:
            yield resize
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    except (OSError, subprocess.CalledProcessError):
        folder.mkdir(exist_ok=True)
        yield None


def chosen_kinds(ends: int, can_fill_a_disk: bool) -> list[str]:
    shares = {kind: n for kind, n in SHARES.items() if can_fill_a_disk or kind != DISK}
    kinds = [kind for kind, share in shares.items() for _ in range(share)]
    while len(kinds) < ends:
        kinds += kinds
    random.shuffle(kinds)
    return kinds[:ends]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ends", type=int, default=sum(SHARES.values()))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(SHARES), help="one way to end the server")
    given = parser.parse_args()
    random.seed(given.seed)
    rows: Counter[tuple[str, str, str]] = Counter()
    with (
        tempfile.TemporaryDirectory(prefix="dloral-ends-") as name,
        disk_for(Path(name) / "disk") as resize,
    ):
        if resize is None:
            print(f"left out, since it cannot be done here: {DISK}")
        bench = Bench(Path(name), resize)
        try:
            kinds = [given.only] * given.ends if given.only else None
            for index, kind in enumerate(kinds or chosen_kinds(given.ends, resize is not None)):
                for job, outcome in bench.end(kind).items():
                    rows[job, kind, outcome] += 1
                    print(f"{index + 1:3} {kind:16} {job:6} {outcome}", flush=True)
        finally:
            bench.server.end()
        tracebacks = bench.server.log.read_text().count("Traceback")
    good = sum(times for (*_, how), times in rows.items() if how.endswith("equal"))
    print(f"\n{table_of(rows, list(NAMES), list(SHARES))}\n")
    print(f"{good} of {rows.total()} jobs equal; tracebacks in the log: {tracebacks}")
    return good < rows.total() or tracebacks > 0


if __name__ == "__main__":
    raise SystemExit(main())
