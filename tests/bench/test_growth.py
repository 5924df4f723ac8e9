"""The benchmark of how time and memory grow: what it refuses."""

import subprocess
import sys
from pathlib import Path

GROWTH = Path(__file__).parents[2] / "benchmarks" / "growth.py"


def test_a_clip_of_one_frame_is_refused_in_one_line() -> None:
    """Seconds a frame count from the first frame's end, so one frame has none."""
    call = [sys.executable, str(GROWTH), "--heights", "--frames", "10", "1"]
    done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 2
    assert done.stderr == "growth.py: --frames is 1; give 2 or more: the first frame is not timed\n"
    assert done.stdout == ""
