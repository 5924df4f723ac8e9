"""How ``kills.py`` ends jobs: signals, workers that die, disks and memory that are full."""

import contextlib
import os
import random
import resource
import signal
from pathlib import Path

import psutil

MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")


def kill_process(child: int) -> bool:
    os.kill(child, signal.SIGKILL)
    return True


def kill_worker(child: int) -> bool:
    """SIGKILL of a worker: the job itself goes on with a new one."""
    with contextlib.suppress(psutil.NoSuchProcess, IndexError):
        found = psutil.Process(child).children(recursive=True)
        random.choice([one for one in found if works(one)]).kill()
        return True
    return False


def works(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        line = " ".join(process.cmdline())
        return "ray::_restore" in line or ("spawn_main" in line and process.cpu_times().user > 1)
    return False


def fail_allocations(child: int) -> bool:
    """No more than some hundred kilobytes can be allocated from now on."""
    with contextlib.suppress(OSError, IndexError):
        status = Path(f"/proc/{child}/status").read_text()
        most = 1024 * (int(status.split("VmData:")[1].split()[0]) + random.randint(0, 2000))
        resource.prlimit(child, resource.RLIMIT_DATA, (most, most))
        return True
    return False


class MemoryGroup:
    """A cgroup (version 1) whose processes the kernel ends when they touch more than 128 KB.

    OSError where there are none, or this user may not make one. It is made where the system has
    its groups, and nothing is mounted: a folder for scratch in which everybody's groups can be seen
    is one that somebody will remove.
    """

    def __init__(self, name: str) -> None:
        self._group = MEMORY_GROUPS / name

    def __enter__(self) -> "MemoryGroup":
        if not (MEMORY_GROUPS / "cgroup.procs").is_file():
            raise OSError(f"{MEMORY_GROUPS} holds no groups")
        self._group.mkdir()
        try:
            (self._group / "memory.limit_in_bytes").write_text(str(1 << 17))
        except OSError:
            self._group.rmdir()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._group.rmdir()

    def take(self, child: int) -> bool:
        """Pages that the process has stay where they are counted; all new ones count here."""
        with contextlib.suppress(OSError):
            (self._group / "cgroup.procs").write_text(str(child))
            return True
        return False
