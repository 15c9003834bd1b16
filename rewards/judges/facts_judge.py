"""Rules in place of a judge: both answers are read and compared with the case's facts. Free, exact, offline."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from rewards.answers.final_answer import answer_region
from rewards.judges.judging import DIMENSIONS, Dimension, Pair, Verdict
from rewards.reading.reading import read
from rewards.reports.finding_f1 import components as finding_components
from rewards.rules.facts import Facts
from rewards.rules.rule_set import load_rule_set


@dataclass(frozen=True)
class FactsJudge:
    """Compares what two answers say of the findings; of a response only its answer is read, never its thinking.

    accuracy: precision of the statements. usefulness: recall of what is not absent (of what is, where nothing else is
    known). proactiveness: rightly denied findings, less wrongly denied ones; the former count only beside an answer
    that tells all that is there and invents nothing, so that no number of denials makes up for a miss or a wrong side.
    language: share of distinct sentences in which a finding could be read. None without facts. ``margin``: a smaller
    difference is a tie.
    """

    dimensions: tuple[Dimension, ...] = DIMENSIONS
    margin: float = 1e-9

    async def compare(self, pairs: Sequence[Pair]) -> list[Verdict | None]:
        """A verdict for each pair; None where the case has no facts."""
        return [self._verdict(pair) for pair in pairs]

    def num_calls(self, pairs: Sequence[Pair]) -> int:
        """None at all."""
        del pairs
        return 0

    @property
    def calls_left(self) -> int | None:
        """No cap."""
        return None

    def _verdict(self, pair: Pair) -> Verdict | None:
        if not pair.case.facts:
            return None
        first, second = (marks(answer, pair.case.facts) for answer in pair.answers)
        return {name: self._outcome(first[name] - second[name]) for name in self.dimensions}

    def _outcome(self, difference: float) -> float:
        return 0.5 if abs(difference) <= self.margin else float(difference > 0)


@lru_cache(maxsize=10_000)  # a group's answers meet the same opponents again and again
def marks(response: str, facts: str) -> Mapping[str, float]:
    """What the rules make of the answer in one response, by dimension; larger is better."""
    truth, text = Facts.told(facts), answer_region(response)
    reading = read(text, load_rule_set(truth.rule_set))
    parts, plain = finding_components(text, facts), finding_components(text, facts, absent_weight=0.0)
    if any(finding.polarity != "absent" for finding in truth.findings.values()):
        useful, right = plain["recall"], plain["precision"] == plain["recall"] == 1.0
    else:
        useful, right = parts["recall"], all(f.polarity == "absent" for f in reading.facts.findings.values())
    denied = {n for n, f in reading.facts.findings.items() if f.polarity == "absent" and n in truth.findings}
    rightly = sum(truth.findings[name].polarity == "absent" for name in denied)
    found = {
        "proactiveness": float((rightly if right else 0) - (len(denied) - rightly)),
        "accuracy": parts["precision"],
        "usefulness": useful,
        "language": _read_share(text, set(reading.unread)),
    }
    return MappingProxyType(found)


def _read_share(text: str, unread: set[str]) -> float:
    """Of the sentences of a text, the share that is distinct and in which a finding could be read."""
    sentences = [s.casefold() for s in re.split(r"(?<=[.!?])\s+|\n+", text.strip()) if s.strip()]
    read_ones = {s for s in sentences if re.search(r"\w", s)} - {s.casefold() for s in unread}
    return len(read_ones) / len(sentences) if sentences else 0.0
