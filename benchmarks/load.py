"""Many visitors of one page at once, and one who means harm: what fails, and how slow it gets.

    python benchmarks/load.py --users 20 --minutes 10
    python benchmarks/load.py --users 20 --minutes 10 --hostile

``app.py`` is started on the loopback, which is all that is ever called, and ended at the end. Each
user drops a clip of a brightness of its own, looks at it, restores it with bicubic and takes the
result; a result of another brightness is a mix-up. Users have addresses of their own, as a proxy
would say. The hostile one opens 1,500 visits, asks for thumbnails without end, sends bombs and
breaks uploads off.
"""

import argparse
import asyncio
import contextlib
import io
import itertools
import random
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

import av
import httpx
import psutil
from page_server import DOOR, VISIT, clip_of, memory_of, serving, size_of
from PIL import Image

FRAMES, SIDE = 12, 48


class Figures:
    """What was seen."""

    def __init__(self) -> None:
        self.loads: list[float] = []
        self.jobs: list[float] = []
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.samples: list[tuple[float, float, float]] = []  # seconds, bytes of memory and disk


def brightness_of(content: bytes) -> float:
    with av.open(io.BytesIO(content)) as container:
        return float(next(container.decode(video=0)).to_ndarray(format="rgb24").mean())


async def visit(client: httpx.AsyncClient) -> str:
    answer = await client.post(DOOR, json=VISIT)
    return str(answer.json())


async def user(number: int, base: str, end: float, figures: Figures) -> None:
    """One visitor, again and again until ``end``."""
    brightness = 20 + 10 * number
    clip = clip_of(brightness, FRAMES, SIDE)
    headers = {"x-forwarded-for": f"10.0.0.{number + 1}"}
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=300) as client:
        while time.monotonic() < end:
            try:
                await once(client, clip, brightness, figures)
            except (httpx.HTTPError, ValueError, KeyError) as error:
                figures.faults[f"user: {type(error).__name__} {error}"[:100]] += 1
            await asyncio.sleep(random.uniform(0.2, 1))


async def once(client: httpx.AsyncClient, clip: bytes, brightness: int, figures: Figures) -> None:
    began = time.monotonic()
    (await client.get("/")).raise_for_status()
    figures.loads.append(time.monotonic() - began)
    room = f"/studio/{await visit(client)}"
    settings = {"settings": {"scale": 2}}
    began = time.monotonic()
    state = (await client.post(f"{room}/clip", params={"name": "a.mp4"}, content=clip)).json()
    if "error" in state:
        raise ValueError(state["error"])
    (await client.get(f"{room}/thumbnails")).raise_for_status()
    (await client.post(f"{room}/preview", json={"frame": 0, **settings})).raise_for_status()
    state = (await client.post(f"{room}/job", json=settings)).json()
    while state.get("job") and state["job"]["stage"] not in ("done", "failed", "stopped"):
        await asyncio.sleep(0.5)
        state = (await client.get(f"{room}/state")).json()
    figures.counts["jobs"] += 1
    if not state.get("result"):
        raise ValueError(f"no result: {state.get('error') or state.get('job')}")
    made = await client.get(f"{room}/files/{state['result']['file']}")
    made.raise_for_status()
    figures.jobs.append(time.monotonic() - began)
    if abs(brightness_of(made.content) - brightness) > 4:
        figures.faults["A MIX-UP"] += 1
    await client.delete(f"{room}/clip")
    await client.post(f"{room}/leave")


async def hostile(base: str, end: float, figures: Figures) -> None:
    """What one address can do."""
    bomb = io.BytesIO()
    Image.new("1", (8192, 8192)).save(bomb, "png")
    headers = {"x-forwarded-for": "66.6.6.6"}
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=300) as client:

        async def thumbnails(room: str) -> None:
            while time.monotonic() < end:
                await count("thumbnails", client.get(f"{room}/thumbnails", params={"count": 24}))

        async def visits() -> None:
            for _ in range(1500):
                if time.monotonic() > end:
                    return
                await count("visits", visit(client))

        async def bombs(room: str) -> None:
            while time.monotonic() < end:
                name = {"name": "b.png"}
                await count(
                    "bombs",
                    client.post(f"{room}/clip", params=name, content=bomb.getvalue()),
                )

        async def aborted(room: str) -> None:
            async def part() -> None:
                yield bytes(500_000)
                await asyncio.sleep(0.2)
                raise OSError

            while time.monotonic() < end:
                name = {"name": "c.mp4"}
                await count(
                    "aborted uploads", client.post(f"{room}/clip", params=name, content=part())
                )

        async def count(what: str, call) -> None:
            with contextlib.suppress(httpx.HTTPError, OSError, ValueError):
                await call
            figures.counts[f"hostile: {what}"] += 1

        room = f"/studio/{await visit(client)}"
        clip = clip_of(1, FRAMES, SIDE)
        await client.post(f"{room}/clip", params={"name": "a.mp4"}, content=clip)
        other = f"/studio/{await visit(client)}"
        await asyncio.gather(
            *(thumbnails(room) for _ in range(50)), visits(), bombs(other), aborted(other)
        )


async def watch(process: psutil.Process, folder: Path, end: float, figures: Figures) -> None:
    while time.monotonic() < end:
        sample = await asyncio.to_thread(memory_of, process)
        figures.samples.append((time.monotonic(), sample, size_of(folder)))
        await asyncio.sleep(3)


def quantiles(values: list[float]) -> str:
    if len(values) < 2:
        return "-"
    cuts = statistics.quantiles(values, n=20, method="inclusive")
    return f"{statistics.median(values):.2f} s / {cuts[-1]:.2f} s"


def ending_of(lines: list[str], most: int = 12) -> str:
    """The last lines of the traceback that ``lines`` begin with."""
    inside = itertools.takewhile(lambda line: line.startswith(" "), lines[1:])
    end = 2 + sum(1 for _ in inside)
    return "\n".join(lines[max(0, end - most) : end])


async def run(given: argparse.Namespace, folder: Path) -> Figures:
    figures = Figures()
    with serving(folder) as server:
        base, process = server.base, server.process
        async with httpx.AsyncClient(base_url=base, timeout=300) as client:
            await client.get("/")
        end = time.monotonic() + 60 * given.minutes
        work = [user(number, base, end, figures) for number in range(given.users)]
        if given.hostile:
            work.append(hostile(base, end, figures))
        await asyncio.gather(*work, watch(process, folder, end, figures))
        log = server.log.read_text()
        if "Traceback" in log:
            figures.faults["tracebacks in the log"] += log.count("Traceback")
            print(ending_of(log[log.index("Traceback") :].splitlines()))
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=20, choices=range(1, 24), metavar="1..23")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--hostile", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dloral-load-") as name:
        folder = Path(name) / "page"
        folder.mkdir()
        figures = asyncio.run(run(given, folder))
    faults = {fault: count for fault, count in figures.faults.items() if count}
    third = max(1, len(figures.samples) // 3)
    first, last = figures.samples[:third], figures.samples[-third:]
    middle = [
        [statistics.median(sample[kind] for sample in part) for part in (first, last)]
        for kind in (1, 2)
    ]
    print(f"{given.users} users, {given.minutes:g} minutes{', one hostile' * given.hostile}")
    print(f"  jobs: {figures.counts['jobs']}, faults: {faults or 'none'}")
    print(f"  page load p50 / p95: {quantiles(figures.loads)} of {len(figures.loads)}")
    print(f"  upload to result p50 / p95: {quantiles(figures.jobs)}")
    for what, (begin, end) in zip(("memory", "disk"), middle, strict=True):
        print(f"  {what}, median of the first and the last third: {begin / 1e6:.0f}, ", end="")
        print(f"{end / 1e6:.0f} MB")
    print(f"  {dict(figures.counts)}")
    return bool(faults)


if __name__ == "__main__":
    raise SystemExit(main())
