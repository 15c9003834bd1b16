"""Findings of a report against the truth: an F1 over statements, where contradiction costs more than omission.

Left out: place beyond the side and measurements (``factuality`` has them), and implications between findings.
"""

from dataclasses import dataclass
from functools import lru_cache

from rewards.compare import compare
from rewards.facts import Facts, Finding
from rewards.knobs import Amount, Share
from rewards.reading import read
from rewards.rule_set import load_rule_set
from rewards.text import answer_region

BOUNDS = (0.0, 1.0)
TASKS = ("report",)


@dataclass(frozen=True)
class _Credits:
    side: float
    size: float
    count: float


def finding_f1(
    response: str,
    facts: str | None,
    *,
    absent_weight: Amount = 0.25,
    side_credit: Share = 0.0,
    size_credit: Share = 0.5,
    count_credit: Share = 0.5,
) -> float | None:
    """F1 of the statements read from a report, in [0, 1]; None without facts.

    Each finding counts once, however often it is named; a statement that a finding is absent weighs
    ``absent_weight``. Credit of a statement: 1 if right; ``side_credit``, ``size_credit``, ``count_credit`` where
    that attribute is wrong or left out; 0.5 if the finding is there and called possible; 0 if it contradicts the
    truth or itself. Precision is over what is claimed, recall over what is true. An empty response earns 0.

    >>> truth = '{"rule_set":"chest_xray@1","findings":{"nodule":{"polarity":"present","side":"left"}}}'
    >>> finding_f1("There is a nodule on the left.", truth), finding_f1("No nodule.", truth)
    (1.0, 0.0)
    """
    if not facts:
        return None
    judged = _judged(response, facts, absent_weight, _Credits(side_credit, size_credit, count_credit))
    precision, recall = judged["precision"], judged["recall"]
    return 2 * precision * recall / (precision + recall) if precision and recall else 0.0


def components(
    response: str,
    facts: str | None,
    *,
    absent_weight: float = 0.25,
    side_credit: float = 0.0,
    size_credit: float = 0.5,
    count_credit: float = 0.5,
) -> dict[str, float]:
    """Precision, recall, and numbers of claims, hallucinations and omissions."""
    if not facts:
        return {}
    return dict(_judged(response, facts, absent_weight, _Credits(side_credit, size_credit, count_credit)))


@lru_cache(maxsize=1024)  # the score and its components are of the same answer
def _judged(response: str, facts: str, absent_weight: float, credits: _Credits) -> dict[str, float]:
    truth = Facts.told(facts)
    reading = read(answer_region(response), load_rule_set(truth.rule_set))
    found = compare(truth, reading.facts)
    said = {name: f for name, f in reading.facts.findings.items() if name in truth.findings}
    credit = {n: 0.0 if n in reading.conflicts else _credit(truth.findings[n], f, credits) for n, f in said.items()}
    claimed = {n: absent_weight if f.polarity == "absent" else 1.0 for n, f in said.items()}
    true = {n: absent_weight if f.polarity == "absent" else 1.0 for n, f in truth.findings.items()}
    return {
        "precision": _mean(credit, claimed),
        "recall": _mean({n: credit.get(n, 0.0) for n in true}, true),
        "claims": float(len(found.claims)),
        "hallucinations": float(len(found.hallucinations)),
        "omissions": float(len(found.omissions)),
    }


def _mean(credit: dict[str, float], weight: dict[str, float]) -> float:
    total = sum(weight.values())
    return sum(credit[n] * w for n, w in weight.items()) / total if total else 0.0


def _credit(truth: Finding, said: Finding, credits: _Credits) -> float:
    if truth.polarity != said.polarity:
        return 0.5 if said.polarity == "uncertain" and truth.polarity == "present" else 0.0
    pairs = (
        (truth.side, said.side, credits.side),
        (truth.size, said.size, credits.size),
        (truth.count, said.count, credits.count),
    )
    worth = [credit for true, told, credit in pairs if true is not None and true != told]
    return min(worth, default=1.0)
