"""Blind controls and baselines: the same questions without the image, and answers from habit alone.

A model that does not look at the image can still answer many questions. Controls replace the image (by noise, or by
another patient's); baselines answer from what another split says. Left out: single regions (see ``blindness.py``).
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Literal

import numpy as np
from PIL import Image

from alignment.metrics.evaluated_row import EvaluatedRow
from alignment.metrics.outcomes import question_finding
from data_builders.imaging.images import image_key, pixels
from rewards.config.input_error import InputError
from rewards.rules.facts import Facts
from rewards.rules.rule_set import RuleSet, load_rule_set

Blind = Literal["noise", "shuffled"]
Response = str | list[str]
"""What was said to a row; in a dialogue, the model's turns."""
BASELINES = ("habit", "mean_box_true_side")
"""Conditions that no model answers; boxes are in the truth's units there."""
Answered = tuple[Sequence[EvaluatedRow], Sequence[Response]]


def controls_for(rows: Sequence[EvaluatedRow]) -> list[Blind]:
    """The blind controls that these rows allow: none without images, no swapping of like with like."""
    with_image = {row["facts"] for row in rows if row["images"]}
    return [] if not with_image else ["noise"] if len(with_image) < 2 else ["noise", "shuffled"]


def blinded(rows: Sequence[EvaluatedRow], blind: Blind | None, *, seed: int) -> Sequence[EvaluatedRow]:
    """The same questions with their images replaced; seeded, so every stage is shown the same replacements.

    Raises: InputError if a row has no other image to be swapped with.
    """
    if blind is None:
        return rows
    if blind == "shuffled":
        return _shuffled(rows, np.random.default_rng(seed))
    return [{**row, "images": [_noise(pixels(image), seed) for image in row["images"]]} for row in rows]


def _noise(image: Image.Image, seed: int) -> Image.Image:
    image_seed = int(image_key(image), 16)
    values = np.random.default_rng([seed, image_seed]).integers(
        0, 256, size=(image.height, image.width, 3), dtype=np.uint8
    )
    return Image.fromarray(values)


def _shuffled(rows: Sequence[EvaluatedRow], rng: np.random.Generator) -> list[EvaluatedRow]:
    facts = [Facts.model_validate_json(row["facts"]).without_boxes().to_json() for row in rows]

    def differs(n: int, m: int, *, strictly: bool) -> bool:
        same_count = len(rows[n]["images"]) == len(rows[m]["images"])
        if strictly:
            return same_count and facts[n] != facts[m] and rows[n]["patient"] != rows[m]["patient"]
        return same_count and rows[n]["facts"] != rows[m]["facts"]

    def swapped(n: int) -> EvaluatedRow:
        order = rng.permutation(len(rows))
        return {**rows[n], "images": rows[_partner(n, differs, order, rows[n])]["images"]}

    return [swapped(n) if row["images"] else row for n, row in enumerate(rows)]


def _partner(index: int, differs: Callable[..., bool], order: np.ndarray, row: EvaluatedRow) -> int:
    """Another patient's row with other findings; failing that, one whose facts differ at least in a box."""
    for strictly in (True, False):
        for other in order:
            if differs(index, int(other), strictly=strictly):
                return int(other)
    raise InputError(f"row {row['id']}: no other image with other facts to swap in. Evaluate on more images.")


def baselines(
    rows: Sequence[EvaluatedRow], reference: Sequence[EvaluatedRow], *, rules: RuleSet | None = None
) -> dict[str, Answered]:
    """Answers that need no image, from the habits of another split; rows without a habit and dialogues are left out.

    ``habit``: the commonest answer to the same question, the mean box of the finding, the commonest report.
    ``mean_box_true_side``: the mean box of the finding on the side where it truly is.
    """
    rows = [row for row in rows if row["task"] != "dialogue"]
    box_rows = [row for row in rows if row["task"] == "box"]
    found = (
        _by_habit(rows, reference, lambda row: (row["task"], _finding_of(row, rules))),
        _by_habit(box_rows, reference, lambda row: (row["task"], *_finding_and_side(row, rules))),
    )
    return dict(zip(BASELINES, found, strict=True))


def _by_habit(
    rows: Sequence[EvaluatedRow], reference: Sequence[EvaluatedRow], key: Callable[[EvaluatedRow], Hashable]
) -> Answered:
    alike: defaultdict[Hashable, list[EvaluatedRow]] = defaultdict(list)
    for row in reference:
        alike[key(row)].append(row)
    habits = {question: _habit(known) for question, known in alike.items()}
    pairs = [(row, answer) for row in rows if (answer := habits.get(key(row)))]
    return [row for row, _ in pairs], [answer for _, answer in pairs]


def _habit(rows: list[EvaluatedRow]) -> str | None:
    if rows[0]["task"] == "box":
        boxes = [box for row in rows for box in row["boxes"] or []]
        return json.dumps([np.rint(np.mean(boxes, axis=0)).astype(int).tolist()]) if boxes else None
    answers = Counter(row["answer"] for row in rows if row["answer"])
    return answers.most_common(1)[0][0] if answers else None


def _finding_of(row: EvaluatedRow, rules: RuleSet | None) -> str | None:
    """The finding asked for; None for a report, and where no rule set names findings."""
    if rules is None and not row["rule_set"]:
        return None
    return question_finding(row, rules or load_rule_set(row["rule_set"]))


def _finding_and_side(row: EvaluatedRow, rules: RuleSet | None) -> tuple[str | None, str | None]:
    finding = _finding_of(row, rules)
    known = Facts.model_validate_json(row["facts"]).findings.get(finding or "")
    return finding, known.side if known else None
