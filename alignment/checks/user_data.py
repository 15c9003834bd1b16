"""A recipe or an evaluation that names a file of the user's in place of rows: its rows, built by one process for all.

Left out: ``inspect``, which reads one row of such a file and builds nothing (``cli/inspection.py``).
"""

import logging
from collections.abc import Collection
from pathlib import Path

from alignment.config.methods import METHODS
from alignment.config.recipe import Recipe
from alignment.distributed.ranks import of_rank_0
from data_builders.build.user_file import rows_of_file, user_file
from data_builders.schema import RowKind

KINDS: dict[tuple[str, ...], RowKind] = {
    ("completion",): "instruction",
    ("chosen", "rejected"): "preference",
    (): "prompt",
}
"""Which rows a method trains on, by the answers that it reads."""
logger = logging.getLogger(__name__)


def data_folder(output: str) -> Path:
    """Where the rows of a user's file are built: beside the run's folder, so that ``--fresh`` leaves them.

    >>> data_folder("runs/own/sft").as_posix()
    'runs/own/sft.data'
    """
    return Path(f"{output.rstrip('/')}.data")


def with_built_rows(recipe: Recipe) -> Recipe:
    """The recipe, its ``data.train`` naming rows; what was seen in a user's file is said in one line.

    Raises: InputError as ``rows_of_file`` does.
    """
    method = METHODS[recipe.method]
    entry = built_rows(recipe.data.train, KINDS[method.answers], method.columns, recipe.output)
    if entry == recipe.data.train:
        return recipe
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"train": entry})})


def built_rows(entry: str, kind: RowKind, columns: Collection[str], output: str, split: str = "train") -> str:
    """The entry itself where it names rows with these columns; else that of the rows made of the user's file.

    They lie beside ``output``, as the ``split`` that a card will name. What was seen is said in one line.

    Raises: InputError as ``rows_of_file`` does.
    """
    file = user_file(entry, columns)
    if file is None:
        return entry

    def built() -> str:
        rows = rows_of_file(file, kind, columns, data_folder(output), split)
        logger.warning("%s", rows.sentence)
        return rows.entry

    return of_rank_0(built)
