"""The audit as a self-contained HTML page: tables, and pictures of the attacks on boxes. All text is escaped."""

import base64
import random
from pathlib import Path
from typing import Any

from alignment.audit.findings import Audit
from alignment.reward_functions.sampled_rows import prompt_row
from alignment.reward_functions.scorer import Scorer
from rewards.attacks.attacks import ATTACKS, Attack, PromptRow, imperfect
from rewards.boxes.coordinate_space import Units, whole
from rewards.boxes.geometry import parse_boxes
from rewards.config.templates import template

NUM_PICTURES = 3
SHOWN = ("whole image", "central box", "box spam", "edge touching (knows the truth)")


def write_audit(audit: Audit, scorer: Scorer, rows: list[dict[str, Any]], *, file: Path, out: Path) -> Path:
    """Writes the page to ``out``; ``file`` holds the rows' images."""
    boxed = [row for row in rows if row.get("boxes")][:NUM_PICTURES]
    images = images_of(file, [row["id"] for row in boxed])
    pictures = [_picture(row, scorer, images[row["id"]]) for row in boxed if row["id"] in images]
    page = template("audit.html.j2", beside=__file__).render(audit=audit, pictures=pictures, figure=_figure)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    return out


def _figure(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:.3f}"


def images_of(file: Path, ids: list[str]) -> dict[str, bytes]:
    """The first image of each row, as the bytes in the file."""
    import pyarrow.parquet as pq

    table = pq.read_table(file, columns=["id", "images"], filters=[("id", "in", ids)]) if ids else None
    rows = table.to_pylist() if table is not None else []
    return {row["id"]: row["images"][0]["bytes"] for row in rows if row["images"]}


def _picture(row: dict[str, Any], scorer: Scorer, image: bytes) -> dict[str, Any]:
    prompt = prompt_row(row)
    policies: dict[str, Attack] = {"imperfect": imperfect, **{name: ATTACKS[name] for name in SHOWN}}
    return {
        "id": row["id"],
        "question": prompt.question,
        "extent": Units.of(row).extent() or (prompt.grid, prompt.grid),
        "image": f"data:image/png;base64,{base64.b64encode(image).decode()}",
        "true": [whole(box) for box in row["boxes"]],
        "answers": [_shown(name, policy, prompt, row, scorer) for name, policy in policies.items()],
    }


def _shown(name: str, policy: Attack, prompt: PromptRow, row: dict[str, Any], scorer: Scorer) -> dict[str, Any]:
    response = policy(prompt, random.Random(0))
    score = float(scorer.totals(scorer.table([response], [row]))[0])
    return {"name": name, "boxes": parse_boxes(response) or [], "score": score}
