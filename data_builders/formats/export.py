"""A built set of preference pairs in the shape of another trainer: a file of pairs and a folder of images."""

# pyarrow comes without types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import hashlib
from pathlib import Path
from typing import Any

from data_builders.cards import card_of_rows
from data_builders.formats.pairs import Pair, survey, words_of
from data_builders.formats.preference_formats import FORMATS, Format
from data_builders.formats.preference_writing import LISTS, write_pairs
from data_builders.formats.record_images import RecordImage
from data_builders.locks import only_one
from data_builders.output_folders import check_writable, new_folder
from data_builders.row_checks import Check, check_rows, open_parquet
from data_builders.schema import message_text
from rewards.config.input_error import InputError, nearest

COLUMNS = ("id", "images", "rejected_images", "prompt", "chosen", "rejected", "weight", "relevance", "patient")
OPTIONAL = ("rejected_images", "relevance", "patient")


def export(data: Path, shape: str, out: Path) -> dict[str, Any]:
    """Writes ``out/pairs.json`` (or ``.jsonl``) and ``out/images``; returns where they are and what is weak in them.

    Image paths in the file start in ``out/images``.

    Raises: InputError if the shape is unknown, the data are no preference rows, or ``out`` holds files already.
    """
    if shape not in FORMATS:
        raise InputError(f"export: no format '{shape}'.{nearest(shape, list(FORMATS))} Known: {', '.join(FORMATS)}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"export: {out} is there already; name a new folder.")
    check_writable(out)
    rows = open_parquet(data)
    missing = [name for name in COLUMNS if name not in (*rows.schema_arrow.names, *OPTIONAL)]
    if missing:
        raise InputError(f"export: {data} holds no preference rows: no column {', '.join(missing)}.")
    check_rows(data, Check(("id", "images", "prompt", "chosen", "rejected"), blocks=True))
    unknown = (card_of_rows(data) or {}).get("patients") == "unknown"
    wanted = [n for n in COLUMNS if n in rows.schema_arrow.names and not (n == "patient" and unknown)]
    kept: Format = next(known for known in FORMATS if known == shape)
    name = "pairs.json" if kept in LISTS else "pairs.jsonl"
    with only_one(out), new_folder(out) as grown:
        images = grown / "images"
        images.mkdir()
        pairs = [_pair(row, images) for batch in rows.iter_batches(64, columns=wanted) for row in batch.to_pylist()]
        write_pairs(pairs, grown / name, kept)
    return {"exported": str(out / name), "images": str(out / "images"), "survey": survey(pairs)}


def _pair(row: dict[str, Any], folder: Path) -> Pair:
    question, turns = words_of(row["prompt"], len(row["images"]))
    for side in ("chosen", "rejected"):
        if len(row[side]) != 1:
            raise InputError(f"export: row {row['id']}: '{side}' holds {len(row[side])} turns; these formats take one.")
    return Pair(
        id=row["id"],
        images=_saved(row["images"], folder),
        question=question,
        chosen=message_text(row["chosen"]),
        rejected=message_text(row["rejected"]),
        weight=row["weight"],
        relevance=row.get("relevance"),
        rejected_images=_saved(row.get("rejected_images") or [], folder),
        turns=turns,
        patient=row.get("patient"),
    )


def _saved(images: list[dict[str, Any]], folder: Path) -> tuple[RecordImage, ...]:
    """The images by name, each written once: equal pixels have one file."""
    names: list[str] = []
    for image in images:
        content = image["bytes"] or Path(image["path"]).read_bytes()
        name = f"{hashlib.sha256(content).hexdigest()[:20]}.png"
        if not (folder / name).exists():
            (folder / name).write_bytes(content)
        names.append(name)
    return tuple(map(RecordImage, names))
