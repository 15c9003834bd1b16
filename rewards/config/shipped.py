"""The recipes that come with clinalign, found in a checkout and in an installed wheel alike.

In a checkout they are the folder ``recipes/`` beside the packages; a wheel holds them as ``alignment/shipped_recipes/``
(``setup.py``), so that they take no top-level name of their own. Left out: any path that does not begin with
``recipes/``, which is where it says or nowhere.
"""

import logging
import os
from functools import cache
from pathlib import Path

RECIPES = "recipes"
ROOT = Path(__file__).parents[2]
logger = logging.getLogger(__name__)


def shipped_recipes() -> Path:
    """The folder of the recipes that come with clinalign."""
    of_wheel = ROOT / "alignment" / "shipped_recipes"
    return of_wheel if of_wheel.is_dir() else ROOT / RECIPES


def here_or_shipped(path: Path) -> Path:
    """The path itself, or the shipped file where ``recipes/...`` is not there from the working directory.

    A file of the user's own goes first, each by itself: the others are the shipped ones all the same.

    >>> here_or_shipped(Path("recipes/sft/../dpo/phantom_chest.yaml")).is_file(), here_or_shipped(Path("runs/nothing"))
    (True, PosixPath('runs/nothing'))
    """
    plain = Path(os.path.normpath(path))
    if plain.parts[:1] != (RECIPES,) or os.path.lexists(path):
        return path
    shipped = shipped_recipes().joinpath(*plain.parts[1:])
    if os.path.lexists(plain) or not shipped.exists():
        return plain
    if shipped.is_file():
        _tell_once()
    return shipped


@cache
def _tell_once() -> None:
    """Where they come from, on standard error; of several processes their launcher has told it."""
    if "RANK" not in os.environ:
        logger.warning(
            "recipes/... that are not here are read from %s; `clinalign recipes NAME` copies one to edit.",
            shipped_recipes(),
        )
