"""What a text gets wrong, error by error, and how grave the gravest of them is by the rule set.

Left out: errors that no rule set names, such as a wrong place.
"""

from rewards.reading.reading import read
from rewards.rules.compare import compare
from rewards.rules.facts import Facts
from rewards.rules.rule_set import ErrorKind, load_rule_set

UNREAD = 0.5
"""The severity of a false text in which the reader finds no error by name."""
ClaimError = tuple[str, ErrorKind]
"""The finding, and what is wrong about it."""


def errors_of(truth: Facts, claimed: Facts) -> list[ClaimError]:
    """Every error of ``claimed``: invented, wrong-sided and missed findings, then wrong sizes and counts.

    ``compare`` says what is a hallucination; one that is not about the side of a finding that is there is invented.

    >>> from rewards.rules.facts import Finding
    >>> there, absent = Finding(polarity="present", side="left"), Finding(polarity="absent")
    >>> truth = Facts(rule_set="chest_xray@1", findings={"nodule": there, "effusion": absent})
    >>> errors_of(truth, Facts(rule_set="chest_xray@1", findings={"effusion": there}))
    [('effusion', 'invented'), ('nodule', 'missed')]
    """
    judged, stated = compare(truth, claimed), claimed.present()
    present = truth.present()
    there = [(name, known, stated[name]) for name, known in present.items() if name in stated]
    errors: dict[ErrorKind, list[str]] = {
        "invented": [name for name in judged.hallucinations if name not in present],
        "side": [name for name in judged.hallucinations if name in present],
        "missed": [*judged.omissions],
        "size": [name for name, known, claim in there if _misstated(known.size, claim.size)],
        "count": [name for name, known, claim in there if _misstated(known.count, claim.count)],
    }
    return [(name, kind) for kind, names in errors.items() for name in names]


def _misstated(known: object, claimed: object) -> bool:
    return None not in (known, claimed) and known != claimed


def severity_of(truth: Facts, response: str) -> float | None:
    """The largest ``RuleSet.severity(finding, kind)`` among a response's errors; None if none is found in it.

    >>> from rewards.rules.facts import Finding
    >>> truth = Facts(rule_set="chest_xray@1", findings={"pneumothorax": Finding(polarity="absent")})
    >>> severity_of(truth, "There is a pneumothorax on the left."), severity_of(truth, "No pneumothorax.")
    (1.0, None)
    """
    rules = load_rule_set(truth.rule_set)
    errors = errors_of(truth, read(response, rules).facts)
    return max((rules.severity(name, kind) for name, kind in errors if name in rules.findings), default=None)
