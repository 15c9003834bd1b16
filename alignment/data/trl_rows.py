"""Rows in TRL's own columns as our trainers read them: which columns there must be, and a ``weight``.

Left out: tokens of rows without images, which TRL makes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset, IterableDataset

from rewards.config.input_error import InputError, nearest

Rows = Dataset | IterableDataset


def weight_of(row: Mapping[str, Any]) -> float:
    """The row's ``weight``; 1 in rows without this column.

    Raises: InputError where it is no finite number of at least 0.
    """
    weight = row.get("weight", 1.0)
    if isinstance(weight, int | float) and math.isfinite(weight) and weight >= 0:
        return float(weight)
    name = f"row '{row['id']}'" if "id" in row else "a row"
    raise InputError(
        f"weight: {name} has {weight!r}; every row needs a number of 0 or more. Fill it in, or leave the column out "
        "for plain DPO."
    )


def check_columns(data: object, needed: Sequence[str], why: str) -> None:
    """Raises InputError that names the first of these columns that is not there. ``why``: who needs it."""
    names = getattr(data, "column_names", None)
    if not isinstance(names, list):  # a stream may not know them, and what is no data set TRL refuses by itself
        return
    if missing := [name for name in needed if name not in names]:
        raise InputError(
            f"train_dataset: no column '{missing[0]}', which {why}.{nearest(missing[0], names)} It has "
            f"{', '.join(names)}. Rename one (Dataset.rename_column) or add it (Dataset.add_column)."
        )
