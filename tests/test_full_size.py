"""The full model at its real sizes: three frames of 512 x 512 in less than 8 GB of memory."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dloral

SCRIPT = Path(__file__).parent / "support" / "full_size.py"


@pytest.mark.slow
def test_peak_memory_in_bfloat16(tmp_path: Path) -> None:
    root = Path(dloral.__file__).parents[1]  # not installed, and the script lies elsewhere
    for arguments in (("make", tmp_path / "model"), ("run", tmp_path / "model", "3", "512")):
        result = subprocess.run(
            [sys.executable, SCRIPT, *arguments],
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr[-2000:]
    assert "frame 2" in result.stdout
    peak = re.search(r"peak ([\d.]+) GB", result.stdout)
    assert peak
    assert float(peak[1]) < 8
