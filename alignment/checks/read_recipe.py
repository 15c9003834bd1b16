"""A recipe out of its file, with every fault of it at once.

The ``trainer`` section is judged by TRL's own config, and TRL takes seconds to load: it is looked at last, once nothing
else is wrong.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from alignment.config.recipe import Recipe
from rewards.config.input_error import InputError
from rewards.config.overrides import Override, with_overrides
from rewards.config.strict_yaml import located_lines, read_yaml
from rewards.config.yaml_lines import Written, named_place

TRAINER_IS_NEXT = "the section 'trainer' is looked at next, once these are mended."


@dataclass(frozen=True)
class _Reading:
    """A recipe's file as it is asked for: its content after overrides, and what is read of that.

    ``recipe``: None where its form is wrong, of which ``faults`` tell, each with its line.
    """

    source: Written
    content: dict[str, Any]
    recipe: Recipe | None
    faults: list[str]


def read_recipe(path: Path | str, overrides: Sequence[Override] = ()) -> Recipe:
    """The recipe in a file, after overrides; where ``data.train`` names a file of the user's, with the rows of that.

    Raises: InputError that lists every fault of the file and the data at once, each with its line; once there are none,
    every fault of the trainer section and of what does not go with it.
    """
    reading = _reading_of(Path(path), overrides)
    recipe, beyond = (None, []) if reading.recipe is None else _with_rows(reading.recipe)
    _refuse([reading], beyond or ([] if recipe is None else _faults_beyond_form(recipe)))
    assert recipe is not None  # its form has no faults
    return recipe


def _with_rows(recipe: Recipe) -> tuple[Recipe | None, list[str]]:
    """The recipe with the rows of the user's file that it names, if it names one, or why that makes none."""
    from alignment.checks.user_data import with_built_rows

    try:
        return with_built_rows(recipe), []
    except InputError as fault:
        return None, [f"data.train: {line}" for line in str(fault).splitlines()]


def check_shapes(recipes: Iterable[tuple[Path, Sequence[Override]]]) -> None:
    """Checks recipes with their overrides, as far as that can be before their data and models are made.

    Raises: InputError with the faults of all: of the form; once there are none, of the trainer sections with their
    DeepSpeed files.
    """
    _refuse([_reading_of(path, overrides) for path, overrides in recipes])


def _reading_of(path: Path, overrides: Sequence[Override]) -> _Reading:
    content = with_overrides(read_yaml(path), overrides)
    source = Written(path, overrides)
    try:
        return _Reading(source, content, Recipe.model_validate(content), [])
    except ValidationError as invalid:
        return _Reading(source, content, None, located_lines(Recipe, invalid, source))


def _faults_beyond_form(recipe: Recipe) -> list[str]:
    """What is wrong with the data, the rewards and their units, and what does not go together."""
    from alignment.checks.compatibility import incompatibilities
    from alignment.checks.dialogue_faults import dialogue_faults
    from alignment.checks.faults import data_faults, reward_faults, sampling_faults, unused_faults
    from alignment.checks.honest_answers import honesty_faults

    faults = [*data_faults(recipe), *sampling_faults(recipe), *reward_faults(recipe), *dialogue_faults(recipe)]
    faults += [*unused_faults(recipe), *incompatibilities(recipe)]
    return faults or honesty_faults(recipe)


def _refuse(recipes: Sequence[_Reading], beyond: Sequence[str] = ()) -> None:
    """Raises: InputError with all faults; those of trainer sections alone, where there are no others."""
    from alignment.checks.faults import trainer_faults

    outside = [fault for fault in beyond if named_place(fault)[:1] != ("trainer",)]
    first = [line for reading in recipes for line in _lines(reading, outside)]
    faults = first or [
        reading.source.located(fault) for reading in recipes for fault in [*trainer_faults(reading.content), *beyond]
    ]
    if faults:
        raise InputError("\n".join(dict.fromkeys(faults)))  # several stages may share a file


def _lines(reading: _Reading, beyond: Sequence[str]) -> list[str]:
    """Each fault with its place in the file, and whether there is more to be looked at."""
    located = [*reading.faults, *map(reading.source.located, beyond)]
    is_all = not located or not reading.content.get("trainer")
    return located if is_all else [*located, f"{reading.source.path}: {TRAINER_IS_NEXT}"]
