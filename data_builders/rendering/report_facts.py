"""A clinician's report as facts: findings with negation, doubt, size and region, and the stage where one is stated.

The reader is ``rewards.reading.reading``; here stands what a report needs on top: other words for a region, image sides
as regions of the eye, and the sentence with the stage. What a report does not name is not known. Left out: several
studies in one report.
"""

import re

from rewards.reading.reading import read
from rewards.reading.sections import sentences
from rewards.rules.facts import Facts
from rewards.rules.guidelines import read_level
from rewards.rules.rule_set import RuleSet

NASAL_SIDE = {"left": "left", "right": "right"}
"""On which side of the image the nose is, by eye."""
OF_A_LEVEL = re.compile(r"\b(?:amd|macular degeneration|stag(?:e|ed|es|ing)|disease|wet|healthy)\b", re.IGNORECASE)
EYE_NAMED = re.compile(r"\b(?:left|right) eye\b", re.IGNORECASE)
IMAGE_SIDE = re.compile(
    r"\b(?:on|to|in|at) the (?P<side>left|right)(?: (?:side|half|part))?(?: of the (?:image|scan|slice|fovea))?\b"
    r"|\b(?P<of>left|right) of the fovea\b",
    re.IGNORECASE,
)


def region_of(side: str, eye: str | None) -> str | None:
    """The region of the eye on one side of the image; None where the eye is not known.

    >>> region_of("left", "left"), region_of("left", "right"), region_of("left", None)
    ('nasal', 'temporal', None)
    """
    if eye not in NASAL_SIDE:
        return None
    return "nasal" if side == NASAL_SIDE[eye] else "temporal"


def report_facts(text: str, rules: RuleSet, *, eye: str | None = None, scale: str | None = "stage") -> Facts:
    """What a report says of the findings, and the level of ``scale`` that it states.

    >>> from rewards.rules.rule_set import load_rule_set
    >>> facts = report_facts("Subfoveal fluid. No obvious drusen. Active wet AMD.", load_rule_set("retina_amd"))
    >>> facts.findings["drusen"].polarity, facts.findings["retinal_fluid"].polarity, facts.values["stage"]
    ('absent', 'present', 'active late wet AMD')
    """
    plain = _with_regions(text, rules, eye)
    found = read(plain, rules).facts
    level = stated_level(plain, scale, rules) if scale else None
    values = {**({"eye": eye} if eye else {}), **({scale: level} if scale and level else {})}
    return found.model_copy(update={"values": values})


def stated_level(text: str, scale: str, rules: RuleSet) -> str | None:
    """The one level that the sentences of a report state; None where none does, or two differ.

    A sentence must speak of a stage or the disease: "early atrophy" is no early stage.
    """
    if rules.staging is None or scale not in rules.staging.scales:
        return None
    named = [sentence for sentence in sentences(text) if OF_A_LEVEL.search(sentence)]
    stated = {level for sentence in named if (level := read_level(sentence, scale, [rules.id])) is not None}
    return stated.pop() if len(stated) == 1 else None


def _with_regions(text: str, rules: RuleSet, eye: str | None) -> str:
    """The text with the rule set's words for regions in place of others, and of sides of the image."""
    if "nasal" in rules.side_words:
        text = IMAGE_SIDE.sub(lambda match: _region(match, eye), EYE_NAMED.sub("eye", text))
    for side, others in rules.side_words.items():
        longest_first = sorted(others, key=len, reverse=True)
        text = re.sub(rf"\b(?:{'|'.join(map(re.escape, longest_first))})\b", side, text, flags=re.IGNORECASE)
    return text


def _region(match: re.Match[str], eye: str | None) -> str:
    region = region_of((match["side"] or match["of"]).casefold(), eye)
    return f"in the {region} region" if region else match.group()
