"""A page to look at: images with their boxes, chosen and rejected side by side. Self-contained, everything escaped."""

import base64
import json
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from data_builders.schema import message_text

NUM_SHOWN = 12
COLOURS = ("#2e9e5b", "#d9772b", "#3b6fd4", "#b03a8c", "#8a7a12", "#3aa6b0")


def write_gallery(folder: Path) -> Path:
    """Writes ``gallery.html`` of a built data set from its Parquet files and ``card.json``."""
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    sections = [_section(file, card) for file in sorted(folder.glob("*/*.parquet"))]
    environment = Environment(
        loader=PackageLoader("data_builders", "."),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
    )
    page = environment.get_template("gallery.html.j2").render(name=folder.name, card=card, sections=sections)
    out = folder / "gallery.html"
    out.write_text(page, encoding="utf-8")
    return out


def _section(file: Path, card: dict[str, Any]) -> dict[str, Any]:
    first = next(pq.ParquetFile(file).iter_batches(batch_size=NUM_SHOWN * 8)).to_pylist()
    seen: set[str] = set()
    rows = [
        r
        for r in first
        if not (r["images"][0]["path"] + r["task"] in seen or seen.add(r["images"][0]["path"] + r["task"]))
    ]
    return {
        "title": f"{file.parent.name} / {file.stem}",
        "rows": [_shown(r, card["spec"]["box_grid"]) for r in rows[:NUM_SHOWN]],
    }


def _shown(row: dict[str, Any], grid: int) -> dict[str, Any]:
    findings = json.loads(row["facts"])["findings"]
    boxes = [(name, box) for name, finding in findings.items() for box in finding.get("boxes", [])]
    chosen, rejected = (message_text(row[k]) if row.get(k) else "" for k in ("chosen", "rejected"))
    return {
        "id": row["id"],
        "image": base64.b64encode(row["images"][0]["bytes"]).decode(),
        "boxes": [
            {
                "name": name,
                "x": b[0],
                "y": b[1],
                "w": b[2] - b[0],
                "h": b[3] - b[1],
                "colour": COLOURS[k % len(COLOURS)],
            }
            for k, (name, b) in enumerate(boxes)
        ],
        "grid": grid,
        "question": message_text(row["prompt"]),
        "answer": message_text(row["completion"]) if row.get("completion") else row.get("answer") or "",
        "chosen": _marked(chosen, rejected),
        "rejected": _marked(rejected, chosen),
        "weight": row.get("weight"),
        "kind": row.get("kind"),
        "note": json.loads(row["provenance"]).get("flaw") or json.loads(row["provenance"]).get("corrupted") or "",
    }


def _marked(text: str, other: str) -> list[tuple[str, bool]]:
    """The words of ``text``, each with whether it differs from ``other``."""
    words, others = text.split(), other.split()
    same = {
        k
        for block in SequenceMatcher(None, words, others).get_matching_blocks()
        for k in range(block.a, block.a + block.size)
    }
    return [(word, k not in same) for k, word in enumerate(words)]
