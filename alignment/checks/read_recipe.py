"""A recipe out of its file, with every fault of it at once."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from alignment.config.recipe import Recipe
from rewards.config.input_error import InputError
from rewards.config.overrides import Override, with_overrides
from rewards.config.strict_yaml import fault_lines, read_yaml


def read_recipe(path: Path | str, overrides: Sequence[Override] = ()) -> Recipe:
    """The recipe in a file, after overrides.

    Raises: InputError that lists every fault of the file, the data and the trainer section at once.
    """
    from alignment.checks.compatibility import incompatibilities
    from alignment.checks.dialogue_faults import dialogue_faults
    from alignment.checks.faults import data_faults, reward_faults, sampling_faults, unused_faults
    from alignment.checks.honest_answers import honesty_faults

    recipe, faults = _shape(Path(path), overrides)
    if recipe is not None:
        faults += [*data_faults(recipe), *sampling_faults(recipe), *reward_faults(recipe), *dialogue_faults(recipe)]
        faults += [*unused_faults(recipe), *incompatibilities(recipe)]
        faults += [] if faults else honesty_faults(recipe)
    if faults or recipe is None:
        raise InputError("\n".join(f"{path}: {fault}" for fault in faults))
    return recipe


def check_shapes(recipes: Iterable[tuple[Path, Sequence[Override]]]) -> None:
    """Checks recipes with their overrides, as far as that can be before their data and models are made.

    Raises: InputError with the faults of all: of the form, and of the trainer section with its DeepSpeed file.
    """
    faults = [f"{path}: {fault}" for path, overrides in recipes for fault in _shape(path, overrides)[1]]
    if faults:
        raise InputError("\n".join(dict.fromkeys(faults)))  # several stages may share a file


def _shape(path: Path, overrides: Sequence[Override]) -> tuple[Recipe | None, list[str]]:
    """The recipe (None where its form is wrong), and the faults that are seen without its data."""
    from alignment.checks.faults import trainer_faults

    content = with_overrides(read_yaml(path), overrides)
    faults = trainer_faults(content)
    try:
        return Recipe.model_validate(content), faults
    except ValidationError as invalid:
        return None, [*fault_lines(Recipe, invalid), *faults]
