"""Restored frames kept beside the target while a long job runs, so that it can be resumed."""

import json
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from dloral.errors import OptionError, OutputError
from dloral.video.images import encode_marked_png, load_image
from dloral.video.media import reason

JOB = "job.json"
_OURS = re.compile(r"^(job\.json|\d{8,}\.png)(\.part)?$")
"""The names that a store gives its files; nothing else is ever removed."""

BIT_DEPTH = 10  # stored as 16 bits a channel, so that nothing of the result is lost on the way


class FrameStore:
    """The folder ``TARGET.resume``: frames 0 to ``count - 1`` as PNG, and which job they are of.

    ``job`` is any JSON-able description. A store of another job is refused, and so is a folder
    that holds anything but a store, for a store is removed in the end. Raises
    :class:`OptionError` for those, :class:`OutputError` where nothing can be written.
    """

    def __init__(self, target: Path, job: dict[str, Any]) -> None:
        if target.name in ("", ".."):
            raise OptionError(
                f"{target} has no name to keep restored frames under; "
                "give the target by its name, or leave resume out"
            )
        self.folder = target.with_name(target.name + ".resume")
        job = json.loads(json.dumps(job, default=str))
        try:
            if self.folder.is_symlink() or (self.folder.exists() and not self.folder.is_dir()):
                raise OptionError(
                    f"{self.folder} is a link or a file, and restored frames are kept in a folder "
                    "of that name; remove it, or give another target"
                )
            self.folder.mkdir(exist_ok=True)
            if (self.folder / JOB).is_file():
                self._check_job(job)
            else:
                self._check_new()
                self._write(JOB, json.dumps(job, indent=1).encode())
        except OSError as error:
            raise self._failed(error) from error
        self.count = 0
        while self._path(self.count).is_file():
            self.count += 1

    def _check_new(self) -> None:
        for file in self.folder.iterdir():
            if file.name != f"{JOB}.part":  # what a job that was killed at once leaves
                raise OptionError(
                    f"{self.folder} holds other files ({file.name}) and no job to go on with; "
                    "remove that folder, or give another target"
                )

    def _check_job(self, job: dict[str, Any]) -> None:
        try:
            before = json.loads((self.folder / JOB).read_text())
        except ValueError:
            before = None
        if not isinstance(before, dict):
            before = {}
        changed = sorted(
            name for name in job.keys() | before.keys() if job.get(name) != before.get(name)
        )
        if changed:
            raise OptionError(
                f"{self.folder} belongs to a job with another {', '.join(changed)}; "
                "give the same options as then, or remove that folder"
            )

    def read(self, index: int) -> Tensor:
        """Frame ``index``, float (3,H,W) in [0, 1]."""
        return load_image(self._path(index))

    def append(self, pixels: Tensor) -> None:
        """Keep the next frame; it is there whole or not at all."""
        try:
            self._write(self._path(self.count).name, encode_marked_png(pixels, BIT_DEPTH))
        except OSError as error:
            raise self._failed(error) from error
        self.count += 1

    def remove(self) -> list[str]:
        """Take the store away: the target holds everything now; a note if it could not be."""
        try:
            files = [file for file in self.folder.iterdir() if _OURS.match(file.name)]
            # the job goes last: without it the frames would be nobody's
            for file in sorted(files, key=lambda file: file.name.startswith(JOB)):
                file.unlink()
            self.folder.rmdir()
        except OSError as error:
            # the result is there, and more than a place to tidy up would be lost with it
            return [f"{self.folder} could not be removed: {reason(error)}"]
        return []

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:08d}.png"

    def _write(self, name: str, content: bytes) -> None:
        part = self.folder / f"{name}.part"
        part.write_bytes(content)
        part.replace(self.folder / name)

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(f"{self.folder} cannot be written: {reason(error)}")
