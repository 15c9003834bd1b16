"""A recipe that names a file of the user's in place of rows: its rows, built beside the run by one process for all.

Left out: ``inspect``, which reads one row of such a file and builds nothing (``cli/inspection.py``).
"""

import logging
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
    file = user_file(recipe.data.train, method.columns)
    if file is None:
        return recipe

    def built() -> str:
        rows = rows_of_file(file, KINDS[method.answers], method.columns, data_folder(recipe.output))
        logger.warning("%s", rows.sentence)
        return rows.entry

    data = recipe.data.model_copy(update={"train": of_rank_0(built)})
    return recipe.model_copy(update={"data": data})
