"""Parquet of rows that another program wrote, in the house's form: messages of blocks, images known as such.

Every other column stays as it is. So that training, ``check`` and ``inspect`` see the same row: TRL reads contents that
are texts and puts images in front of them, and a file without the notes of ``datasets`` holds images as bare structs.
Left out: rows of a form of their own (``user_file.py`` builds those).
"""

# pyarrow comes without types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

import json
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_builders.formats.messages import (
    MEDIA,
    behind_system,
    messages_of,
    refuse_second_answer,
    refuse_unread,
    refuse_unwanted,
    with_images,
)
from data_builders.formats.record_images import IMAGE_KEYS, RecordError, image_bytes, record_images
from data_builders.formats.records import features_of
from data_builders.locks import only_one
from data_builders.output_folders import unfinished
from data_builders.row_checks import open_parquet
from data_builders.row_schema import IMAGES, MESSAGES
from rewards.config.input_error import InputError

ROLES = {"prompt": "user", "completion": "assistant", "chosen": "assistant", "rejected": "assistant"}
"""Whose words a text in such a column is."""
IMAGE_COLUMNS = ("images", "rejected_images", "mirror_images")
AT_ONCE = 64
Row = dict[str, Any]


def holds_messages(schema: pa.Schema, columns: Collection[str]) -> bool:
    """Whether a file has these columns, but perhaps for the images, each of texts or of messages."""
    return {*columns} - {"images"} <= {*schema.names}


def is_of_house(schema: pa.Schema) -> bool:
    """Whether messages are of blocks, and images are noted as images."""
    texts = [schema.field(name).type for name in ROLES if name in schema.names]
    features = features_of(schema)
    images = [features.get(name) for name in ("images", "rejected_images") if name in schema.names]
    are_noted = all("Image" in json.dumps(feature) for feature in images)
    has_all = "images" in schema.names and "system" not in schema.names
    return has_all and are_noted and all(map(_is_of_blocks, texts))


def _is_of_blocks(kind: pa.DataType) -> bool:
    if not pa.types.is_list(kind) or not pa.types.is_struct(kind.value_type):
        return False
    index = kind.value_type.get_field_index("content")
    return index >= 0 and pa.types.is_list(kind.value_type.field(index).type)


def write_rows(file: Path, out: Path) -> None:
    """Writes the rows of ``file`` in the house's form to ``out``; image paths start in the folder of ``file``.

    Raises: InputError that names the first row that cannot be read.
    """
    schema = _house_schema(open_parquet(file).schema_arrow)
    out.parent.mkdir(parents=True, exist_ok=True)
    grown, rows = unfinished(out), house_rows(file)
    with only_one(out):
        with pq.ParquetWriter(grown, schema, compression="zstd") as writer:
            while some := list(islice(rows, AT_ONCE)):
                writer.write_table(pa.Table.from_pylist(some, schema=schema))
        grown.replace(out)


def house_rows(file: Path) -> Iterator[Row]:
    """Each row of a file in the house's form, all its other columns as they are.

    Raises: InputError that names the first row that cannot be read.
    """
    index = 0
    for batch in open_parquet(file).iter_batches(AT_ONCE):
        for row in batch.to_pylist():
            try:
                yield row | house_row(row, file.parent)
            except RecordError as fault:
                raise InputError(f"{file}: row {row.get('id', index)}: {fault}. Mend it, or leave it out.") from None
            index += 1


def _house_schema(schema: pa.Schema) -> pa.Schema:
    names = [name for name in schema.names if name not in IMAGE_KEYS or name == "images"]
    kinds = {name: schema.field(name).type for name in names} | ({} if "images" in names else {"images": IMAGES})
    kinds |= dict.fromkeys((name for name in kinds if name in ROLES), MESSAGES)
    kinds |= dict.fromkeys((name for name in kinds if name in IMAGE_COLUMNS), IMAGES)
    notes = features_of(schema)
    noted = {name: notes[name] for name in names if name in notes and kinds[name] == schema.field(name).type}
    noted |= {k: {"feature": {"_type": "Image"}, "_type": "List"} for k, v in kinds.items() if v == IMAGES}
    return pa.schema(list(kinds.items()), metadata={"huggingface": json.dumps({"info": {"features": noted}})})


def house_row(row: Row, root: Path) -> Row:
    """The columns of a row that change: its messages, its images.

    Raises: RecordError as ``messages_of`` and ``with_images`` do.
    """
    given = {name: messages_of(row[name], role, name) for name, role in ROLES.items() if row.get(name) is not None}
    refuse_unread(row, MEDIA)
    refuse_unwanted(row)
    if "prompt" in given:
        refuse_second_answer(given["prompt"], row)
        given["prompt"] = behind_system(given["prompt"], row)
    shown = [name for name in ("prompt", "completion") if name in given]
    seen = with_images([message for name in shown for message in given[name]], record_images(row))
    start = 0
    for name in shown:
        end = start + len(given[name])
        given[name], start = seen.messages[start:end], end
    more = {name: record_images({"images": row[name]}) for name in IMAGE_COLUMNS[1:] if row.get(name)}
    images = {"images": seen.images, **more}
    stored = {k: [{"bytes": image_bytes(one, root), "path": one.name or None} for one in v] for k, v in images.items()}
    return {**given, **stored}
