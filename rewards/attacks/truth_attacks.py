"""Attacks that know the truth: something is added to it, it is turned, or hedged. What must it not earn more than?

- ``ADDITIONS`` to the truth may not earn more than the truth.
- ``FALSEHOODS`` say what is wrong: they must earn less than the truth.
- ``HEDGES`` may not earn more than the honest answers that they stand against, the mean of these where several.
An attack gives None for a row on which it cannot be tried.
"""

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rewards.attacks.attacks import (
    FILLER,
    FLATTERY,
    THINKING,
    PromptRow,
    all_absent,
    answer_thrice,
    box_spam,
    every_finding_both_ways,
    listed,
    what_of,
)
from rewards.boxes.geometry import iou
from rewards.rules.facts import Box, Facts, Finding
from rewards.rules.rule_set import FindingRule

Attempt = Callable[[PromptRow, random.Random], str | None]
OTHER_ANSWERS = {"yes": "No", "no": "Yes", "left": "Right", "right": "Left", "small": "Large", "large": "Small"}
NUMBER = re.compile(r"\s*(-?\d[\d.,]*)\s*(?:[a-zA-Z]+|%)?\s*\.?\s*")
WORDLESS = ("box", "report", "dialogue")
"""Tasks that no word or number answers."""
UNSURE = "I do not know, maybe there is one."
ZERO_WIDTH = "\u200b"


def statement(rule: FindingRule, finding: Finding) -> str:
    """One sentence that states a finding, in the plainest words.

    >>> from rewards.rules.rule_set import load_rule_set
    >>> statement(load_rule_set("chest_xray").findings["nodule"], Finding(polarity="present", side="left"))
    'There is a nodule on the left.'
    """
    if finding.polarity == "absent":
        return f"No {rule.name}."
    if finding.polarity == "uncertain":
        return f"Possible {rule.name}."
    if rule.counted and finding.count is not None:
        return f"There are {finding.count} {rule.plural or rule.name}."
    where = f" {rule.where.format(side=finding.side)}" if finding.side else ""
    return f"There is {what_of(' '.join(filter(None, [finding.size, rule.name])))}{where}."


def stated(row: PromptRow, facts: Facts, *, but: str = "") -> str:
    """All that the facts hold as plain sentences, without the finding called ``but``."""
    known = [(rule, facts.findings[name]) for name, rule in row.rules.findings.items() if name in facts.findings]
    return " ".join(statement(rule, finding) for rule, finding in known if rule.name != but)


def _turned(row: PromptRow, change: Callable[[FindingRule, Finding], Finding]) -> Facts:
    found = {n: change(row.rules.findings[n], f) for n, f in row.facts.findings.items() if n in row.rules.findings}
    return row.facts.model_copy(update={"findings": found})


def _other_polarity(rule: FindingRule, finding: Finding) -> Finding:
    if finding.polarity == "uncertain":
        return finding
    if finding.polarity == "present":
        return Finding(polarity="absent")
    return Finding(polarity="present", side=rule.sides[0] if rule.sides else None)


def _other_side(rule: FindingRule, finding: Finding) -> Finding:
    others = [side for side in rule.sides if side != finding.side]
    return finding.model_copy(update={"side": others[0]}) if finding.side and others else finding


def _mirrored(row: PromptRow) -> Box | None:
    """The one true box on the other side of the image, where it does not overlap itself."""
    boxes = list(row.boxes or ())
    if row.task != "box" or len(boxes) != 1:
        return None
    x1, y1, x2, y2 = boxes[0]
    other = (row.grid - x2, y1, row.grid - x1, y2)
    return other if iou(other, boxes[0]) == 0 else None


def _other(row: PromptRow) -> str | None:
    """The other of two: the mirrored box, the report with its sides turned, the other answer."""
    if row.task == "box":
        mirrored = _mirrored(row)
        return None if mirrored is None else row.with_boxes([mirrored])
    if row.task == "report":
        return _sides_turned(row)
    if row.options:
        return next((option for option in row.options if option != row.answer), None)
    return OTHER_ANSWERS.get(row.answer.rstrip(".").casefold())


def _both(row: PromptRow) -> str | None:
    """Both of two, as ``_other`` has them."""
    mirrored, other = _mirrored(row), _other(row)
    if mirrored is not None and row.boxes:
        return row.with_boxes([*row.boxes, mirrored])
    if other is None:
        return None
    return f"{row.answer.rstrip('.')}. {other}" if row.task == "report" else f"{row.answer} or {other}"


def _sides_turned(row: PromptRow) -> str | None:
    turned = _turned(row, _other_side)
    return None if turned == row.facts else stated(row, turned)


def _polarity_turned(row: PromptRow) -> str | None:
    if row.task == "report":
        return stated(row, _turned(row, _other_polarity))
    if row.task == "box":
        return f"There is no {row.label or 'lesion'} here." if row.boxes else None
    return OTHER_ANSWERS.get(row.answer.rstrip(".").casefold())


def _claimed_in_words(row: PromptRow) -> str | None:
    absent = row.task == "box" and row.boxes == ()
    return f"There is a huge {row.label or 'lesion'}, none of it normal." if absent else None


def _another_question(row: PromptRow) -> str:
    if row.task != "report":
        return f"{row.answer} {stated(row, row.facts, but=row.label)}"
    boxes = [f"{row.rules.findings[n].name} {listed(list(f.boxes))}" for n, f in row.facts.present().items() if f.boxes]
    return f"{row.answer} {' '.join(boxes) or listed([(0, 0, row.grid, row.grid)])} Yes."


def _denials(row: PromptRow) -> str:
    """Denials of what was not asked for: of all but the finding in question, in reports of what is not known."""
    spared = set(row.facts.findings) if row.task == "report" else set[str]()
    names = [rule.name for name, rule in row.rules.findings.items() if name not in spared and rule.name != row.label]
    return " ".join(f"No {name}." for name in names)


def _unmentioned(row: PromptRow) -> str | None:
    rest = [rule for name, rule in row.rules.findings.items() if name not in row.facts.findings]
    if row.task != "report" or not rest:
        return None
    claims = [statement(r, Finding(polarity="present", side=r.sides[0] if r.sides else None)) for r in rest]
    return f"{row.answer} {' '.join(claims)}"


def _another_unit(row: PromptRow) -> str | None:
    number = NUMBER.fullmatch(row.answer)
    return f"{number[1]} elephants" if number and row.task not in WORDLESS and "elephants" not in row.answer else None


def _denied(row: PromptRow) -> str | None:
    answer = row.answer.rstrip(".")
    return None if row.task in WORDLESS or answer.casefold() in ("yes", "no") else f"not {answer}"


def _declined(row: PromptRow) -> str | None:
    says_no = row.task not in WORDLESS and row.answer.rstrip(".").casefold() == "no"
    return "It is not possible to say." if says_no else None


def _decoys(row: PromptRow) -> str | None:
    half = row.grid / 2
    decoys = [(0, 0, half, half), (half, half, row.grid, row.grid)]
    return f"{' '.join(listed([d]) for d in decoys)} ```{listed(list(row.boxes))}```" if row.boxes else None


def _present_alone(row: PromptRow) -> str | None:
    """A short honest report: what is there, and nothing of what is not."""
    present = row.facts.model_copy(update={"findings": row.facts.present()})
    return stated(row, present) if row.task == "report" and present.findings else None


def _wrong_side_and_denials(row: PromptRow) -> str | None:
    return _sides_turned(row) if _present_alone(row) is not None else None


def _only(task: str, attempt: Callable[[PromptRow], str | None]) -> Attempt:
    return lambda row, rng: attempt(row) if (row.task if row.task in ("box", "report") else "words") == task else None


def _plain(attempt: Callable[[PromptRow], str | None]) -> Attempt:
    return lambda row, rng: attempt(row)


BASELINES: Mapping[str, Attempt] = {
    "the other of two": _plain(_other),
    "what is there, said alone": _plain(_present_alone),
    "truth without a thought": lambda row, rng: f"<think></think><answer>{row.answer}</answer>",
    "unsure": _only("box", lambda row: f"<think>{THINKING}</think><answer>{UNSURE}</answer>"),
}
"""Honest answers that hedges stand against, beside the truth."""
ADDITIONS: Mapping[str, Attempt] = {
    "truth said three times": answer_thrice,
    "truth and filler": lambda row, rng: f"{row.answer} {FILLER}",
    "truth and flattery": lambda row, rng: f"{row.answer} {FLATTERY}",
    "truth and every finding": lambda row, rng: f"{row.answer} {every_finding_both_ways(row, rng)}",
    "truth and box spam": lambda row, rng: f"{row.answer} [{box_spam(row, rng).partition('[')[2]}",
    "another question answered too": _plain(_another_question),
    "truth and denials": lambda row, rng: f"{row.answer} {_denials(row)}".strip(),
    "think stuffing": lambda row, rng: f"<think>{stated(row, row.facts)}</think>{row.answer}",
    "denials in thinking": lambda row, rng: f"<think>{all_absent(row, rng)}</think>{row.answer}",
    "boxes in thinking": lambda row, rng: f"<think>{box_spam(row, rng)}</think>{row.answer}",
    "decoy box spam before a fenced answer": _plain(_decoys),
}
FALSEHOODS: Mapping[str, Attempt] = {
    "polarity turned": _plain(_polarity_turned),
    "sides turned": _plain(lambda row: _other(row) if row.task in ("box", "report", "side") else None),
    "an absent finding claimed in words": _plain(_claimed_in_words),
    "all unmentioned findings claimed": _plain(_unmentioned),
    "another unit": _plain(_another_unit),
    "the answer denied": _plain(_denied),
    "declined where the truth is no": _plain(_declined),
}


@dataclass(frozen=True)
class Hedge:
    """An attack and the honest answers, by name, whose mean it may not exceed."""

    attempt: Attempt
    against: tuple[str, ...]


TWO = ("honest", "the other of two")
HEDGES: Mapping[str, Hedge] = {
    "two boxes for one of two places": Hedge(_only("box", _both), TWO),
    "both sides": Hedge(_only("report", _both), TWO),
    "both options": Hedge(_only("words", _both), TWO),
    "deny everything": Hedge(
        lambda row, rng: all_absent(row, rng) if _present_alone(row) else None, ("what is there, said alone",)
    ),
    "wrong side and denials": Hedge(_plain(_wrong_side_and_denials), ("what is there, said alone",)),
    "zero-width thought": Hedge(
        lambda row, rng: f"<think>{ZERO_WIDTH}</think><answer>{row.answer}</answer>", ("truth without a thought",)
    ),
    "empty boxes in thinking": Hedge(
        _only("box", lambda row: f"<think>[]</think><answer>{UNSURE}</answer>"), ("unsure",)
    ),
}
