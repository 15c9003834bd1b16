"""Findings of a report against the truth: an F1 over statements, where contradiction costs more than omission.

A finding that is claimed, or called possible, and that the truth does not know is a wrong statement unless the rule
set ignores it; denied, it is none. Left out: place beyond the side and measurements (``factuality`` has them), and
implications between findings.
"""

from dataclasses import dataclass
from functools import lru_cache

from rewards.answers.final_answer import answer_region
from rewards.config.knobs import Amount, Share
from rewards.reading.reading import Reading, read
from rewards.rules.compare import claims_nothing, compare
from rewards.rules.facts import Facts, Finding, Unsupported
from rewards.rules.rule_set import load_rule_set

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
    unsupported: Unsupported | None = None,
) -> float | None:
    """F1 of the statements read from a report, in [0, 1]; None without facts.

    Each finding counts once, however often it is named; a statement that a finding is absent weighs
    ``absent_weight``. Credit of a statement: 1 if right; ``side_credit``, ``size_credit``, ``count_credit`` where
    that attribute is wrong or left out; 0.5 if the finding is there and called possible; 0 if it contradicts the
    truth or itself. Precision is over what is claimed, recall over what is true. An empty response earns 0.

    ``unsupported`` ``wrong``: a finding that is claimed or called possible and that the truth does not know weighs 1
    in precision, with credit 0; beside one right finding, one such claim gives P 1/2, R 1, F1 2/3. ``ignore``: it is
    not judged. None: as the rule set says. Where the truth holds nothing to earn by (no finding known, or only absent
    ones of weight 0), a report that says something and claims nothing earns 1, any other 0.

    >>> truth = '{"rule_set":"chest_xray@1","findings":{"nodule":{"polarity":"present","side":"left"}}}'
    >>> finding_f1("There is a nodule on the left.", truth), finding_f1("No nodule.", truth)
    (1.0, 0.0)
    """
    if not facts:
        return None
    judged = _judged(response, facts, absent_weight, _Credits(side_credit, size_credit, count_credit), unsupported)
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
    unsupported: Unsupported | None = None,
) -> dict[str, float]:
    """Precision, recall, and numbers of claims, hallucinations, unsupported claims and omissions."""
    if not facts:
        return {}
    return dict(_judged(response, facts, absent_weight, _Credits(side_credit, size_credit, count_credit), unsupported))


@lru_cache(maxsize=1024)  # the score and its components are of the same answer
def _judged(
    response: str, facts: str, absent_weight: float, credits: _Credits, unsupported: Unsupported | None
) -> dict[str, float]:
    truth = Facts.told(facts)
    rules = load_rule_set(truth.rule_set)
    reading, counted = read(answer_region(response), rules), unsupported or rules.unsupported
    found = compare(truth, reading.facts, unsupported=counted)
    claims = reading.facts.findings
    credit = {name: _credit_of(name, truth, reading, credits) for name in claims}
    claimed = {n: _weight(f, absent_weight) for n, f in claims.items() if n in truth.findings or _is_claim(f, counted)}
    true = {n: _weight(f, absent_weight) for n, f in truth.findings.items()}
    nothing = float(claims_nothing(truth, reading.facts)) if not any(true.values()) else None
    return {
        "precision": _mean(credit, claimed) if nothing is None else nothing,
        "recall": _mean(credit, true) if nothing is None else nothing,
        "claims": float(len(found.claims)),
        "hallucinations": float(len(found.hallucinations)),
        "unsupported": float(len(found.unsupported)),
        "omissions": float(len(found.omissions)),
    }


def _is_claim(finding: Finding, unsupported: Unsupported) -> bool:
    """Whether what is said of a finding that the truth does not know is held against the report."""
    return unsupported == "wrong" and finding.polarity != "absent"


def _weight(finding: Finding, absent_weight: float) -> float:
    return absent_weight if finding.polarity == "absent" else 1.0


def _mean(credit: dict[str, float], weight: dict[str, float]) -> float:
    total = sum(weight.values())
    return sum(credit.get(n, 0.0) * w for n, w in weight.items()) / total if total else 0.0


def _credit_of(name: str, truth: Facts, reading: Reading, credits: _Credits) -> float:
    """The credit of what is said of one finding; a report that contradicts itself is right only about a doubt."""
    known = truth.findings.get(name)
    if known is None or (name in reading.conflicts and known.polarity != "uncertain"):
        return 0.0
    return _credit(known, reading.facts.findings[name], credits)


def _credit(truth: Finding, claim: Finding, credits: _Credits) -> float:
    if truth.polarity != claim.polarity:
        return 0.5 if claim.polarity == "uncertain" and truth.polarity == "present" else 0.0
    pairs = (
        (truth.side, claim.side, credits.side),
        (truth.size, claim.size, credits.size),
        (truth.count, claim.count, credits.count),
    )
    worth = [credit for true, claimed, credit in pairs if true is not None and true != claimed]
    return min(worth, default=1.0)
