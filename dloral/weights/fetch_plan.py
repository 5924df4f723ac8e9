"""What a fetch would download: which files, from where, how large, under which licence."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from dloral.errors import OptionError, Setting, WeightsError
from dloral.weights.hub import Found, bytes_there, locate, size_text, sources_refuse
from dloral.weights.registry import (
    MODELS,
    TAGGER,
    TINY_VAE,
    Part,
    RemoteFile,
    fetched,
    models_home,
)

INSTEAD = {TAGGER: Setting("tagger", "none"), TINY_VAE: Setting("vae", "auto")}
"""The setting that does without a model, by its name; for any other, the embedded model."""


@dataclass(frozen=True)
class PlannedFile:
    """One file of a plan and where it will come from."""

    model: str
    part: str
    file: RemoteFile
    found: Found


@dataclass(frozen=True)
class FetchPlan:
    """What a fetch would do. ``models``: those not on this machine yet, in order."""

    models: tuple[str, ...]
    files: tuple[PlannedFile, ...]

    @property
    def total_bytes(self) -> int:
        """Total size of all files, including those already present."""
        return sum(planned.found.size for planned in self.files)

    @property
    def bytes_left(self) -> int:
        """Bytes still to be downloaded."""
        return self.total_bytes - sum(
            bytes_there(planned.found, downloads_folder()) for planned in self.files
        )

    @property
    def disk_needed(self) -> int:
        """Disk space for the downloads and the converted files, which are no larger."""
        return self.bytes_left + sum(
            min(MODELS[name].about, sum(f.found.size for f in self.files if f.model == name))
            for name in self.models
        )

    def lines(self) -> list[str]:
        """The plan as text: sources, sizes and licences."""
        if not self.models:
            return ["nothing to fetch: already on this machine"]
        lines = []
        for name in self.models:
            lines.append(f"{name}: {MODELS[name].text}")
            for part, wanted in MODELS[name].parts.items():
                files = [f.found for f in self.files if (f.model, f.part) == (name, part)]
                repos = sorted({found.source.repo for found in files})
                size = size_text(sum(found.size for found in files))
                lines.append(f"  {size:>9}  {part} from {', '.join(repos)} ({wanted.licence})")
        lines.append(
            f"to download: {size_text(self.bytes_left)}; disk space needed: "
            f"{size_text(self.disk_needed)}; stored in {models_home()}"
        )
        return lines


def downloads_folder() -> Path:
    """Where downloads are kept until they are converted; created by :func:`fetch`."""
    return models_home() / "downloads"


def plan_fetch(name: str, without: Collection[str] = ()) -> FetchPlan:
    """What ``fetch(name)`` would download; queries the Hub for sizes. Raises like :func:`fetch`."""
    check_names(name, without)
    wanted = [model for model in (name, *MODELS[name].companions) if model not in without]
    models = tuple(model for model in wanted if not fetched(model))
    files = [
        PlannedFile(model, part, file, found)
        for model in models
        for part, entry in MODELS[model].parts.items()
        for file, found in _located(name, part, entry)
    ]
    return FetchPlan(models, tuple(files))


def check_names(name: str, without: Collection[str]) -> None:
    """Raise :class:`OptionError` for an unknown model, or an unknown companion to leave out."""
    if name not in MODELS:
        raise OptionError(
            "{value!r} cannot be fetched", remedy=f"choose from {', '.join(MODELS)}", value=name
        )
    if unknown := set(without) - set(MODELS[name].companions):
        known = ", ".join(MODELS[name].companions) or "none"
        raise OptionError(
            "{name} has no companion {value!r} to leave out; its companions: {known}",
            name=name,
            value=min(unknown),
            known=known,
        )


def _located(name: str, part: str, entry: Part) -> Iterator[tuple[RemoteFile, Found]]:
    reasons: dict[str, str] = {}
    for file in entry.files:
        found = locate(file, entry.sources, reasons)
        if found is not None:
            yield file, found
        elif not file.optional:
            raise sources_gave_nothing(name, part, reasons)


def sources_gave_nothing(name: str, part: str, reasons: dict[str, str]) -> WeightsError:
    """The error for a part of the model ``name`` that no source provided, with their reasons."""
    return sources_refuse(
        part,
        reasons,
        "try again (python -m dloral fetch {name}), or use {instead}",
        name=name,
        instead=INSTEAD.get(name, Setting("model", "compact")),
    )
