"""Results of the page's examples that are made before anybody visits, such as a Space's.

They are shown at once, and no visitor's share of a GPU goes for them. A folder of ``STORED``, named
as its example, holds what a job leaves, and the settings it was started with.
"""

import json
import shutil
from pathlib import Path

from dloral.options import UpscaleOptions
from dloral.studio.jobs import Job
from dloral.studio.records import RESULT, Result, kept_settings, read_result
from dloral.studio.restoration import restore
from dloral.studio.runtime import JobQueue, Model
from dloral.studio.settings import Settings, settings_from
from dloral.studio.uploads import link_or_copy
from dloral.video.probe import ClipInfo, probe

STORED = "restored"
"""The folder beside the examples."""

CHOSEN = "chosen.json"


def stored_beside(example: Path) -> Path:
    """Where an example's result is kept, if it is."""
    return example.parent / STORED / example.stem


def store_result(example: Path, model: Model) -> Path:
    """Restore an example as the page does by default, for :func:`stored_settings`; its folder,
    which appears whole or not at all. Raises :class:`DLoRALError`."""
    folder = stored_beside(example)
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    options = UpscaleOptions(model=model.name, vae=model.vae)
    try:
        found = list(restore(probe(example), part, Settings(options), model.pipe()))
        assert isinstance(found[-1], Result)
        kept = part / CHOSEN
        kept.write_text(json.dumps(kept_settings(Settings(options))), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def stored_settings(folder: Path, model: Model) -> Settings | None:
    """What a stored result was made with; None where there is none by this model."""
    try:
        kept = json.loads((folder / CHOSEN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not (folder / RESULT).is_file() or (kept.pop("model"), kept.pop("vae")) != model.key:
        return None
    return settings_from(kept, model.name)


def stored_job(
    stored: Path, clip: ClipInfo, folder: Path, model: Model, queue: JobQueue
) -> Job | None:
    """A job in a new ``folder`` that is done, as if it had just been run; None where there is no
    stored result, it is damaged, or another model made it."""
    settings = stored_settings(stored, model)
    if settings is None:
        return None
    shutil.copytree(stored, folder, copy_function=lambda a, b: link_or_copy(Path(a), Path(b)))
    result = read_result(folder, clip, settings)
    if result is None:
        shutil.rmtree(folder)
        return None
    job = Job(clip, folder, settings, model, queue)
    job.settle(result)
    return job
