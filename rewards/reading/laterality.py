"""Laterality: on which side a sentence puts a finding, and which words around its phrase are its own.

In "small left effusion and right basal atelectasis" each has its side. Left out: lobes and zones.
"""

import re
from dataclasses import dataclass

BILATERAL = "bilateral"
SIDE = re.compile(
    r"\b(?:(?P<bilateral>bilateral(?:ly)?|bi(?:basilar|basal|apical)"
    r"|(?:both|either) (?!and\b)(?:the |of the )?(?:\w+ )?(?:lung|side|base|apex|apices|lobe|hemi\w+)s?"
    r"|left(?:-sided)? (?:and|or|/) (?:the )?right|right(?:-sided)? (?:and|or|/) (?:the )?left)"
    r"|(?P<left>left|l(?:ul|ll)|lingular?)|(?P<right>right|r(?:ul|ml|ll)))\b"
)
LEFT_AND_RIGHT = re.compile(r"\b(?:left|right)(?:-sided)? and (?:left|right)\b")
BREAK = re.compile(r"[,;:/]|\b(?:and|or|with|without|but)\b")


@dataclass(frozen=True)
class Near:
    """The words around a phrase: all since the last one and to the next, and those of its own part of the list."""

    before: str
    after: str
    clause_before: str
    clause_after: str


def near_words(before: str, after: str, *, first: bool, last: bool) -> Near:
    """The words around a phrase, given all before it and behind it; ``first``, ``last``: of those in its sentence.

    >>> near_words("small left ", " and right basal ", first=True, last=False).clause_after
    ' '
    """
    breaks = [m.start() for m in BREAK.finditer(after)]
    clause_after = after if last or not breaks else after[: breaks[-1]]
    pair = LEFT_AND_RIGHT.search(before) if first else None
    clause_before = before[pair.start() :] if pair else BREAK.split(before)[-1]
    return Near(before, after, clause_before, clause_after)


def side_of(near: Near, sides: list[str]) -> str | None:
    """The side named in the phrase's own words, before it or else behind it, or else anywhere before it.

    ``bilateral`` where both are named, also where ``sides`` does not list it: what is said is read, right or wrong.

    >>> side_of(near_words("small left ", " and right basal ", first=True, last=False), ["left", "right"])
    'left'
    """
    if not {"left", "right"} <= set(sides):
        return nearest_word(sides, near.clause_after, near.before)
    for text in (near.clause_before, near.clause_after, near.before):
        named = {match.lastgroup for match in SIDE.finditer(text)}
        if named:
            return next(iter(named)) if len(named) == 1 else BILATERAL
    return None


def nearest_word(words: list[str], first: str, second: str) -> str | None:
    """The one of ``words`` that stands in the first text, or else in the second."""
    for text in (first, second):
        hits = [(m.start(), w) for w in words if (m := re.search(rf"\b{re.escape(w)}\b", text, re.IGNORECASE))]
        if hits:
            return min(hits)[1]
    return None
