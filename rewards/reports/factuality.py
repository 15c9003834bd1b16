"""Factuality of a report: findings with polarity, side, size, count, place and measurement against what is true.

Grown from ``finding_f1``: a contradiction is worse than an omission, place and measurements count where the reference
report states them, and only reports are judged. What is claimed and not known counts as invented, unless the rule set
ignores it. Left out: what the rule set's phrases do not name, and comparison with earlier studies. MedMO's abstract
speaks of factuality checks and defines none; this definition is ours.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from rewards.answers.final_answer import answer_region
from rewards.answers.measurements import Measurement, measurements
from rewards.config.knobs import Amount, Share
from rewards.reading.reading import Reading, phrase_pattern, read
from rewards.rules.compare import claims_nothing
from rewards.rules.facts import Facts, Finding, Unsupported
from rewards.rules.rule_set import RuleSet, load_rule_set

BOUNDS = (0.0, 1.0)
TASKS = ("report",)
PLACES = {
    "upper": re.compile(r"\b(?:upper|apex|apical|apices|superior)\b", re.IGNORECASE),
    "middle": re.compile(r"\b(?:middle|mid|lingula)\b", re.IGNORECASE),
    "lower": re.compile(r"\b(?:lower|bas(?:e|es|al|ilar)|inferior|costophrenic)\b", re.IGNORECASE),
    "hilar": re.compile(r"\b(?:hil(?:ar|um|a)|perihilar|central)\b", re.IGNORECASE),
    "peripheral": re.compile(r"\b(?:peripheral|subpleural)\b", re.IGNORECASE),
    "retrocardiac": re.compile(r"\bretrocardiac\b", re.IGNORECASE),
}


@dataclass(frozen=True)
class Details:
    """What a text says of one finding beside what ``Finding`` holds."""

    places: frozenset[str] = frozenset()
    sizes: tuple[Measurement, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """Weighted sums over findings: ``earned`` credit, ``claimed`` and ``true`` weight, ``contradicted`` weight.

    ``claims_nothing``: the response says something, and claims no finding; all that counts where ``true`` is 0.
    """

    earned: float
    claimed: float
    true: float
    contradicted: float
    claims_nothing: bool

    def score(self, contradiction_weight: float) -> float:
        """F1 less the contradicted share of the truth, not below 0."""
        if not self.true:
            return float(self.claims_nothing)
        f1 = 2 * self.earned / (self.claimed + self.true)
        return max(0.0, f1 - contradiction_weight * self.contradicted / self.true)

    def share(self, weight: float, *, of: float) -> float:
        """One weight as a share of another; where the truth has none, 1 if the response claims nothing."""
        if not self.true:
            return float(self.claims_nothing)
        return weight / of if of else 0.0


def factuality(
    response: str,
    facts: str | None,
    answer: str | None,
    task: str | None,
    *,
    contradiction_weight: Amount = 0.5,
    absent_weight: Amount = 0.25,
    detail_credit: Share = 0.5,
    tolerance: Amount = 0.2,
    unsupported: Unsupported | None = None,
) -> float | None:
    """F1 over findings less ``contradiction_weight`` x the contradicted share, in [0, 1].

    A finding counts once, however often it is named, and one that is absent weighs ``absent_weight``. Right, it earns
    1; ``detail_credit`` for each of side, size, count, place or measurement that is wrong or left out (a measurement
    is right within the relative ``tolerance``); 0.5 if it is there and called possible. The opposite polarity, the
    opposite side, and both polarities at once are contradictions. So a swapped side earns less than an omission, and a
    hedge lies between. Place and measurements are true where the reference report ``answer`` states them.

    ``unsupported`` ``wrong``: a finding that is claimed and that the truth does not know is an invention: it weighs 1
    in what is claimed, without credit, and 1 in what is contradicted. Beside n right findings, one such claim leaves
    2n / (2n + 1) - ``contradiction_weight`` / n: at n = 2, 0.8 - 0.25 = 0.55. Called possible, it is claimed without
    credit, and no contradiction. ``ignore``: neither is judged. None: as the rule set says. A denial is never judged.
    Where the truth knows nothing, a report that says something and claims nothing earns 1, any other 0.

    None without facts, or where ``task`` is given and is not ``report``. An empty response earns 0.

    >>> truth = '{"rule_set":"chest_xray@1","findings":{"nodule":{"polarity":"present","side":"left"}}}'
    >>> report = "There is a 12 mm nodule in the left upper lobe."
    >>> factuality(report, truth, report, "report"), factuality("A nodule on the left.", truth, report, "report")
    (1.0, 0.25)
    """
    if not facts or task not in (None, "report"):
        return None
    judged = judgement(response, facts, answer, absent_weight, detail_credit, tolerance, unsupported)
    return judged.score(contradiction_weight)


def components(
    response: str,
    facts: str | None,
    answer: str | None,
    task: str | None,
    *,
    absent_weight: float = 0.25,
    detail_credit: float = 0.5,
    tolerance: float = 0.2,
    unsupported: Unsupported | None = None,
    **_: float,
) -> dict[str, float]:
    """Precision and recall of credit, and the contradicted share of the truth."""
    if not facts or task not in (None, "report"):
        return {}
    judged = judgement(response, facts, answer, absent_weight, detail_credit, tolerance, unsupported)
    return {
        "precision": judged.share(judged.earned, of=judged.claimed),
        "recall": judged.share(judged.earned, of=judged.true),
        "contradicted": judged.contradicted / judged.true if judged.true else 0.0,
    }


@lru_cache(maxsize=1024)  # the score and its components are of the same answer
def judgement(
    response: str,
    facts: str,
    answer: str | None,
    absent_weight: float,
    detail_credit: float,
    tolerance: float,
    unsupported: Unsupported | None = None,
) -> Judgement:
    """The sums of one response. Findings that the facts call "uncertain" are not judged."""
    truth = Facts.told(facts)
    rules = load_rule_set(truth.rule_set)
    known = {name: f for name, f in truth.findings.items() if f.polarity != "uncertain"}
    reading, reference = read(answer_region(response), rules), read(answer or "", rules)
    counted = (unsupported or rules.unsupported) == "wrong"
    earned = claimed = contradicted = 0.0
    for name, claim in reading.facts.findings.items():
        if name not in truth.findings and claim.polarity != "absent" and counted:
            claimed += 1.0
            contradicted += float(claim.polarity == "present" or name in reading.conflicts)
        if name not in known:
            continue
        weight = _weight(known[name], absent_weight)
        claimed += _weight(claim, absent_weight)
        if name in reading.conflicts or _contradicts(known[name], claim):
            contradicted += max(weight, _weight(claim, absent_weight))
            continue
        wanted, stated = _details(name, reference, rules), _details(name, reading, rules)
        earned += (
            weight
            * _credit(known[name], claim)
            * detail_credit ** _num_faults(known[name], claim, wanted, stated, tolerance)
        )
    true = sum(_weight(f, absent_weight) for f in known.values())
    return Judgement(earned, claimed, true, contradicted, claims_nothing(truth, reading.facts))


def _weight(finding: Finding, absent_weight: float) -> float:
    return absent_weight if finding.polarity == "absent" else 1.0


def _contradicts(true: Finding, claim: Finding) -> bool:
    if claim.polarity == "uncertain":
        return False
    return true.polarity != claim.polarity or bool(true.side and claim.side and true.side != claim.side)


def _credit(true: Finding, claim: Finding) -> float:
    if claim.polarity == "uncertain":
        return 0.5 if true.polarity == "present" else 0.0
    return 1.0


def _num_faults(true: Finding, claim: Finding, wanted: Details, stated: Details, tolerance: float) -> int:
    """How many stated attributes are wrong or left out."""
    if true.polarity == "absent":
        return 0
    pairs = ((true.side, claim.side), (true.size, claim.size), (true.count, claim.count))
    measured = all(any(m.agrees(s, tolerance=tolerance) for s in stated.sizes) for m in wanted.sizes)
    stuffed = len(stated.sizes) > max(1, len(wanted.sizes)) or len(stated.places) > max(1, len(wanted.places))
    placed = wanted.places <= stated.places
    return sum(a is not None and a != b for a, b in pairs) + (not placed) + (not measured) + stuffed


def _details(name: str, reading: Reading, rules: RuleSet) -> Details:
    """Places and measurements said of a finding: in its clause, between the findings named before and after it."""
    pattern = phrase_pattern(rules)
    words = " ".join(
        _clause_words(clause, name, pattern, rules) for clause in dict.fromkeys(reading.evidence.get(name, []))
    )
    return Details(
        places=frozenset(place for place, pattern in PLACES.items() if pattern.search(words)),
        sizes=tuple(dict.fromkeys(m for m in measurements(words) if m.unit == "mm")),
    )


def _clause_words(clause: str, name: str, pattern: re.Pattern[str], rules: RuleSet) -> str:
    hits = list(pattern.finditer(clause))
    phrases = {p.casefold() for p in [*rules.findings[name].phrases, rules.findings[name].plural or ""]}
    parts: list[str] = []
    for k, hit in enumerate(hits):
        if hit.group().casefold() in phrases:
            start = hits[k - 1].end() if k else 0
            end = hits[k + 1].start() if k + 1 < len(hits) else len(clause)
            parts.append(clause[start:end])
    return " ".join(parts)
