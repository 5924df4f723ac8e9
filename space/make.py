"""A folder that can be uploaded as a Hugging Face Space: what the page needs, and a README with the
settings that Spaces read.

python space/make.py FOLDER [--model sd21]   # then: hf upload OWNER/NAME FOLDER . --repo-type space

The compact model restores the examples for it, in minutes on two cores, so that visitors see their
results at once. With sd21 the Space fetches the full model's files while it is built, not at its
first start.
"""

import argparse
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dloral.studio.runtime import Model  # noqa: E402
from dloral.studio.server import example_clips  # noqa: E402
from dloral.studio.stored import store_result  # noqa: E402
from dloral.weights.registry import MODELS, SD21  # noqa: E402

COMPACT = "compact"
WANTED = ("app.py", "requirements.txt", "LICENSE", "dloral", "examples", "docs/pictures")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


START = """\"\"\"Opens the page with a model other than the compact one.\"\"\"

import sys

from dloral.errors import DLoRALError
from dloral.studio import launch

if __name__ == "__main__":
    try:
        launch(["--model", "{model}", *sys.argv[1:]])
    except DLoRALError as error:
        sys.exit(f"app.py: {{error}}")
"""


def preloaded(model: str) -> list[str]:
    """``preload_from_hub`` of a model's files, by the registry: repository, files, revision.
    The first source that is a model's, for nobody can be asked here which still stand."""
    lines = []
    for part in MODELS[model].parts.values():
        source = next(source for source in part.sources if source.kind == "model")
        names = ",".join(file.names[0] for file in part.files if not file.optional)
        lines.append(f"{source.repo} {names} {source.revision}")
    return lines


def card(model: str = COMPACT) -> str:
    """The README of the Space: its settings, with the Gradio that the project pins, then ours."""
    settings = (ROOT / "space" / "card.yaml").read_text(encoding="utf-8")
    pinned = re.search(r"^gradio==(\S+)$", (ROOT / "requirements.txt").read_text(), re.M)
    assert pinned, "requirements.txt pins gradio"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    if model != COMPACT:
        lines = "".join(f"  - {line}\n" for line in preloaded(model))
        settings += f"suggested_hardware: zero-a10g\npreload_from_hub:\n{lines}"
    return f"---\n{settings}sdk_version: {pinned[1]}\n---\n\n{readme}"


def make(folder: Path, model: str = COMPACT, *, results: bool = True) -> None:
    """Fill ``folder``, which must be new or empty. ``results``: restore the examples for it."""
    if folder.exists() and any(folder.iterdir()):
        sys.exit(f"{folder} is not empty; give a new folder")
    for name in WANTED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=LEFT_OUT)
        else:
            shutil.copy2(source, target)
    (folder / "README.md").write_text(card(model), encoding="utf-8")
    if model != COMPACT:
        (folder / "app.py").write_text(START.format(model=model), encoding="utf-8")
    elif results:
        used = Model(COMPACT)
        used.start()
        for example in example_clips(folder / "examples").values():
            store_result(example, used)
            print(f"{example.name} is restored", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make a folder for a Hugging Face Space.")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--model", choices=(COMPACT, SD21), default=COMPACT)
    parser.add_argument("--no-results", action="store_true", help="leave the examples unrestored")
    options = parser.parse_args()
    make(options.folder, options.model, results=not options.no_results)
