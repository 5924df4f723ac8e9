"""A folder that can be uploaded as a Hugging Face Space: what the page needs, and a README with the
settings that Spaces read.

python space/make.py FOLDER          # then: hf upload OWNER/NAME FOLDER . --repo-type space
"""

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WANTED = ("app.py", "requirements.txt", "LICENSE", "dloral", "examples", "docs/pictures")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


def card() -> str:
    """The README of the Space: its settings, with the Gradio that the project pins, then ours."""
    settings = (ROOT / "space" / "card.yaml").read_text(encoding="utf-8")
    pinned = re.search(r"^gradio==(\S+)$", (ROOT / "requirements.txt").read_text(), re.M)
    assert pinned, "requirements.txt pins gradio"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return f"---\n{settings}sdk_version: {pinned[1]}\n---\n\n{readme}"


def make(folder: Path) -> None:
    """Fill ``folder``, which is made; it must be new or empty."""
    if folder.exists() and any(folder.iterdir()):
        sys.exit(f"{folder} is not empty; give a new folder")
    for name in WANTED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=LEFT_OUT)
        else:
            shutil.copy2(source, target)
    (folder / "README.md").write_text(card(), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("python space/make.py FOLDER")
    make(Path(sys.argv[1]))
