"""Rows that no metric judges, whatever is answered to them: why, and how many, so that none is left out in silence.

Left out: rows whose answer cannot be read; those are judged, as wrong.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from alignment.metrics.capability import judged
from alignment.metrics.evaluated_row import EvaluatedRow
from rewards.config.input_error import InputError
from rewards.reading.reading import read
from rewards.rules.facts import Facts
from rewards.rules.rule_set import RuleSet, load_rule_set

CLOSED_TASKS = ("presence", "side", "size", "count")
BY_EQUALITY = (*CLOSED_TASKS, "closed", "choice")
"""Tasks whose answer is right where its words are those of the truth."""


def why_unjudged(row: EvaluatedRow, rules: RuleSet | None = None) -> str | None:
    """Why no metric judges a row whatever is answered to it; None where one does.

    ``rules``: where the rows' rule set is not shipped.
    """
    task, ruled = row["task"], rules is not None or bool(row["rule_set"])
    if task == "dialogue":
        return None
    if task == "box" or row.get("box_images"):
        return "box without true boxes" if row["boxes"] is None else None
    if row.get("capability") and ruled:
        return _why_capability(row, rules or load_rule_set(row["rule_set"]))
    written = bool(re.search(r"\w", row["answer"] or ""))
    if task == "report":
        return None if written or has_facts(row, rules) else "report without facts"
    if task not in (*BY_EQUALITY, "open"):
        return f"no metric for task '{task}'"
    return None if written else f"{task} without an answer"


def has_facts(row: EvaluatedRow, rules: RuleSet | None = None) -> bool:
    """Whether a report's truth is known: some finding, or under a rule set that charges what is unsupported, none."""
    if not row["facts"] or (rules is None and not row["rule_set"]):
        return False
    facts = Facts.told(row["facts"])
    if facts.findings:
        return True
    return bool(facts.rule_set) and (rules or load_rule_set(facts.rule_set)).unsupported == "wrong"


def _why_capability(row: EvaluatedRow, rules: RuleSet) -> str | None:
    if judged(row, "") is not None or read(row["answer"] or "", rules).facts.findings:
        return None
    return "answer of a curriculum that states no finding"


def unjudged_rows(
    rows: Sequence[EvaluatedRow], *, rules: RuleSet | None = None, where: str | Path = "rows"
) -> dict[str, int]:
    """How many rows no metric judges, by reason; the commonest first.

    Raises: InputError if that is all of them: a model need not answer in vain.
    """
    reasons = Counter(reason for row in rows if (reason := why_unjudged(row, rules)))
    counted = dict(reasons.most_common())
    if sum(counted.values()) == len(rows):
        summary = ", ".join(f"{number} x {reason}" for reason, number in counted.items())
        raise InputError(
            f"{where}: no metric judges any of its {len(rows)} rows ({summary}). Give reports facts and a rule set, "
            "boxes their column `boxes`, questions their `answer`, or name other rows."
        )
    return counted
