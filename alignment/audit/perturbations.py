"""True answers made a little wrong, step by step: does a reward fall with them, and with the held-out metrics?"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from data_builders.rendering.corrupt import corrupt
from data_builders.rendering.render import report
from rewards.attacks.attacks import PromptRow, shifted
from rewards.attacks.truth_attacks import OTHER_ANSWERS
from rewards.rules.facts import Finding

SHIFTS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
NUM_ERRORS = 4


@dataclass(frozen=True)
class Perturbed:
    """A wrong version of the true answer; ``step`` 0 is the truth, a larger one is further from it."""

    answer: str
    step: int


def perturbed(row: PromptRow, rng: random.Random) -> Iterator[Perturbed]:
    """The true answer and ever worse versions: boxes moved away, findings corrupted one by one, the other answer."""
    if row.boxes:
        for step, share in enumerate(SHIFTS):
            yield Perturbed(row.with_boxes([shifted(box, share, rng, row.grid) for box in row.boxes]), step)
    elif row.task == "report":
        yield from _reports(row, rng)
    else:
        yield Perturbed(row.answer, 0)
        yield Perturbed(OTHER_ANSWERS.get(row.answer.rstrip(".").casefold(), "Unknown"), 1)


def _reports(row: PromptRow, rng: random.Random) -> Iterator[Perturbed]:
    facts, changed = row.facts, set[str]()
    yield Perturbed(report(facts, row.rules), 0)
    for step in range(1, NUM_ERRORS):
        closed = dict.fromkeys(changed, Finding(polarity="uncertain"))  # nothing is corrupted twice
        left = facts.model_copy(update={"findings": {**facts.findings, **closed}})
        wrong = corrupt(left, row.rules, rng)
        if wrong is None:
            return
        changed.add(wrong.finding)
        findings = {**facts.findings, wrong.finding: wrong.facts.findings[wrong.finding]}
        facts = facts.model_copy(update={"findings": findings})
        yield Perturbed(report(facts, row.rules), step)
