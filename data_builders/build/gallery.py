"""A page to look at: images with boxes, chosen and rejected side by side. Self-contained, everything escaped."""

# pyarrow comes without types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import base64
from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data_builders.cards import read_card
from data_builders.dialogues.writer import transcript
from data_builders.schema import message_text, provenance_of
from rewards.boxes.geometry import parse_boxes
from rewards.config.templates import template
from rewards.dialogues.dialogue import read_dialogue
from rewards.rules.facts import Box, Facts

NUM_IMAGES = 24
ROWS_AN_IMAGE = 12
COLOURS = ("#2fbf71", "#ff9f43", "#5aa9ff", "#f06ac0", "#e6d03a", "#4cd3d9")
"""One a finding, in the order of the rows' facts; all stand out on grey."""
COMPARED = 300
Row = dict[str, Any]


def write_gallery(folder: Path) -> Path:
    """Writes ``gallery.html`` of a built data set from its Parquet files and ``card.json``."""
    card = read_card(folder)
    files = sorted(folder.glob("*/*.parquet"))
    num_images = max(2, NUM_IMAGES // max(1, len(files)))
    sections = [_section(file, num_images, card["spec"]["box_grid"]) for file in files]
    name = Path(card["spec"]["output"]).name  # the folder itself has another name until it is whole
    page = template("gallery.html.j2", beside=__file__).render(name=name, card=card, sections=sections)
    out = folder / "gallery.html"
    out.write_text(page, encoding="utf-8")
    return out


def _section(file: Path, num_images: int, grid: int) -> dict[str, Any]:
    by_image = groupby(_rows(file), key=_image_name)
    pictures = [_picture(list(islice(rows, ROWS_AN_IMAGE)), grid) for _, rows in islice(by_image, num_images)]
    return {"kind": file.parent.name, "split": file.stem, "pictures": pictures}


def _rows(file: Path) -> Iterator[Row]:
    for batch in pq.ParquetFile(file).iter_batches(batch_size=64):
        yield from batch.to_pylist()


def _image_name(row: Row) -> str:
    return row["images"][0]["path"] if row["images"] else row["id"]


def _picture(rows: list[Row], grid: int) -> dict[str, Any]:
    """One image with its true boxes, the boxes that flawed answers state, and its rows."""
    facts = Facts.model_validate_json(rows[0]["facts"])
    colours = {name: COLOURS[k % len(COLOURS)] for k, name in enumerate(facts.findings)}
    shapes = [_shape(name, box, colours[name]) for name, f in facts.findings.items() for box in f.boxes]
    boxed = {name: colours[name] for name, f in facts.findings.items() if f.boxes}
    return {
        "name": _image_name(rows[0]),
        "patient": rows[0]["patient"],
        "images": [base64.b64encode(image["bytes"]).decode() for image in rows[0]["images"]],
        "grid": grid,
        "true_boxes": [shapes, *([] for _ in rows[0]["images"][1:])] if shapes else _boxes_by_image(rows[0]),
        "written_boxes": [_shape("", box, "#ffffff") for row in rows if _flaw(row) for box in _written(row)],
        "legend": boxed,
        "rows": [_shown(row) for row in rows],
    }


def _boxes_by_image(row: Row) -> list[list[dict[str, Any]]]:
    """The true boxes of a question about several images, on the image of each."""
    placed = list(zip(row.get("boxes") or [], row.get("box_images") or [], strict=False))
    name = row.get("target") or "true box"
    return [
        [_shape(name, (b[0], b[1], b[2], b[3]), COLOURS[0]) for b, image in placed if image == number]
        for number in range(1, len(row["images"]) + 1)
    ]


def _shape(name: str, box: Box, colour: str) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    return {"name": name, "x": x1, "y": y1, "w": x2 - x1, "h": y2 - y1, "colour": colour}


def _flaw(row: Row) -> str:
    return str(provenance_of(row).get("flaw", ""))


def _written(row: Row) -> list[Box]:
    return (parse_boxes(message_text(row["completion"])) or []) if row["task"] == "box" else []


def _shown(row: Row) -> dict[str, Any]:
    chosen, rejected = (message_text(row[key]) if row.get(key) else "" for key in ("chosen", "rejected"))
    notes = provenance_of(row)
    return {
        "id": row["id"],
        "task": row["task"],
        "question": message_text(row["prompt"]),
        "answer": _answer(row),
        "chosen": marked(chosen, rejected),
        "rejected": marked(rejected, chosen),
        "noised": [base64.b64encode(image["bytes"]).decode() for image in row.get("rejected_images") or []],
        "weight": row.get("weight"),
        "kind": row.get("kind"),
        "flaw": _flaw(row),
        "corrupted": notes.get("corrupted", ""),
        "noised_findings": ", ".join(notes.get("noised", [])),
        "noised_share": notes.get("noised_share"),
    }


def _answer(row: Row) -> str:
    if row.get("completion"):
        return message_text(row["completion"])
    if row.get("dialogue"):
        return message_text(transcript(read_dialogue(row["dialogue"]))[1:])
    return row.get("answer") or ""


def marked(text: str, other: str) -> list[tuple[str, bool]]:
    """The words of ``text``, each with whether it differs from ``other``; only the first ``COMPARED`` are marked."""
    words, others = text.split(), other.split()
    first = words[:COMPARED]  # ``SequenceMatcher`` takes the product of both lengths, and more where words recur
    blocks = SequenceMatcher(None, first, others[:COMPARED], autojunk=False).get_matching_blocks()
    same = {k for block in blocks for k in range(block.a, block.a + block.size)}
    return [(word, k < COMPARED and k not in same) for k, word in enumerate(words)]
