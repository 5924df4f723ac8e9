"""Results of the page's examples that are made before anybody visits, such as a Space's.

They are shown at once, without a run. A folder of ``STORED``, named after its example, holds what
a job leaves, and the settings it was started with.
"""

import json
import logging
import shutil
from pathlib import Path

from dloral.errors import DLoRALError
from dloral.options import UpscaleOptions
from dloral.studio.jobs import Job
from dloral.studio.records import kept_settings, read_result
from dloral.studio.restoration import restore
from dloral.studio.runtime import JobQueue, Model
from dloral.studio.settings import Settings, settings_from
from dloral.studio.uploads import link_or_copy
from dloral.video.probe import ClipInfo, probe
from dloral.weights.resolve import known_weights

_log = logging.getLogger(__name__)

STORED = "restored"
"""The folder beside the examples."""

CHOSEN = "chosen.json"
"""In such a folder: the settings that it was made with, the model's name and weights among them."""


def stored_beside(example: Path) -> Path:
    """Where an example's result is kept, if it is."""
    return example.parent / STORED / example.stem


def store_result(example: Path, model: Model) -> Path:
    """Restore an example as the page does by default, for :func:`stored_job`. Returns its folder,
    which appears whole or not at all; raises :class:`DLoRALError`."""
    folder = stored_beside(example)
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    settings = Settings(UpscaleOptions(model=model.name, vae=model.vae))
    try:
        for _ in restore(probe(example), part, settings, model.pipe()):
            pass  # the result is written with the last one
        chosen = kept_settings(settings) | {"weights": known_weights(model.name)}
        (part / CHOSEN).write_text(json.dumps(chosen), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def stored_job(
    stored: Path, clip: ClipInfo, folder: Path, model: Model, queue: JobQueue
) -> Job | None:
    """A job in a new ``folder`` that is done, as if it had just been run; None where there is no
    stored result, it is damaged, or another model made it."""
    if not stored.is_dir():
        return None
    try:
        kept = json.loads((stored / CHOSEN).read_text(encoding="utf-8"))
        if kept.pop("weights", None) != known_weights(model.name):
            return None
        if (kept.pop("model"), kept.pop("vae")) != model.key:
            return None
        settings = settings_from(kept, model.name)
        shutil.copytree(stored, folder, copy_function=lambda a, b: link_or_copy(Path(a), Path(b)))
        result = read_result(folder, clip, settings)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, DLoRALError) as error:
        _log.warning("the stored result %s is damaged: %r", stored.name, error)
        result = None
    if result is None:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    job = Job(clip, folder, settings, model, queue)
    job.settle(result)
    return job
