"""A run from Python: what the command ``train`` does, for a recipe that was read or a file."""

from collections.abc import Iterable
from pathlib import Path

from alignment.config.recipe import Recipe
from rewards.config.input_error import InputError


def train(recipe: Recipe | Path | str, overrides: Iterable[str] = (), *, fresh: bool = False) -> Path:
    """The folder of the trained run; of a chain, that of its last stage. What is finished is left as it is.

    Args:
        recipe: as it was read, or its file.
        overrides: ``key=value``, for a recipe in a file.
        fresh: replaces the run that is there.

    Raises: InputError with every fault of the recipe, and for a folder that holds something else.
    """
    from alignment.training.chains import run_file
    from alignment.training.run import run

    changes = list(overrides)
    if not isinstance(recipe, Recipe):
        return run_file(Path(recipe), changes, fresh=fresh)[-1]
    if changes:
        raise InputError(f"train: overrides are for a recipe in a file, got {changes[0]!r}; read it with them.")
    return run(recipe, fresh=fresh)
