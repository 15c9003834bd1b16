"""Which rejected answers are fit to be rejected, and whether length alone would tell them apart.

A rejected answer that is true, or that holds the truth, teaches the model to avoid it. One that talks about itself, or
is far longer than the truth, teaches to tell the two apart without looking: the released VQA pairs set one word
against eleven. Left out: whether it is plausible; relevance scores say that.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from rewards.reading.reading import read
from rewards.rules.compare import compare
from rewards.rules.facts import Facts
from rewards.rules.rule_set import load_rule_set

META_TEXT = re.compile(
    r"\bcontradict\w*|\bhallucinat\w*|\bground[ -]truth\b|\breference (?:answer|report)\b|\bas an ai\b"
    r"|\b(?:correct|incorrect|wrong|original|true) (?:answer|response|report)\b|\blanguage model\b|\bfabricated\b",
    re.IGNORECASE,
)
WORD = re.compile(r"\w+")
POLARITY = {"yes": "yes", "no": "no", "not": "no", "none": "no"}


@dataclass(frozen=True)
class LengthLimit:
    """A rejected answer is too long (or short) if both hold: by this factor, and by this many words."""

    factor: float = 3.0
    words: int = 8


USUAL_LIMIT = LengthLimit()


def fault_of_rejected(
    chosen: str, rejected: str, *, truth: Facts | None = None, limit: LengthLimit | None = USUAL_LIMIT
) -> str | None:
    """Why ``rejected`` cannot stand against ``chosen`` under the same image; None if it can.

    ``truth``: the facts by which it is read, where they are known; without them a short answer that gives the same
    yes or no is taken for true. The whole truth with an invented finding beside it is refused only where they are not.
    ``limit`` None accepts any length.

    >>> fault_of_rejected("Yes", "yes.")
    'equal to the truth'
    >>> fault_of_rejected("CT", "This contradicts the CT scan.")
    'contains the truth'
    """
    right, wrong = _words(chosen), _words(rejected)
    faults = {
        "empty": not wrong,
        "equal to the truth": right == wrong,
        "contains the truth": _contains(wrong, right) and not (truth and invents(rejected, truth)),
        "speaks of its own making": bool(META_TEXT.search(rejected)),
        "true by accident": is_true(rejected, truth) if truth and truth.findings else same_polarity(chosen, rejected),
        "of a far other length": limit is not None and _too_unlike(len(right), len(wrong), limit),
    }
    return next((fault for fault, holds in faults.items() if holds), None)


def _words(text: str) -> list[str]:
    return WORD.findall(text.casefold())


def _contains(words: list[str], part: list[str]) -> bool:
    return bool(part) and f" {' '.join(part)} " in f" {' '.join(words)} "


def _too_unlike(a: int, b: int, limit: LengthLimit) -> bool:
    return max(a, b) > limit.factor * min(a, b) and abs(a - b) > limit.words


def is_true(response: str, truth: Facts) -> bool:
    """Whether the response, read by the facts' rule set, says something, and nothing that they deny.

    A claim of which they know nothing is false too, unless the rule set ignores it; a denial is not. Attributes count:
    a side, size or count that is stated and wrong makes it false.
    """
    claimed = read(response, load_rule_set(truth.rule_set)).facts
    if not claimed.findings:
        return False
    judged = compare(truth, claimed)
    missed = [name for name in judged.omissions if name in claimed.findings]
    return not judged.hallucinations and not missed and not _misstated(truth, claimed)


def invents(response: str, truth: Facts) -> bool:
    """Whether the response, read by the facts' rule set, claims a finding that is not there, or on the other side."""
    return bool(compare(truth, read(response, load_rule_set(truth.rule_set)).facts).hallucinations)


def _misstated(truth: Facts, claimed: Facts) -> bool:
    both = [(truth.findings[name], claim) for name, claim in claimed.present().items() if name in truth.findings]
    return any(
        getattr(known, what) is not None and getattr(claim, what) not in (None, getattr(known, what))
        for known, claim in both
        for what in ("side", "size", "count")
    )


def same_polarity(chosen: str, rejected: str) -> bool:
    """Whether the truth is a bare yes or no, and the rejected answer begins with the same one."""
    right, wrong = _words(chosen), _words(rejected)
    if len(right) != 1 or right[0] not in ("yes", "no") or not wrong:
        return False
    return POLARITY.get(wrong[0]) == right[0]


def brevity_report(chosen: Sequence[str], rejected: Sequence[str]) -> dict[str, float]:
    """How far length alone tells chosen from rejected.

    ``shortcut_accuracy``: how often the better of the two rules "the shorter is right" and "the longer is right"
    would be right, ties at one half; 0.5 means that length tells nothing, 1.0 that it tells all.
    """
    right, wrong = (np.array([len(_words(text)) for text in texts]) for texts in (chosen, rejected))
    if not right.size:
        return {"pairs": 0}
    longer, equal = float((wrong > right).mean()), float((wrong == right).mean())
    return {
        "pairs": len(right),
        "chosen_words": float(np.median(right)),
        "rejected_words": float(np.median(wrong)),
        "rejected_longer": longer,
        "equal_length": equal,
        "shortcut_accuracy": max(longer, 1.0 - equal - longer) + equal / 2,
    }


def length_balanced(ids: Sequence[str], chosen: Sequence[str], rejected: Sequence[str]) -> list[int]:
    """Places of the rows to keep so that the rejected answer is as often longer as shorter, in their order.

    Rows of the commoner direction are dropped by a hash of their id, so that the same rows fall in every build.
    """
    by_direction: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, (right, wrong) in enumerate(zip(chosen, rejected, strict=True)):
        by_direction[int(np.sign(len(_words(wrong)) - len(_words(right))))].append(index)
    number = min(len(by_direction[1]), len(by_direction[-1]))

    def drawn(indices: list[int]) -> list[int]:
        return sorted(indices, key=lambda index: hashlib.sha256(ids[index].encode()).digest())[:number]

    return sorted([*drawn(by_direction[1]), *drawn(by_direction[-1]), *by_direction[0]])
