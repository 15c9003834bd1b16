"""The columns of each kind of row as Parquet holds them.

What has names of the user's (``facts``, ``attributes``, ``regions``) is JSON text: a struct would need every name that
any row has, and ``datasets`` fills the fields of a struct that a row lacks with null.
"""

# pyarrow comes without types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

import json
from typing import Any

import pyarrow as pa

from data_builders.schema import RowKind

BLOCK = pa.struct([("type", pa.string()), ("text", pa.string())])
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.list_(BLOCK))]))
TEXTS = ("id", "patient", "study", "source", "split", "task", "facts", "rule_set", "provenance", "attributes")
IMAGES = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
ALWAYS: dict[str, pa.DataType] = {
    **{name: pa.string() for name in TEXTS},
    "images": IMAGES,
    "image_size": pa.list_(pa.list_(pa.int64())),
    "may_leave": pa.bool_(),
}
"""What rows of every kind have."""
STAGED = {"stage": pa.string(), "capability": pa.string(), "guidelines": pa.list_(pa.string())}
"""What rows of a curriculum have beside: their stage in it, not that of a disease."""
BOXES = pa.list_(pa.list_(pa.float64()))
GROUNDED = {"answer": pa.string(), "boxes": BOXES, "box_images": pa.list_(pa.int64())}
"""What instruction rows about sequences of images have beside, as prompt rows of every set do."""
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
        "target": pa.string(),
        "answer": pa.string(),
        "answers": pa.list_(pa.string()),
        "options": pa.list_(pa.string()),
        "boxes": BOXES,
        "box_grid": pa.int64(),
        "box_images": pa.list_(pa.int64()),
        "regions": pa.string(),
        "dialogue": pa.string(),
    },
}


def schema_of(kind: RowKind, *, staged: bool = False, grounded: bool = False) -> pa.Schema:
    """The Arrow schema of a row kind, with the note by which ``datasets`` decodes the images.

    ``staged``: with the columns of a curriculum, ``grounded``: of questions about sequences of images.
    """
    more = (STAGED if staged else {}) | (GROUNDED if grounded else {})
    columns = {**ALWAYS, **OWN[kind], **more}
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
    return {"dtype": {**names, pa.bool_(): "bool"}[kind], "_type": "Value"}
