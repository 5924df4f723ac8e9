"""What the routes, the API and the page share: visitors, model, queue, limits, examples."""

from dataclasses import dataclass
from pathlib import Path

from dloral.studio.limits import Limits
from dloral.studio.models import Models
from dloral.studio.runtime import JobQueue, Model
from dloral.studio.sessions import Sessions


@dataclass(frozen=True)
class Studio:
    """Everything that exists once, however many visitors come."""

    sessions: Sessions
    models: Models
    queue: JobQueue
    limits: Limits
    examples: dict[str, Path]

    @property
    def model(self) -> Model:
        """The one that previews and new jobs use at this moment."""
        return self.models.current
