"""The rows that a recipe's data entry names."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from alignment.config.recipe import Recipe
from data_builders.entries import existing_file

AT_ONCE = 64
"""So many rows are held at once of a file that is read through."""


def parquet(path: str) -> Path:
    """The Parquet file that a ``data`` entry names.

    Raises: InputError if there is none, its footer is damaged, or its set is of a newer format than is known here.
    """
    from data_builders.row_checks import open_parquet

    file = existing_file(path)
    open_parquet(file).close()
    return file


def columns_of(path: str) -> list[str]:
    """Column names of a data entry, read from the file's footer."""
    import pyarrow.parquet as pq

    return pq.read_schema(parquet(path)).names


def rows_at(file: Path, indices: Sequence[int], columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows at these indices, in their order, images as files; of the others no more is held than one batch.

    ``columns``: only these (None: all). What is not asked for is not read: neither columns nor groups of rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    opened, wanted, found, first = pq.ParquetFile(file), set(indices), dict[int, dict[str, Any]](), 0
    names = None if columns is None else list(columns)
    for group in range(opened.num_row_groups):
        last = first + opened.metadata.row_group(group).num_rows
        if not wanted.isdisjoint(range(first, last)):
            for batch in opened.iter_batches(batch_size=AT_ONCE, row_groups=[group], columns=names):
                kept = [k for k in range(len(batch)) if first + k in wanted]
                rows = batch.take(pa.array(kept, pa.int64())).to_pylist()
                found |= {first + k: row for k, row in zip(kept, rows, strict=True)}
                first += len(batch)
        first = last
    return [found[index] for index in indices]


@dataclass(frozen=True)
class TrainRows:
    """The rows of a file that a recipe trains on, each question about them answered once.

    ``kinds``, ``tasks`` and ``limit`` as in the section ``data``; made by ``train_rows``.
    """

    file: Path
    kinds: tuple[str, ...] | None = None
    tasks: tuple[str, ...] | None = None
    limit: int | None = None

    @cached_property
    def columns(self) -> list[str]:
        """The names of the file's columns."""
        import pyarrow.parquet as pq

        return pq.read_schema(self.file).names

    @cached_property
    def num_in_file(self) -> int:
        """All rows of the file, whether they are trained on or not."""
        import pyarrow.parquet as pq

        return pq.read_metadata(self.file).num_rows

    @cached_property
    def indices(self) -> list[int]:
        """Where in the file the rows stand that are trained on."""
        indices = list(range(self.num_in_file))
        for column, wanted in (("kind", self.kinds), ("task", self.tasks)):
            if wanted is not None:
                values = self.in_file(column)
                indices = [index for index in indices if values[index] in wanted]
        return indices[: self.limit]

    @cached_property
    def by_task(self) -> Counter[str | None]:
        """How many are of each task; None: of none, as where there is no such column."""
        if "task" not in self.columns:
            return Counter({None: len(self.indices)})
        return Counter(self.of("task"))

    def in_file(self, column: str) -> list[Any]:
        """The values of a column in all rows of the file."""
        import pyarrow.parquet as pq

        return pq.read_table(self.file, columns=[column])[column].to_pylist()

    def of(self, column: str) -> list[Any]:
        """The values of a column in the rows that are trained on."""
        values = self.in_file(column)
        return [values[index] for index in self.indices]

    def records(self, columns: list[str]) -> list[dict[str, Any]]:
        """The rows that are trained on, with these columns."""
        return rows_at(self.file, self.indices, columns)


def train_rows(recipe: Recipe) -> TrainRows:
    """The rows that a recipe trains on; the same object as long as neither the file nor what is asked of it changes.

    Raises: InputError as ``parquet`` does.
    """
    section = recipe.data
    file = parquet(section.train)
    stamp = file.stat()
    kinds, tasks = (None if asked is None else tuple(asked) for asked in (section.kinds, section.tasks))
    return _train_rows(file, (stamp.st_size, stamp.st_mtime_ns), kinds, tasks, section.limit)


@lru_cache(maxsize=4)
def _train_rows(
    file: Path, _stamp: tuple[int, int], kinds: tuple[str, ...] | None, tasks: tuple[str, ...] | None, limit: int | None
) -> TrainRows:
    return TrainRows(file, kinds, tasks, limit)
