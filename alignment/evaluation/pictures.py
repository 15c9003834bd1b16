"""Small copies of the images that a report shows."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from alignment.metrics.answer_lines import AnswerLine
from alignment.metrics.evaluated_row import EvaluatedRow
from data_builders.imaging.images import pixels

PICTURE_PIXELS = 320


def write_pictures(rows: Sequence[EvaluatedRow], lines: Sequence[AnswerLine], folder: Path) -> None:
    """Small copies of the images that the report shows: the same ones for every model on the same rows."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.png"):
        if re.fullmatch(r"[0-9a-f]{16}", old.stem):  # as ``image_key`` names them; others are not ours
            old.unlink()
    wanted = pictured(lines)
    for row, line in zip(rows, lines, strict=True):
        if line["image"] in wanted:
            wanted.discard(line["image"])
            picture = pixels(row["images"][0]).convert("RGB")
            picture.thumbnail((PICTURE_PIXELS, PICTURE_PIXELS))
            picture.save(folder / f"{line['image']}.png")


def pictured(lines: Sequence[AnswerLine]) -> set[str]:
    """Keys of the images to show: those with box and report first, one a patient while there are patients."""
    tasks: defaultdict[str, set[str]] = defaultdict(set)
    patients: dict[str, str] = {}
    for line in lines:
        if line["image"]:
            tasks[line["image"]].add(line["task"])
            patients[line["image"]] = line["patient"]
    ranked = sorted(tasks, key=lambda key: (-len(tasks[key] & {"box", "report"}), key))
    first = set({patients[key]: key for key in reversed(ranked)}.values())
    return set(sorted(ranked, key=lambda key: key not in first)[:NUM_PICTURES])


NUM_PICTURES = 12
