"""Rows of a Parquet file for random access: an uncompressed copy that is mapped into memory and lies beside the run.

``datasets`` keeps such copies, with every picture of every patient, in the user's home folder and never removes them.
Here a copy lies in a named folder that goes when the run is done. Rank 0 writes it, and the others read it, on whatever
node they and their own copies of the file are. What reads rows once, or a few of them, makes none.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from alignment.distributed.processes import is_main_process
from alignment.distributed.shared_folder import wait_for
from alignment.shared_prefix.reference_cache import scratch

ROWS = ".rows"
"""The copy's folder, in that of a run."""
AT_ONCE = 64
DAY_S = 86_400


def stored_rows(file: Path, folder: Path) -> Dataset:
    """The rows of ``file``, copied to ``folder`` unless they are there; ranks of a run share one copy."""
    copy = folder / f"{_name(file)}.arrow"
    if not copy.is_file():
        if is_main_process():
            _copy(file, copy)
        else:
            wait_for(copy, limit_s=DAY_S)
    return Dataset.from_file(str(copy))


def _name(file: Path) -> str:
    """By the file's size and footer, which has the size and limits of every column: the same for a copy of it."""
    with file.open("rb") as opened:
        size = opened.seek(-8, os.SEEK_END) + 8
        footer = int.from_bytes(opened.read(4), "little")
        opened.seek(size - 8 - footer)
        return hashlib.sha256(f"{size} ".encode() + opened.read()).hexdigest()[:32]


def _copy(file: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    opened, unfinished = pq.ParquetFile(file), scratch(copy)
    with pa.OSFile(str(unfinished), "wb") as sink, pa.ipc.new_stream(sink, opened.schema_arrow) as stream:
        for batch in opened.iter_batches(batch_size=AT_ONCE):
            stream.write_batch(batch)
    unfinished.replace(copy)


def forget_rows(folder: Path) -> None:
    """Removes the copies; what is mapped stays readable until it is let go of."""
    shutil.rmtree(folder, ignore_errors=True)  # a network's disk may keep a file that another rank has open


@contextlib.contextmanager
def borrowed_rows(file: Path, folder: Path) -> Generator[Any]:
    """``stored_rows`` that are gone afterwards; of several processes rank 0, which ends last, removes them."""
    try:
        yield stored_rows(file, folder)
    finally:
        if is_main_process():
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
