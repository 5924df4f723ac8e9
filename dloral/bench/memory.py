"""The most memory that a part of a run takes."""

import contextlib
import re
import sys
from pathlib import Path

import psutil
import torch

from dloral.devices import forget_peak, peak_on_device

_PROCESS = Path("/proc/self")


def begin_peaks(place: torch.device) -> None:
    """Have :func:`peaks` count from now on, as far as the system can."""
    forget_peak(place)
    with contextlib.suppress(OSError):  # elsewhere it counts from the start of the process
        (_PROCESS / "clear_refs").write_text("5")  # Linux: the peak is what is resident now


def peaks(place: torch.device) -> tuple[int | None, int | None]:
    """Bytes at the most: of this process, and of tensors on a GPU; None where nobody counts."""
    return _peak_here(), peak_on_device(place)


def _peak_here() -> int | None:
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    try:
        # Not ru_maxrss, which begins with the peak of the process that started this one.
        found = re.search(r"VmHWM:\s*(\d+) kB", (_PROCESS / "status").read_text())
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None
