"""The Parquet files of a built data set, ``KIND/SPLIT.parquet``, in TRL's columns and ours."""

# pyarrow comes without types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_builders.schema import RowKind

BLOCK = pa.struct([("type", pa.string()), ("text", pa.string())])
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.list_(BLOCK))]))
ALWAYS = ("id", "patient", "study", "source", "split", "task", "facts", "rule_set", "provenance")
IMAGES = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
STAGED = {"stage": pa.string(), "capability": pa.string(), "guidelines": pa.list_(pa.string())}
"""What rows of a curriculum have beside: their stage in it, not that of a disease."""
OWN: dict[RowKind, dict[str, pa.DataType]] = {
    "instruction": {"prompt": MESSAGES, "completion": MESSAGES, "dialogue": pa.string()},
    "preference": {
        "rejected_images": IMAGES,
        "prompt": MESSAGES,
        "chosen": MESSAGES,
        "rejected": MESSAGES,
        "relevance": pa.float64(),
        "weight": pa.float64(),
        "kind": pa.string(),
    },
    "prompt": {
        "prompt": MESSAGES,
        "answer": pa.string(),
        "boxes": pa.list_(pa.list_(pa.int64())),
        "target": pa.string(),
        "box_grid": pa.int64(),
        "image_size": pa.list_(pa.list_(pa.int64())),
        "dialogue": pa.string(),
    },
}
ROWS_A_GROUP = 512
BYTES_A_GROUP = 2**26
Row = dict[str, Any]


class RowFiles:
    """One Parquet file for each kind and split, opened at its first row. Rows of one image stay together."""

    def __init__(self, folder: Path, *, staged: bool = False) -> None:
        self.folder, self.staged = folder, staged
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
        schema = schema_of(kind, staged=self.staged)
        if key not in self.files:
            path = self.folder / kind / f"{split}.parquet"
            path.parent.mkdir(exist_ok=True)
            self.files[key] = pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=True)
        self.files[key].write_table(pa.Table.from_pylist(self.waiting[key], schema=schema))
        self.waiting[key] = []


def schema_of(kind: RowKind, *, staged: bool = False) -> pa.Schema:
    """The Arrow schema of a row kind, with the note by which ``datasets`` decodes the images.

    ``staged``: with the columns of a curriculum.
    """
    columns = {**{name: pa.string() for name in ALWAYS}, "images": IMAGES, **OWN[kind], **(STAGED if staged else {})}
    features = {name: _feature(column) for name, column in columns.items()}
    features |= {k: {"feature": {"_type": "Image"}, "_type": "List"} for k, v in columns.items() if v == IMAGES}
    return pa.schema(list(columns.items()), metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _feature(kind: pa.DataType) -> Any:
    """An Arrow type in the terms of ``datasets.Features``."""
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    names = {pa.string(): "string", pa.float64(): "float64", pa.int64(): "int64", pa.binary(): "binary"}
    return {"dtype": names[kind], "_type": "Value"}
