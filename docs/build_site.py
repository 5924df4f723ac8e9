"""Builds the documentation's site: ``python docs/build_site.py`` (mkdocs-material, no network).

The Markdown files and what they show are laid out as in the repository, so that a link is the same
here and where the repository is read. The command line's help is put where a file asks for it.
"""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "build" / "site-source"
WANTED = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "examples", "dloral")
ENDINGS = (".md", ".jpg", ".png", ".webp", ".svg")

ROLES = re.compile(r":(?:func|class|mod|meth|data|attr|exc):(?=<code)")
"""Sphinx's marks before a name in our docstrings."""

HELP = re.compile(r"^<!-- help: ([a-z -]*) -->$", re.M)
"""Where the help of a command goes."""


def lay_out() -> None:
    """Every Markdown file, the pictures, and other files that they link to."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    for name in WANTED:
        place = ROOT / name
        for path in [place] if place.is_file() else sorted(place.rglob("*")):
            if path.suffix in ENDINGS and "web" not in path.parts:
                copy(path)
    for path in sorted(SOURCE.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#:\s]+)\)", text):
            linked = (ROOT / path.relative_to(SOURCE)).parent / link
            if linked.is_file():
                copy(linked.resolve())
        if "studies" in path.parts:  # two brackets in a row would be a link
            text = text.replace("] [", "] \\[")
        path.write_text(HELP.sub(lambda found: help_of(found[1].split()), text), encoding="utf-8")


def copy(path: Path) -> None:
    """A file to the same place below ``SOURCE``; one that is there stays."""
    target = SOURCE / path.relative_to(ROOT)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def help_of(words: list[str]) -> str:
    """What ``dloral WORDS --help`` prints, as a block of code."""
    from dloral.cli import main

    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return f"```\n{told.getvalue().rstrip()}\n```"


def on_page_content(html: str, **others: object) -> str:
    """mkdocs calls this for each page (``hooks`` in mkdocs.yml)."""
    return ROLES.sub("", html)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    lay_out()
    os.environ["NO_MKDOCS_2_WARNING"] = "true"
    # Not --quiet: that hides the warnings from --strict too.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", *sys.argv[1:]]
    built = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    told = built.stderr.splitlines()
    sys.exit("\n".join(line for line in told if line[:4] != "INFO") if built.returncode else 0)
