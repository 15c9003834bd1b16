"""The rule judge's absolute mark of one report: what GRPO on judge scores is paid by, beside CRPO's comparisons.

Marks bunch up among good answers, which is why PulseMind compares instead (arXiv 2601.07344); here both come from the
same rules (``facts_judge``), so that only the form of the reward differs. Left out: marks by a language model.
"""

from rewards.judges.facts_judge import marks
from rewards.rules.facts import Facts

BOUNDS = (0.0, 1.0)
TASKS = ("report",)


def judge_score(response: str, facts: str | None) -> float | None:
    """Mean of the judge's dimensions, each in [0, 1]; None without facts.

    ``accuracy``, ``usefulness`` and ``language`` as they are; ``proactiveness`` as rightly less wrongly denied
    findings over those that can rightly be denied, at least 0, and left out where there are none. An answer that tells
    all that is there, and that alone, earns more than any that misses, misplaces or invents a finding.

    >>> truth = '{"rule_set":"chest_xray@1","findings":{"nodule":{"polarity":"present","side":"left"}}}'
    >>> judge_score("There is a nodule on the left.", truth), judge_score("", truth)
    (1.0, 0.0)
    """
    if not facts:
        return None
    parts = list(components(response, facts).values())
    return sum(parts) / len(parts)


def components(response: str, facts: str | None) -> dict[str, float]:
    """The dimensions."""
    if not facts:
        return {}
    found = dict(marks(response, facts))
    deniable = sum(f.polarity == "absent" for f in Facts.told(facts).findings.values())
    denied = found.pop("proactiveness")
    return found | ({"proactiveness": max(0.0, denied) / deniable} if deniable else {})
