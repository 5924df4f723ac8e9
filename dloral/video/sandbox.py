"""What a process that decodes a stranger's file may do: little, and for a short time.

Memory, processor time, open files and written bytes are limited by the system (``setrlimit``).
Sockets, other programs and other processes are blocked by a seccomp filter, which needs no
privileges and works inside containers; if the kernel lacks it, an empty network namespace is tried.
Linux only. Sources: seccomp(2), linux/filter.h, prctl(2).
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct

SECCOMP, NAMESPACE, NOTHING = "seccomp", "network namespace", "nothing"
"""What keeps a confined process from the network."""

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 1, 38, 22
_SIGKILL = 9
_SECCOMP_MODE_FILTER = 2
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000

# linux/filter.h: load a word of the call's data; jump if equal, if not below; return
_LOAD, _IF_EQUAL, _IF_NOT_BELOW, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1  # EPERM
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
_X32 = 0x40000000
"""Calls of x86-64's other ABI are numbered from here on."""

_SHARED = (424, 425, 438)  # pidfd_send_signal, io_uring_setup, pidfd_getfd
_CALLS = {
    "x86_64": (
        0xC000003E,
        # socket, connect, accept, bind, listen, accept4; fork, vfork, execve, execveat
        *(41, 42, 43, 49, 50, 288, 57, 58, 59, 322),
        # kill, ptrace, process_vm_readv/writev, mount, unshare, setns, keyctl, bpf, perf, userfault
        *(62, 101, 310, 311, 165, 272, 308, 250, 321, 298, 323),
    ),
    "aarch64": (
        0xC00000B7,
        *(198, 203, 202, 200, 201, 242, 221, 281),
        *(129, 117, 270, 271, 40, 97, 268, 219, 280, 241, 282),
    ),
}
"""Machine -> its number for seccomp, then the system calls refused there."""


def confine(memory: int, files: int, may_write: bool) -> str:
    """Confine this process for good; returns what keeps it from the network.

    ``memory``: bytes of address space beyond what it has now. ``files``: open at once. Without
    ``may_write`` no file can grow. The process dies with its parent.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, files)
    _limit(resource.RLIMIT_AS, address_space() + memory)
    if not may_write:
        _limit(resource.RLIMIT_FSIZE, 0)
    if _filter_calls(libc):
        return SECCOMP
    return NAMESPACE if _leave_network(libc) else NOTHING


def allow_seconds(seconds: float) -> None:
    """Allow this much more processor time, all threads together; then the process is killed."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime + seconds) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (most, hard))


def address_space() -> int:
    """Bytes that this process has mapped."""
    with open("/proc/self/statm") as file:  # noqa: PTH123  # entering a sandbox: no detours
        return int(file.read().split()[0]) * resource.getpagesize()


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def _filter_calls(libc: ctypes.CDLL) -> bool:
    """Whether the kernel accepted the filter."""
    known = _CALLS.get(platform.machine())
    if known is None:
        return False
    architecture, *refused = known
    refused += _SHARED
    program = [(_LOAD, 0, 0, _ARCHITECTURE)]
    # jumps give the number of instructions to skip; the last two are "allow" and "refuse"
    left = len(refused) + 2
    program.append((_IF_EQUAL, 0, left + 1, architecture))
    program.append((_LOAD, 0, 0, _NUMBER))
    program.append((_IF_NOT_BELOW, left - 1, 0, _X32))
    for index, number in enumerate(refused):
        program.append((_IF_EQUAL, len(refused) - index, 0, number))
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    return not libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, head, 0, 0)


def _leave_network(libc: ctypes.CDLL) -> bool:
    if not libc.unshare(_CLONE_NEWNET):
        return True
    return os.geteuid() != 0 and not libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
