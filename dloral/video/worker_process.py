"""The other side of :mod:`dloral.video.worker`: a process that imports the readers once and forks
itself for each file, so that each gets a clean, confined process within milliseconds.

    python -m dloral.video.worker_process SOCKET

``SOCKET``: an inherited descriptor. Each message on it brings the ends of one file's connection;
when it closes, this process ends. Nothing here is called by the page's own process.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import av
import torch

from dloral.errors import DLoRALError
from dloral.video import worker
from dloral.video.carried import carried_notes
from dloral.video.picture_tags import picture_tags
from dloral.video.probe import probe
from dloral.video.reader import Frame, read_frames
from dloral.video.sandbox import allow_seconds, confine
from dloral.video.seeking import count_frames, read_frames_from
from dloral.video.sharing import Slots
from dloral.video.writer import open_writer

_CALLS: dict[str, Callable[..., Any]] = {
    "probe": probe,
    "count_frames": count_frames,
    "carried_notes": carried_notes,
    "picture_tags": picture_tags,
    "read_frames": read_frames,
    "read_frames_from": read_frames_from,
    "open_writer": open_writer,
}
"""What can be asked for, by name."""

_AT_ONCE = 2
"""File descriptors that come with a message: the connection, and memory for frames."""


class _Abandoned(BaseException):
    """The other side does not want the result any more."""


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody reaps children that end
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    with socket.socket(fileno=int(sys.argv[1])) as orders:
        while True:
            order, files, _, _ = socket.recv_fds(orders, 1, _AT_ONCE)
            if not order:
                return
            if os.fork():
                for file in files:
                    os.close(file)
                continue
            orders.close()
            try:
                _serve(connection := Connection(files[0]), files[1:])
                while True:  # unread messages would take ours down with them
                    connection.recv_bytes()
            except (EOFError, ConnectionError, _Abandoned):
                pass  # the other side is gone
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)


def _serve(connection: Connection, files: list[int]) -> None:
    """One task, from request to end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection.send((worker.HERE, os.getpid()))
    task: worker.Task = connection.recv()
    slots = Slots(task.frame_bytes, files[0]) if task.frame_bytes else None
    confine(task.memory, worker.MOST_FILES, task.is_writing)
    _allow(task)
    logging.disable()
    av.logging.set_level(None)
    try:
        if task.is_writing:
            assert slots is not None
            _write(connection, slots, task)
        elif slots is not None:
            _read(connection, slots, task)
        else:
            connection.send((worker.VALUE, _CALLS[task.name](*task.arguments, **task.named)))
    except (EOFError, BrokenPipeError, ConnectionError, _Abandoned):
        raise
    except DLoRALError as error:
        if _is_of_memory(error):
            connection.send((worker.FULL,))
            return
        connection.send(
            (worker.ERROR, type(error).__name__, error.problem, error.remedy, error.facts)
        )
    except BaseException as error:
        # a bug in a reader: its kind and place in the code, with nothing from the file
        if _is_of_memory(error):
            connection.send((worker.FULL,))
            return
        places = traceback.extract_tb(error.__traceback__)
        at = f"{Path(places[-1].filename).name}:{places[-1].lineno}" if places else ""
        connection.send((worker.BROKEN, type(error).__name__, at))


def _allow(task: worker.Task) -> None:
    """Allow time for the next answer, on every core."""
    allow_seconds(task.seconds * (os.cpu_count() or 1))


def _is_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        words = str(error).lower()
        if isinstance(error, MemoryError) or "allocate memory" in words or "bad alloc" in words:
            return True
        error = error.__cause__ or error.__context__
    return False


def _read(connection: Connection, slots: Slots, task: worker.Task) -> None:
    """Send frames, as many ahead as there are places."""
    free = deque(range(slots.count))

    def note(text: str) -> None:
        connection.send((worker.NOTE, text))

    with _CALLS[task.name](*task.arguments, **task.named, on_note=note) as frames:
        frame: Frame
        for frame in frames:
            while connection.poll() or not free:
                free.append(connection.recv())
            _allow(task)
            pixels = frame.pixels
            if frame.alpha is not None:
                pixels = torch.cat([pixels, frame.alpha[None]])
            slot = free.popleft()
            shape = slots.put(slot, pixels)
            told = (frame.index, frame.time, frame.duration, frame.alpha is not None)
            connection.send((worker.FRAME, slot, shape, told))
    connection.send((worker.END,))


def _write(connection: Connection, slots: Slots, task: worker.Task) -> None:
    """Write a result, frame by frame; the rest of the source is added to it here."""
    named = task.named | {"source": replace(task.named["source"], isolated=False)}
    with open_writer(*task.arguments, **named) as writer:
        connection.send((worker.READY, list(writer.notes)))
        for kind, *rest in _orders(connection):
            _allow(task)
            if kind == worker.FRAME:
                slot, shape, time, duration = rest
                pixels = slots.take(slot, shape)
                connection.send((worker.FREE, slot))
                writer.write(pixels, time, duration)
            elif kind == worker.CODED:
                writer.write_coded(*rest)
                connection.send((worker.READY, []))
            elif kind == worker.SHORT:
                writer.cut_short()
    connection.send((worker.VALUE, list(writer.notes)))


def _orders(connection: Connection) -> Iterator[tuple[Any, ...]]:
    while True:
        try:
            order = connection.recv()
        except (EOFError, OSError) as error:
            raise _Abandoned from error  # so that nothing half written stays
        if order[0] == worker.END:
            return
        yield order


if __name__ == "__main__":
    main()
