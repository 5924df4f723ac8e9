"""``dloral doctor``: what this installation and this machine have, and what to do about the rest.

Every check is independent, so that one broken part hides no other. Importing this costs nothing.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dloral.errors import DLoRALError, ResourceError

Commands = Any

OK, NOTE, BROKEN = "ok", "note", "broken"

LEAST_MEMORY = 2e9
"""Bytes: the compact model's peak at 768 x 768 pixels is 1.4 GB (``studio/estimates.py``)."""

LEAST_DISK = 1e9
"""Bytes that a result and its parts should find."""

LIBRARIES = ("numpy", "av", "cv2", "PIL", "safetensors", "diffusers", "transformers", "peft")
"""Modules that every job imports."""

_PACKAGES = {"cv2": "opencv-python-headless", "PIL": "pillow"}

SIDE = 64
"""Pixels a side of the frame that is restored to see that it works."""


@dataclass(frozen=True)
class Finding:
    """One line: ``state`` is ok, note (something to know) or broken (jobs fail)."""

    name: str
    state: str
    found: str
    remedy: str = ""


def add_doctor(commands: Commands) -> None:
    parser = commands.add_parser(
        "doctor",
        help="check this installation, and say what to do",
        description="Check torch, devices, FFmpeg, encoders, models, caches, memory and optional "
        "packages, and restore a small frame. Exit status 1 if something required is broken.",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace) -> None:
    findings = examine()
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        print(as_text(findings))
    broken = [finding for finding in findings if finding.state == BROKEN]
    if broken:
        raise ResourceError(
            "{what} {value}",
            remedy="{advice}",
            what=broken[0].name,
            advice=broken[0].remedy or f"see {broken[0].name} above",
            value=broken[0].found,
        )


def examine() -> list[Finding]:
    """All checks, in the order in which they are shown."""
    return [finding for check in CHECKS for finding in _told(check)]


def _told(check: Callable[[], list[Finding]]) -> list[Finding]:
    """What a check found; one that cannot run is reported as broken, without a traceback."""
    name = check.__name__.removeprefix("_")
    try:
        return check()
    except Exception as error:
        return [Finding(name, BROKEN, f"cannot be checked: {_first_line(error)}")]


def as_text(findings: list[Finding]) -> str:
    """One line per finding, with what to do below it."""
    width = max(len(finding.name) for finding in findings)
    marks = {OK: " ", NOTE: "!", BROKEN: "X"}
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.state]} {finding.name:{width}}  {finding.found}")
        if finding.remedy:
            lines.append(f"  {'':{width}}  -> {finding.remedy}")
    return "\n".join(lines)


def _dloral() -> list[Finding]:
    import dloral

    try:
        version("dloral")
        how = ""
    except PackageNotFoundError:
        how = ", not installed: run from this folder"
    where = Path(dloral.__file__).parent
    system = f"{platform.system()} {platform.machine()}"
    return [
        Finding("dloral", OK, f"{dloral.__version__} in {where}{how}"),
        Finding("python", OK, f"{platform.python_version()} on {system}: {sys.executable}"),
    ]


def _torch() -> list[Finding]:
    again = "install it again: python -m pip install --force-reinstall torch (pytorch.org)"
    try:
        import torch
    except Exception as error:  # a library that is missing or built for another processor
        return [Finding("torch", BROKEN, f"cannot be imported: {_first_line(error)}", again)]
    return [Finding("torch", OK, torch.__version__)]


def _devices() -> list[Finding]:
    import torch

    from dloral.devices import AUTO, accelerators, choose_device, device_title, memory_of
    from dloral.weights.loading import choose_dtype

    found = []
    for name in accelerators():
        place = choose_device(name)
        memory = memory_of(place)
        size = f", {_gb(memory)}" if memory else ""
        found.append(Finding(name, OK, device_title(place) + size))
    cpu = f"{device_title(torch.device('cpu'))}, {torch.get_num_threads()} threads"
    found.append(Finding("cpu", OK, cpu))
    chosen = choose_device(AUTO)
    dtype = str(choose_dtype(AUTO, chosen)).removeprefix("torch.")
    found.append(Finding("auto", *_auto(chosen.type, dtype)))
    return found


def _auto(kind: str, dtype: str) -> tuple[str, str, str]:
    """State, text and remedy for what auto picks."""
    words = f"computes on {kind} in {dtype}"
    if kind == "cpu":
        words += "" if dtype == "bfloat16" else ": this processor has no bfloat16 instructions"
        if os.name == "posix" and any(Path(path).exists() for path in ("/dev/nvidia0", "/dev/kfd")):
            return (
                NOTE,
                f"{words}; there is a GPU, but this torch does not use it",
                "install the torch that matches its driver (pytorch.org)",
            )
    return OK, words, ""


def _libraries() -> list[Finding]:
    broken, found = [], []
    for module in LIBRARIES:
        package = _PACKAGES.get(module, module)
        try:
            import_module(module)
            found.append(f"{package} {version(package)}")
        except Exception as error:
            reason = f"{package} cannot be imported: {_first_line(error)}"
            remedy = f"python -m pip install --force-reinstall {package}"
            broken.append(Finding("libraries", BROKEN, reason, remedy))
    return [*broken, Finding("libraries", OK, ", ".join(found))]


def _ffmpeg() -> list[Finding]:
    import av

    from dloral.video.encoders import ENCODERS, present_codecs

    present = present_codecs()
    findings = [Finding("ffmpeg", OK, f"{av.ffmpeg_version_info}, inside av {av.__version__}")]
    if "h264" not in present:
        remedy = "install PyAV's own wheel: python -m pip install --force-reinstall av"
        findings.append(Finding("encoders", BROKEN, "have no libx264, the default", remedy))
    absent = [name for name in ENCODERS if name not in present and "-" not in name]
    state, lacking = (NOTE, f"; missing: {', '.join(absent)}") if absent else (OK, "")
    return [*findings, Finding("encoders", state, ", ".join(present) + lacking)]


def _models() -> list[Finding]:
    from dloral.weights.registry import MODELS, fetched

    findings = []
    for name, model in MODELS.items():
        folder = fetched(name)
        if folder is None:
            found, remedy = f"not fetched: {model.text}", f"to get it: dloral fetch {name}"
        else:
            found, remedy = f"{_gb(_size(folder))} in {folder}", ""
        findings.append(Finding(name, OK, found, remedy))
    return findings


def _restoring() -> list[Finding]:
    """A frame through the compact model, as a job would."""
    import torch

    from dloral.weights.loading import load_pipeline

    started = time.perf_counter()
    try:
        pipe = load_pipeline("compact")
        frame = torch.full((1, 3, SIDE, SIDE), 0.5)
        restored = pipe(frame).frames
    except DLoRALError as error:
        return [Finding("compact", BROKEN, str(error), "install dloral again")]
    if restored.shape != frame.shape or not torch.isfinite(restored.float()).all():
        remedy = "report this with your device and torch version, and use --device cpu"
        return [Finding("compact", BROKEN, "gives no valid picture on this device", remedy)]
    taken = time.perf_counter() - started
    words = f"loads and restores a frame on {pipe.execution_device.type} ({taken:.1f} s in all)"
    return [Finding("compact", OK, words)]


def _caches() -> list[Finding]:
    from huggingface_hub import constants

    from dloral.weights.registry import models_home

    offline = ["HF_HUB_OFFLINE is set: nothing is fetched"] if constants.HF_HUB_OFFLINE else []
    places = {"models": models_home(), "hub cache": Path(constants.HF_HUB_CACHE)}
    findings = []
    for name, folder in places.items():
        there = next(place for place in (folder, *folder.parents) if place.exists())
        words = "; ".join([f"{_gb(_size(folder))} in {folder}", *offline])
        if os.access(there, os.W_OK):
            findings.append(Finding(name, OK, words))
        else:
            remedy = "set HF_HOME to a writable folder before fetching a model"
            findings.append(Finding(name, NOTE, f"{there} is not writable", remedy))
    return findings


def _memory() -> list[Finding]:
    import psutil
    import torch

    from dloral.memory import free_memory

    free, whole = free_memory(torch.device("cpu")), psutil.virtual_memory().total
    words = f"{_gb(free)} free of {_gb(whole)}"
    short = (NOTE, "close other programs, or use a smaller --scale or --tile")
    state, remedy = short if free < LEAST_MEMORY else (OK, "")
    findings = [Finding("memory", state, words, remedy)]
    for name, folder in {"disk here": Path.cwd(), "disk temp": Path(tempfile.gettempdir())}.items():
        left = shutil.disk_usage(folder).free
        state, remedy = (NOTE, "free some space") if left < LEAST_DISK else (OK, "")
        findings.append(Finding(name, state, f"{_gb(left)} free at {folder}", remedy))
    return findings


def _extras() -> list[Finding]:
    from dloral.packages import EXTRAS, install_command, missing_modules

    findings = []
    for extra in EXTRAS:
        missing = missing_modules(extra)
        if missing:
            words, remedy = f"missing {', '.join(missing)}", install_command(extra)
            findings.append(Finding(f"[{extra}]", NOTE, words, remedy))
        else:
            findings.append(Finding(f"[{extra}]", OK, ", ".join(EXTRAS[extra])))
    return findings


CHECKS: tuple[Callable[[], list[Finding]], ...] = (
    *(_dloral, _torch, _devices, _libraries, _ffmpeg),
    *(_restoring, _models, _caches, _memory, _extras),
)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__


def _size(folder: Path) -> int:
    """Total bytes of the files in a folder; 0 if it does not exist."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            total += 0 if path.is_symlink() else path.stat().st_size
    return total


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
