"""The recipes, and the one that the shipped weights were made by."""

import json
import shlex

from dloral.data.pool import PoolConfig
from dloral.training.config import with_changes
from dloral.training.plan import ChainConfig, settings_of
from dloral.training.recipes import CHAINS, COMPACT_CPU
from dloral.weights.resolve import EMBEDDED


def test_the_cards_command_gives_the_settings_of_the_shipped_weights() -> None:
    """Whatever the recipe has become since."""
    card = (EMBEDDED["compact"] / "README.md").read_text()
    command = card[card.index("python -m dloral train compact-cpu") :].split("```")[0]
    words = shlex.split(command.replace("\\\n", ""))
    settings = [
        word
        for word in words[words.index("--set") + 1 :]
        if not word.startswith(("teacher=", "start="))
    ]
    settings.insert(0, "start=compact")  # some model: which it was is told by its SHA-256
    given = json.loads(json.dumps(settings_of(with_changes(COMPACT_CPU, settings))))
    figures = json.loads((EMBEDDED["compact"] / "card-figures.json").read_text())
    defaults = json.loads(json.dumps(settings_of(ChainConfig(pool=PoolConfig()))))
    came_later = given.keys() - figures["plan"]["settings"].keys()
    trained = {name: defaults.get(name) for name in came_later} | figures["plan"]["settings"]

    def compared(values: dict[str, object]) -> dict[str, object]:
        unused = ["teacher_sha256", "start_sha256", "shares", "blocks", "drawing", "cleaning"]
        unused += ["detail_loop."] if given.get("detail", "") is None else []
        return {name: value for name, value in values.items() if not name.startswith(tuple(unused))}

    assert compared(given) == compared(trained)


def test_the_recipes_crops_fit_their_flow_nets() -> None:
    for recipe in CHAINS.values():
        assert recipe.flow.crop % (8 << (recipe.sizes.flow_levels - 1)) == 0
