"""The audit of a recipe: rows sampled, rewards asked, a page written."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from alignment.audit.findings import Audit, audited
from alignment.config.data_entries import train_rows
from alignment.config.recipe import Recipe
from alignment.reward_functions.combined import gated_rewards
from alignment.reward_functions.sampled_rows import sampled_rows
from alignment.reward_functions.scorer import Scorer
from rewards.config.input_error import InputError


def audit(
    recipe: Recipe, *, name: str, limit: int = 200, seed: int = 0, page: Path | None = None, listed: Sequence[str] = ()
) -> Audit:
    """Attacks the rewards of a recipe on at most ``limit`` of the rows that it trains on, tasks mixed evenly.

    Writes the ``page``. ``listed``: the attacks that are known to win.

    Raises: InputError if the recipe has no rewards, or no row of its data can be used.
    """
    from alignment.audit.page import write_audit

    if not recipe.rewards:
        raise InputError(f"{name}: the recipe names no rewards, so there is nothing to audit.")
    train = train_rows(recipe)
    scorer = Scorer(*gated_rewards(recipe), space=recipe.data.box_space)
    shown = any("images" in function.reward.columns for function in scorer.functions)
    needed = ("dialogue",) if recipe.dialogue else ("facts", "answer")
    rows = sampled_rows(train.file, limit=limit, seed=seed, images=shown, indices=train.indices, needed=needed)
    if recipe.data.box_space == "processed":
        rows = [row | {"processed_size": row.get("image_size")} for row in rows]
    found = replace(audited(scorer, rows, name=name, seed=seed), listed=tuple(listed))
    if page is not None:
        write_audit(found, scorer, rows, file=train.file, out=page)
    return found
