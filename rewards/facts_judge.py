"""Rules in place of a judge: both answers are read and compared with the case's facts. Free, exact, offline."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from rewards.facts import Facts
from rewards.finding_f1 import components as finding_components
from rewards.judging import DIMENSIONS, Dimension, Pair, Verdict
from rewards.reading import read
from rewards.rule_set import load_rule_set


@dataclass(frozen=True)
class FactsJudge:
    """Compares what two answers say of the findings.

    accuracy: precision of the statements; usefulness: recall; proactiveness: rightly denied findings, less wrongly
    denied ones; language: share of distinct sentences in which a finding could be read. None without facts.
    ``margin``: a smaller difference is a tie.
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
        first, second = marks(pair.first, pair.case.facts), marks(pair.second, pair.case.facts)
        return {name: self._outcome(first[name] - second[name]) for name in self.dimensions}

    def _outcome(self, difference: float) -> float:
        return 0.5 if abs(difference) <= self.margin else float(difference > 0)


@lru_cache(maxsize=10_000)  # a group's answers meet the same opponents again and again
def marks(response: str, facts: str) -> Mapping[str, float]:
    """What the rules make of one answer, by dimension; larger is better."""
    truth = Facts.told(facts)
    reading = read(response, load_rule_set(truth.rule_set))
    parts = finding_components(response, facts)
    denied = {n for n, f in reading.facts.findings.items() if f.polarity == "absent" and n in truth.findings}
    rightly = sum(truth.findings[name].polarity == "absent" for name in denied)
    sentences = [s.casefold() for s in re.split(r"(?<=[.!?])\s+|\n+", response.strip()) if s.strip()]
    read_ones = {s for s in sentences if re.search(r"\w", s)} - {s.casefold() for s in reading.unread}
    found = {
        "proactiveness": float(2 * rightly - len(denied)),
        "accuracy": parts["precision"],
        "usefulness": parts["recall"],
        "language": len(read_ones) / len(sentences) if sentences else 0.0,
    }
    return MappingProxyType(found)
