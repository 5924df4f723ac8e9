"""Looks at a built wheel and runs it where it was installed: .ci/package calls this."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

MOST_BYTES = 60_000_000
NEEDED = (
    "dloral/weights/compact/unet/diffusion_pytorch_model.safetensors",
    "dloral/studio/web/page.js",
    "dloral/evaluation/page.html.j2",
    "dloral/data/held_out.json",
    "dloral/examples/people.mp4",
)


def check_wheel(wheel: Path) -> None:
    """Its size, printed, and what it must and must not hold."""
    size = wheel.stat().st_size
    print(f"{wheel.name}: {size / 1e6:.1f} MB")
    if size >= MOST_BYTES:
        sys.exit(f"{wheel.name} has {size} bytes; {MOST_BYTES} are too many")
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    if missing := sorted(set(NEEDED) - names):
        sys.exit(f"{wheel.name} lacks {', '.join(missing)}")
    rooms = {name.partition("/")[0] for name in names}
    if foreign := {room for room in rooms if room != "dloral" and ".dist-info" not in room}:
        sys.exit(f"{wheel.name} brings {', '.join(sorted(foreign))}")


def run_installed(folder: Path) -> None:
    """One command on an example that the wheel brings, away from the clone."""
    env = os.environ | {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
    clip = folder / "dloral" / "examples" / "people.mp4"
    for words in (
        ["--version"],
        ["upscale", clip, "-o", folder / "restored.mp4", "--duration", "0.1", "--quiet"],
    ):
        command = [sys.executable, folder / "bin" / "dloral", *words]
        subprocess.run(command, env=env, cwd=folder, check=True)
    print(f"restored.mp4: {(folder / 'restored.mp4').stat().st_size} bytes")


if __name__ == "__main__":
    (wheel,) = Path(sys.argv[1]).glob("*.whl")
    check_wheel(wheel)
    run_installed(Path(sys.argv[2]).resolve())
