"""What came of rows that a curriculum wrote, by capability: counts that add up over rows, and the metrics made of them.

A closed question (yes or no, a level of a scale) counts in a confusion of truth and answer with a column ``invalid``;
its group names the guideline: ``stage, retina_amd@1``. An open one is judged by the findings that its reference states.
Micro and macro F1, kappa and under-referral all come from that confusion, so that an interval by patient, a paired
difference and a test hold for each. Left out: partial credit, and a judge of style.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from alignment.metrics.confusion import INVALID, YES_NO
from alignment.metrics.evaluated_row import EvaluatedRow
from data_builders.curriculum.checks import opinion
from data_builders.schema import provenance_of
from rewards.reading.closed_options import chosen, level_options
from rewards.rules.compare import Comparison
from rewards.rules.facts import Facts
from rewards.rules.guidelines import Contradictory, together, worked_out


@dataclass(frozen=True)
class Closed:
    """A closed question judged. ``answer`` is None where the answer chooses no option, for the ``reason``."""

    group: str
    truth: str
    answer: str | None
    reason: str = ""

    @property
    def counts(self) -> dict[str, float]:
        """One cell of the confusion."""
        return {f"said[{self.group} | {self.truth} | {self.answer or INVALID}]": 1.0}


def judged(row: EvaluatedRow, words: str) -> Closed | None:
    """The closed question of a curriculum's row under an answer; None for an open one, or without a definite truth.

    The truth of a level is derived from the row's facts by its guidelines, not read from the reference.
    """
    question = provenance_of(row)
    kind, about = question.get("kind"), question.get("about", "")
    if kind in ("presence", "check"):
        texts = (row["answer"] or "", words)
        truth, answer = (None if (yes := opinion(text)[0]) is None else YES_NO[yes] for text in texts)
        return (
            None
            if truth is None
            else Closed(f"{row.get('capability')}, yes or no", truth, answer, "" if answer else "unparsed")
        )
    if kind != "level":
        return None
    guidelines = tuple(row.get("guidelines") or ())
    truth = true_level(row["facts"], about, guidelines)
    choice = chosen(words, level_options(together(guidelines)[0].scales[about]))
    group = f"{about}, {together(guidelines)[1][about]}"
    return None if truth is None else Closed(group, truth, choice.option, choice.reason)


@lru_cache(maxsize=4096)
def true_level(facts: str, scale: str, guidelines: tuple[str, ...]) -> str | None:
    """The level that facts have on a scale; None where they do not decide it."""
    try:
        found = worked_out(Facts.model_validate_json(facts), guidelines).scales[scale]
    except Contradictory:
        return None
    return None if found.could_be else found.level


def counts_by_finding(judged_answer: Comparison) -> dict[str, float]:
    """What an open answer or a report claims, by finding; the micro F1 sums it over all."""
    kinds = {
        "claims": judged_answer.claims,
        "true_claims": [name for name in judged_answer.claims if name not in judged_answer.hallucinations],
        "true_findings": judged_answer.true_findings,
        "found": judged_answer.found,
    }
    return {f"{kind}[{name}]": 1.0 for kind, names in kinds.items() for name in names}


def findings_counted(counts: Iterable[Mapping[str, float]]) -> list[str]:
    """The findings that open answers and reports claim or should claim."""
    pattern = re.compile(r"(?:claims|true_findings)\[(.+)\]")
    return sorted({match[1] for of_row in counts for key in of_row if (match := pattern.fullmatch(key))})
