"""Several results as one zip file, which is written while it is sent: no disk holds it."""

import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

CHUNK_BYTES = 1 << 20


def open_files(paths: Sequence[Path]) -> list[BinaryIO]:
    """The existing ones of ``paths``, opened, so that they stay readable if removed later."""
    with ExitStack() as opened:
        files: list[BinaryIO] = []
        for path in paths:
            try:
                files.append(opened.enter_context(path.open("rb")))
            except FileNotFoundError:
                continue  # it has expired
        opened.pop_all()
        return files


def zip_of(files: Sequence[BinaryIO]) -> Iterator[bytes]:
    """A zip file of ``files`` under their names, the second of a name as ``NAME-2``, in chunks.
    Nothing is compressed, since videos and pictures already are. ``files`` are closed."""
    sink = _Sink()
    with ExitStack() as opened:
        for file in files:
            opened.enter_context(file)
        with zipfile.ZipFile(sink, "w") as archive:
            for file, name in zip(files, free_names([file.name for file in files]), strict=True):
                entry = zipfile.ZipInfo(name, time.localtime()[:6])
                entry.file_size = file.seek(0, 2)  # of more than 2 GB the entry is another one
                file.seek(0)
                with archive.open(entry, "w") as target:
                    while chunk := file.read(CHUNK_BYTES):
                        target.write(chunk)
                        yield sink.taken()
        yield sink.taken()


def free_names(paths: Sequence[str]) -> list[str]:
    """The files' names without their folders, numbered from the second of a name on. Upper and
    lower case are one, as on many disks."""
    names: list[str] = []
    used: set[str] = set()
    for path in map(Path, paths):
        name, number = path.name, 2
        while name.casefold() in used:
            name, number = f"{path.stem}-{number}{path.suffix}", number + 1
        used.add(name.casefold())
        names.append(name)
    return names


class _Sink:
    """Holds what was written until it is taken. Not seekable, which zipfile does not need."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes, /) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """What was written can still be taken."""

    def taken(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data
