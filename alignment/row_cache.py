"""Rows of a Parquet file for random access: an uncompressed copy that is mapped into memory and lies beside the run.

``datasets`` keeps such copies, with every picture of every patient, in the user's home folder and never removes them.
Here ``from_parquet`` is called in one place, with a named folder that goes when the run is done. What reads rows once,
or a few of them, makes no copy.
"""

import contextlib
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

ROWS = ".rows"
"""The copy's folder, in that of a run."""
AT_ONCE = 64


def stored_rows(file: Path, folder: Path) -> Dataset:
    """The rows of ``file``, copied to ``folder`` unless they are there; ranks of a run share one copy."""
    return Dataset.from_parquet(str(file), cache_dir=str(folder))  # pyright: ignore[reportReturnType]


def forget_rows(folder: Path) -> None:
    """Removes the copies; what is mapped stays readable until it is let go of."""
    shutil.rmtree(folder, ignore_errors=True)  # a network's disk may keep a file that another rank has open


@contextlib.contextmanager
def borrowed_rows(file: Path, folder: Path) -> Generator[Any]:
    """``stored_rows`` that are gone afterwards."""
    try:
        yield stored_rows(file, folder)
    finally:
        forget_rows(folder)


def read_once(file: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Each row in turn, its images as files; no more than a few rows are held."""
    for batch in pq.ParquetFile(file).iter_batches(batch_size=AT_ONCE, columns=columns):
        yield from batch.to_pylist()


def few_rows(file: Path, start: int, count: int) -> Dataset:
    """Rows ``start`` to ``start + count`` (or the last), held in memory, as ``stored_rows`` would give them."""
    opened, first, found = pq.ParquetFile(file), 0, list[pa.RecordBatch]()
    for batch in opened.iter_batches(batch_size=AT_ONCE):
        low, high = max(start, first), min(start + count, first + len(batch))
        if low < high:
            found.append(batch.slice(low - first, high - low))
        first += len(batch)
        if first >= start + count:
            break
    return Dataset(pa.Table.from_batches(found, schema=opened.schema_arrow))  # pyright: ignore[reportArgumentType]
