"""How well reports that nobody here wrote are read: the Open-I reports, by their tags, beside a keyword matcher.

Rules and words were tuned on the reports with even numbers; the figures to state are those of the odd ones.
A finding counts as read where it is read as present; denied and doubtful ones count as not there, since the tags
cannot say them. ``keywords`` is the same lexicon without assertion: a finding is there unless a "no", "not" or
"without" stands before it in its sentence.
Loads no torch.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from data_builders.schema import Quarantined
from data_builders.sources.images.open_i import RULE_SET, TAGS, Report, open_i
from rewards.config.input_error import InputError
from rewards.reading.reading import phrase_pattern, read
from rewards.reading.sections import sentences
from rewards.rules.facts import Polarity
from rewards.rules.rule_set import RuleSet, load_rule_set

DENIED = re.compile(r"\b(?:no|not|without)\b", re.IGNORECASE)
SHOWN = 10
Counts = Counter[tuple[bool, bool]]
"""Numbers of reports by (tagged, read as present)."""


def eval_reader(source: Path | None = None, *, half: str = "odd") -> dict[str, Any]:
    """Precision, recall and F1 in [0, 1] of each finding, micro and macro, and the errors by class.

    Error classes: of the tagged but not read, how they were read (``uncertain``, ``absent``, ``conflict``,
    ``not named``); of the read but not tagged, whether the report is tagged ``normal`` (most likely the tags' fault).
    ``to_check`` names some of each class for a look by hand, on the even half only, so that the odd one stays unseen.
    A figure whose denominator is 0 is None.

    Raises: InputError if the Open-I reports are not installed, none of them can be scored, or ``half`` is neither
    ``odd`` nor ``even``.
    """
    if half not in ("odd", "even"):
        raise InputError(f"half: got '{half}'; expected odd (held out) or even (what the rules were tuned on).")
    rules = load_rule_set(RULE_SET)
    records = list(open_i(source))
    reports = [r for r in records if isinstance(r, Report) and r.number % 2 == (half == "odd")]
    left_out = Counter(r.reason for r in records if isinstance(r, Quarantined))
    if not reports:
        reasons = ", ".join(f"{number} x {reason}" for reason, number in left_out.items()) or "none left out"
        raise InputError(f"eval-reader: no report of the {half} half can be scored ({reasons}); name other reports.")
    by_finding: dict[str, Counts] = {name: Counter() for name in TAGS}
    keywords: Counts = Counter()
    errors: dict[str, list[str]] = {}
    for report in reports:
        reading, named = read(report.text, rules), _keywords(report.text, rules)
        for name, counts in by_finding.items():
            tagged = name in report.findings
            found = reading.facts.findings.get(name)
            is_read = found is not None and found.polarity == "present"
            counts[tagged, is_read] += 1
            keywords[tagged, name in named] += 1
            if tagged != is_read:
                polarity = found.polarity if found else None
                kind = _error(report, polarity, conflict=name in reading.conflicts)
                errors.setdefault(kind, []).append(f"{report.id} {name}")
    micro = _scores(sum(by_finding.values(), Counter()))
    each = {name: _scores(counts) for name, counts in by_finding.items()}
    known = [f1 for scores in each.values() if scores["tagged"] and (f1 := scores["f1"]) is not None]
    return {
        "rule_set": rules.id,
        "reports": {"half": half, "scored": len(reports), "left out of both halves": dict(left_out)},
        "micro": micro,
        "macro_f1": round(sum(known) / len(known), 3) if known else None,
        "keywords_micro": _scores(keywords),
        "errors": {kind: len(found) for kind, found in errors.items()},
        "to_check": {kind: found[:SHOWN] for kind, found in errors.items()} if half == "even" else {},
        "findings": each,
    }


def _keywords(text: str, rules: RuleSet) -> set[str]:
    """The findings whose phrases stand in a sentence without a denial before them."""
    owner = {
        p.casefold(): n for n, r in rules.findings.items() for p in [*r.phrases, *([r.plural] if r.plural else [])]
    }
    pattern = phrase_pattern(rules)
    return {
        owner[hit.group().casefold()]
        for sentence in sentences(text)
        for hit in pattern.finditer(sentence)
        if hit.group().casefold() in owner and not DENIED.search(sentence, 0, hit.start())
    }


def _error(report: Report, polarity: Polarity | None, *, conflict: bool) -> str:
    if polarity == "present":
        return "read, not tagged: report tagged normal" if report.tags == ("normal",) else "read, not tagged"
    return f"tagged, read as {'conflict' if conflict else polarity or 'not named'}"


def _scores(counts: Counts) -> dict[str, float | None]:
    right, tagged = counts[True, True], counts[True, True] + counts[True, False]
    is_read = right + counts[False, True]
    ratios = {"precision": (right, is_read), "recall": (right, tagged), "f1": (2 * right, tagged + is_read)}
    return {name: round(over / under, 3) if under else None for name, (over, under) in ratios.items()} | {
        "tagged": tagged
    }
