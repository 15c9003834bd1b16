"""Sections of a report: which of them assert findings, and where their sentences end.

An indication, a history or a comparison names findings that are asked for or were; none asserts that one is there.
Left out: sections without a heading.
"""

import re
from collections.abc import Iterator

ASSERTING = (
    r"findings?|impressions?|conclusions?|interpretation|opinion|summary|results?|assessment|diagnosis|report|addendum"
    r"|lungs?|lungs? and pleura|pleura|heart|mediastinum|bones?|chest|cardiac|airways|soft tissues"
)
SILENT = (
    r"(?:clinical |patient |reason for |past |medical |relevant )*(?:indications?|history|information|details|question"
    r"|data|concern|exam(?:ination)?|study|visit|request)|indication for (?:exam(?:ination)?|study)|hx"
    r"|comparisons?|comparison studies|techniques?|procedures?|exam(?:ination)?(?: type| date)?|study|views?|priors?"
    r"|symptoms?|referral|reason|signs and symptoms|recommendations?"
)
HEADING = re.compile(rf"(?:^|(?<=[\n.;!?]))[ \t*#]*+(?:(?P<silent>{SILENT})|(?:{ASSERTING}))[ \t*]*+:", re.IGNORECASE)
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
OPEN_END = re.compile(
    r"(?:(\b(?:of|or|and|no|the|a|an|in|for|with|without|to|is|are|any|from|by|at|on|nor)|,)[ \t]*\n[ \t]*(?=\w)"
    r"|\n[ \t]*(?=(?:or|and|nor)\b))",
    re.IGNORECASE,
)
WRAPPED = re.compile(r"^(.{50,}[\w,)])[ \t]*\n[ \t]*(?=[a-z])", re.MULTILINE)


def asserting(text: str) -> Iterator[str]:
    """The parts of a report that say what is there, headings left out; all of a text without headings.

    >>> [part for part in asserting("INDICATION: rule out nodule. FINDINGS: No nodule.") if part]
    [' No nodule.']
    """
    start, silent = 0, False
    for heading in HEADING.finditer(text):
        if not silent:
            yield text[start : heading.start()]
        start, silent = heading.end(), heading.group("silent") is not None
    if not silent:
        yield text[start:]


def _joined(wrapped: re.Match[str]) -> str:
    return f"{wrapped.group(1) or ''} "


def sentences(text: str) -> Iterator[str]:
    r"""The sentences of a text, in order; a line ends one unless it was only wrapped there.

    >>> list(sentences("No evidence of\neffusion. Nodule\nNo mass"))
    ['No evidence of effusion.', 'Nodule', 'No mass']
    """
    if "\n" in text:
        text = WRAPPED.sub(r"\1 ", OPEN_END.sub(_joined, text))
    for part in asserting(text):
        yield from filter(None, (s.strip() for s in SENTENCE_END.split(part)))
