"""Whether an answer says that there is nothing to box: the reading of rows without a true box.

A bare empty list, "none" or "no boxes" says so of whatever was asked. A sentence does if it denies the finding that the
row asks about (``target``), as the rule set reads it; where the row names no target, no sentence is taken for it.
"""

from rewards.answers.final_answer import answer_region
from rewards.reading.box_text import written_boxes
from rewards.reading.reading import read
from rewards.rules.rule_set import load_rule_set


def says_none(response: str, target: str | None = None, rule_set: str | None = None) -> bool:
    """Whether the answer region denies what was asked for and holds no box, not even an invalid one.

    An empty list under the name of another finding is no answer.

    >>> says_none("nodule []"), says_none("I do not know, maybe there is one")
    (True, False)
    >>> says_none("There is no nodule here.", "nodule", "chest_xray@1")
    True
    >>> says_none("There is no effusion.", "nodule", "chest_xray@1")
    False
    """
    written = written_boxes(response)
    if written:
        return False
    rules = load_rule_set(rule_set) if rule_set else None
    if rules is None or target not in rules.findings:
        return written == []
    reading = read(answer_region(response), rules)
    if written == []:
        return set(reading.facts.findings) <= {target}
    finding = reading.facts.findings.get(target)
    return finding is not None and finding.polarity == "absent" and target not in reading.conflicts
