"""The released repositories in small: random weights in the released formats, by real names."""

import tempfile
from pathlib import Path

from hub_server import Repo, etag_of, repo_of
from reference_files import DATA, write_reference

from dloral.weights.registry import DLORAL, MODELS, SD21

_folder = tempfile.TemporaryDirectory(prefix="dloral-tests-")  # until this process ends
REFERENCE = Path(_folder.name) / "dloral_tiny"
write_reference(REFERENCE)
CHECKPOINT, BASE = REFERENCE / "model.pkl", REFERENCE / "sd_base"

BASES = [source.repo for source in MODELS[SD21].parts["sd21-base"].sources]
RELEASE = DLORAL.sources[0].repo
RAM_REPO, DAPE_REPO = "xinyu1205/recognize_anything_model", "CSWRY/SeeSR"
LISTS_REPO = "spaces/xinyu1205/recognize-anything"


def released_repos() -> dict[str, Repo]:
    """What sd21 and its tagger come from. Of the base's mirrors only the last is there."""
    ram = DATA / "ram_tiny"
    lists = ("ram_tag_list.txt", "ram_tag_list_threshold.txt")
    return {
        BASES[2]: repo_of(BASE),
        RELEASE: Repo({"model.pkl": CHECKPOINT.read_bytes()}),
        RAM_REPO: Repo({"ram_swin_large_14m.pth": (ram / "ram_tiny.pth").read_bytes()}),
        DAPE_REPO: Repo({"DAPE.pth": (ram / "DAPE_tiny.pth").read_bytes()}),
        LISTS_REPO: Repo({f"ram/data/{name}": (ram / name).read_bytes() for name in lists}),
    }


def pin(content: bytes) -> None:
    """From now on expect these bytes as model.pkl, where the table pins the real file's."""
    from dataclasses import replace

    file = replace(DLORAL.files[0], size=len(content), sha256=etag_of("model.pkl", content))
    MODELS[SD21].parts["dloral"] = replace(DLORAL, files=(file,))
