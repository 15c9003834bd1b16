"""A step takes the same rows where a run goes on under another number of ranks: accumulation makes up for them.

Order of rows, schedule and place in the epoch all count in steps, so that they stay where a step's rows do. What a
run was begun with is in the seal of its checkpoints. Left out: numbers of ranks that no division of a step fits, which
are refused. Batches by tokens are dealt out whole (``token_batches.py``): there a step is counted in batches.
"""

import logging
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from alignment.config.methods import METHODS, config_class
from alignment.config.recipe import Recipe
from alignment.distributed.processes import is_main_process
from alignment.resuming.checkpoints import MANIFEST, newest_first
from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """How the rows of a step are spread: ``size`` rows a rank at a time, ``accumulation`` times, on ``ranks`` ranks.

    ``generation``: how many such turns one generation of GRPO lasts; None for other methods.
    """

    size: int
    accumulation: int
    ranks: int
    generation: int | None = None

    def rows(self) -> int:
        """The rows of one optimizer step."""
        return self.size * self.accumulation * self.ranks

    def on(self, ranks: int) -> "Layout | None":
        """The same rows on other ranks, as many at a time as fit; None if none do.

        >>> Layout(4, 1, ranks=2).on(1)
        Layout(size=4, accumulation=2, ranks=1, generation=None)
        >>> Layout(4, 1, ranks=2).on(4)
        Layout(size=2, accumulation=1, ranks=4, generation=None)
        """
        generated = self.size * self.ranks * (self.generation or 0)
        for size in range(self.size, 0, -1):
            at_once = size * ranks
            if self.size % size == self.rows() % at_once == generated % at_once == 0:
                turns = generated // at_once if self.generation else None
                return Layout(size, self.rows() // at_once, ranks, turns)
        return None


def begun_with(checkpoints: Path) -> int | None:
    """How many ranks the run of this ``checkpoints`` folder was begun with; None before its first sealed checkpoint."""
    for checkpoint in newest_first(checkpoints):
        try:
            content = read_json(checkpoint / MANIFEST, "")
        except InputError:  # it is no whole checkpoint, which is told where one is chosen
            continue
        ranks = content.get("begun_with", content.get("processes"))
        if isinstance(ranks, int) and ranks > 0:
            return ranks
    return None


def on_ranks(recipe: Recipe, begun: int | None, ranks: int) -> Recipe:
    """The recipe as it trains on so many ranks, in memory: a step takes the rows that it took on those of its start.

    Raises: InputError where no division of a step fits; it names the numbers of ranks that do.
    """
    if begun is None or begun == ranks:
        return recipe
    before, unit = _layout(recipe, begun), "rows" if recipe.data.batch_tokens is None else "batches"
    if (now := before.on(ranks)) is None:
        fitting = [str(n) for n in range(1, before.rows() + 1) if before.on(n)]
        raise InputError(
            f"{recipe.output}: begun on {begun} processes, its step takes {before.rows()} {unit} ({before.size} x "
            f"{begun} processes x {before.accumulation} accumulated), which {ranks} cannot share alike. Start it with "
            f"{', '.join(fitting)}, or add --fresh to begin anew."
        )
    if recipe.trainer.get("dataloader_drop_last"):
        raise InputError(
            f"{recipe.output}: begun on {begun} processes, and this run has {ranks}: which rows the last batch of an "
            f"epoch leaves out (trainer.dataloader_drop_last) would change. Start it with {begun}, or add --fresh."
        )
    changed: dict[str, Any] = {"gradient_accumulation_steps": now.accumulation}
    if now.size != before.size:
        changed["per_device_train_batch_size"] = now.size
    if recipe.trainer.get("steps_per_generation") is not None:
        changed["steps_per_generation"] = now.generation
    if is_main_process():
        logger.warning("%s: begun on %d processes; for the same rows a step: %s", recipe.output, begun, changed)
    return recipe.model_copy(update={"trainer": {**recipe.trainer, **changed}})


def _layout(recipe: Recipe, ranks: int) -> Layout:
    """The layout that a recipe means on so many ranks."""
    size = 1 if recipe.data.batch_tokens is not None else _setting(recipe, "per_device_train_batch_size")
    accumulation = _setting(recipe, "gradient_accumulation_steps")
    if not METHODS[recipe.method].generates:
        return Layout(size, accumulation, ranks)
    if rows := recipe.trainer.get("generation_batch_size"):
        return Layout(size, accumulation, ranks, rows // (size * ranks))
    return Layout(size, accumulation, ranks, recipe.trainer.get("steps_per_generation") or accumulation)


def _setting(recipe: Recipe, name: str) -> int:
    default = next(field.default for field in fields(config_class(recipe.method)) if field.name == name)
    return int(recipe.trainer.get(name, default))
