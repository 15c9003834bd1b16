"""The Parquet files of a built data set, ``KIND/SPLIT.parquet``, in TRL's columns and ours."""

# pyarrow comes without types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_builders.row_schema import schema_of
from data_builders.schema import RowKind

ROWS_A_GROUP = 512
BYTES_A_GROUP = 2**26
Row = dict[str, Any]


class RowFiles:
    """One Parquet file for each kind and split, opened at its first row. Rows of one image stay together."""

    def __init__(self, folder: Path, *, staged: bool = False, grounded: bool = False) -> None:
        self.folder, self.more = folder, {"staged": staged, "grounded": grounded}
        self.files: dict[tuple[RowKind, str], pq.ParquetWriter] = {}
        self.waiting: dict[tuple[RowKind, str], list[Row]] = {}

    def __enter__(self) -> "RowFiles":
        return self

    def __exit__(self, fault: object, *_: object) -> None:
        for key in self.waiting if fault is None else ():
            self._flush(key)
        for file in self.files.values():
            file.close()

    def write(self, kind: RowKind, split: str, row: Row) -> None:
        """Adds a row; a full group goes to disk."""
        rows = self.waiting.setdefault((kind, split), [])
        rows.append(row)
        # Rows of one image are alike in size, so the last one stands for all.
        pictures = [*row["images"], *(row.get("rejected_images") or [])]
        num_bytes = len(rows) * sum(len(image["bytes"]) for image in pictures)
        if len(rows) >= ROWS_A_GROUP or num_bytes >= BYTES_A_GROUP:
            self._flush((kind, split))

    def _flush(self, key: tuple[RowKind, str]) -> None:
        kind, split = key
        if not self.waiting[key]:
            return
        schema = schema_of(kind, **self.more)
        if key not in self.files:
            path = self.folder / kind / f"{split}.parquet"
            path.parent.mkdir(exist_ok=True)
            self.files[key] = pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=True)
        self.files[key].write_table(pa.Table.from_pylist(self.waiting[key], schema=schema))
        self.waiting[key] = []
