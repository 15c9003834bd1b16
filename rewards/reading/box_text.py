"""Boxes out of text, in every convention that models write, in linear time and without raising.

Bare lists ``[x1,y1,x2,y2]``, corner pairs ``(x1,y1),(x2,y2)`` (Qwen), ``<box>`` tags (InternVL, MedMO), fenced and
broken JSON, PaliGemma's ``<loc0123>`` and Kosmos-2's ``<patch_index_0044>``. Only the answer region of a response
counts, and all of it: no fence and no second convention hides a box. Units are as written: a coordinate space is
declared (``rewards.boxes.coordinate_space``), never guessed from numbers. What says that there is no box:
``rewards.reading.box_absence``. Left out: polygons, rotated boxes, and space-separated numbers.
"""

import math
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from rewards.answers.final_answer import answer_region
from rewards.rules.facts import Box

Layout = Literal["xyxy", "xywh", "cxcywh"]
Corners = Literal["reject", "repair"]
MAX_BOXES = 100
MAX_COORDINATE = 1e6
"""A larger number is no coordinate."""
_S = r"\s{0,40}"
_N = rf"{_S}(-?(?:\d{{1,7}}(?:\.\d{{0,20}})?|\.\d{{1,20}})(?:[eE][-+]?\d{{1,2}})?){_S}"
BOX = re.compile(rf"[\[(]{_N}[,,]{_N}(?:[,,]{_N}[,,]{_N}[\])]|\){_S}(?:[,,]{_S})?\({_N}[,,]{_N}\))")
NAMED = re.compile(
    rf"""["']?x(?:1|min)["']?{_S}:{_N},{_S}["']?y(?:1|min)["']?{_S}:{_N},"""
    rf"""{_S}["']?x(?:2|max)["']?{_S}:{_N},{_S}["']?y(?:2|max)["']?{_S}:{_N}"""
)
LOCATIONS = re.compile(r"<loc(\d{4})>" * 4)
PATCHES = re.compile(r"<patch_index_(\d{4})><patch_index_(\d{4})>")
NO_WORD = re.compile(r"```(?:json)?|[{}*`\"']")
_WORD = (
    r"(?!(?:there|is|are|was|one|yes|may|might|could|maybe|perhaps|possible|possibly|probable|probably|likely|i|know"
    r"|think|see|sure|unsure|not|but|if)\b)[^\W_][\w/-]*"
)
"""A word of a label; what claims or doubts something is none."""
_LABEL = rf"(?:there (?:is|are) no )?(?:{_WORD}[ :]{{1,3}}){{0,3}}(?:{_WORD}[ :]{{0,3}})?"
_LIST = r"(?:\[[\s,]*\]|<box>\s?(?:\[\s*\])?\s?</box>)"
_NO = r"(?:none|no (?:box(?:es)?|bounding box(?:es)?|findings?|lesions?|abnormalit(?:y|ies)))"
_BEFORE = r"(?:there (?:is|are) |i (?:can )?see |(?:the image|it) (?:shows|has|contains) )?"
_AFTER = r"(?: (?:is |are |was |were |to be )?(?:seen|found|present|visible|detected|there|here))?"
EMPTY = re.compile(rf"{_LABEL}{_LIST}|{_BEFORE}{_NO}{_AFTER}(?: (?:in|on) (?:this|the) (?:image|scan|film))?")
LONGEST_EMPTY = 120
BRACKETS = re.compile(r"[\[(\]),\s]+")
OTHER_MARKS = ("<loc", "<patch", "x1", "xmin")
PATCH = 32
"""Kosmos-2 has 32 x 32 patches; in PaliGemma's 1024 units a patch is 32 wide."""


class LocatedBox(NamedTuple):
    """A box as written, and from where to where in the text it stands."""

    box: Box
    start: int
    end: int


def parse_boxes(text: str, *, layout: Layout = "xyxy", corners: Corners = "reject") -> list[Box] | None:
    """The valid boxes of a response's answer region, at most 100, in the units as written.

    None: nothing there looks like a box. Empty list: it says that there is none, or every box is invalid.

    >>> parse_boxes("nodule [[12,34,56,78]]")
    [(12.0, 34.0, 56.0, 78.0)]
    >>> parse_boxes("[]"), parse_boxes("I cannot see it")
    ([], None)
    """
    written = written_boxes(text, layout=layout, corners=corners)
    return None if written is None else [box for box in written if is_valid(box)][:MAX_BOXES]


def written_boxes(text: str, *, layout: Layout = "xyxy", corners: Corners = "reject") -> list[Box] | None:
    """Every box of the answer region as (x1, y1, x2, y2), invalid ones too: a reward counts those as false boxes.

    ``corners="repair"`` sorts swapped corners.
    """
    region = answer_region(text)
    found = _boxes(region)
    if not found:
        return [] if is_empty_list(region) else None
    if layout != "xyxy":
        found = [as_corners(box, layout) for box in found]
    return [sorted_corners(box) for box in found] if corners == "repair" else found


def is_empty_list(region: str) -> bool:
    """Whether an answer is an empty list of boxes, or a bare "none" or "no boxes", and nothing else but its label.

    >>> is_empty_list("nodule []"), is_empty_list("No lesions."), is_empty_list("a nodule, none of it normal")
    (True, True, False)
    >>> is_empty_list("[] but I am not sure")
    False
    """
    words = " ".join(NO_WORD.sub(" ", region).split()).strip(" .:").casefold()
    return len(words) <= LONGEST_EMPTY and EMPTY.fullmatch(words) is not None


def is_valid(box: Box) -> bool:
    """True if all four numbers are finite and the box has an area."""
    x1, y1, x2, y2 = box
    return x1 < x2 and y1 < y2 and math.isfinite(x2 - x1) and math.isfinite(y2 - y1)


def as_corners(box: Box, layout: Layout) -> Box:
    """The four numbers of a layout as (x1, y1, x2, y2).

    >>> as_corners((10, 10, 4, 2), "xywh"), as_corners((10, 10, 4, 2), "cxcywh")
    ((10, 10, 14, 12), (8.0, 9.0, 12.0, 11.0))
    """
    x, y, wide, high = box
    if layout == "xywh":
        return x, y, x + wide, y + high
    return (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2) if layout == "cxcywh" else box


def sorted_corners(box: Box) -> Box:
    """The same rectangle with x1 <= x2 and y1 <= y2."""
    x1, y1, x2, y2 = box
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _boxes(text: str) -> list[Box]:
    """Every box of a text. The commonest convention goes straight through the pattern: half of a reward's time."""
    if any(mark in text for mark in OTHER_MARKS):
        return [located.box for located in located_boxes(text)]
    found = [(float(a), float(b), float(c or e), float(d or f)) for a, b, c, d, e, f in BOX.findall(text)]
    return [box for box in found if _is_near(box)]


def _is_near(box: Box) -> bool:
    return min(box) >= -MAX_COORDINATE and max(box) <= MAX_COORDINATE


def located_boxes(text: str) -> Iterator[LocatedBox]:
    """Every box of a text with its place, in their order, whatever their convention; coordinates within 1e6."""
    found = [
        LocatedBox(_box(pattern, match), match.start(), match.end())
        for pattern in (LOCATIONS, PATCHES, BOX, NAMED)
        for match in pattern.finditer(text)
    ]
    yield from sorted((located for located in found if _is_near(located.box)), key=lambda located: located.start)


def _box(pattern: re.Pattern[str], match: re.Match[str]) -> Box:
    if pattern is PATCHES:
        return _between_patches(int(match[1]), int(match[2]))
    a, b, c, d = (float(v) for v in match.groups() if v is not None)
    return (b, a, d, c) if pattern is LOCATIONS else (a, b, c, d)


def _between_patches(first: int, last: int) -> Box:
    """Kosmos-2's box between two patches, in 1024 units: centre to centre, or edge to edge within one row or column."""
    (y1, x1), (y2, x2) = divmod(first, PATCH), divmod(last, PATCH)
    if x1 == x2 or y1 == y2:
        return PATCH * x1, PATCH * y1, PATCH * (x2 + 1), PATCH * (y2 + 1)
    return PATCH * (x1 + 0.5), PATCH * (y1 + 0.5), PATCH * (x2 + 0.5), PATCH * (y2 + 0.5)


def labelled_boxes(text: str, phrases: re.Pattern[str]) -> tuple[str, list[tuple[str, Box]]]:
    """The text without its boxes, and each valid box with the last phrase named before it."""
    labels = [(m.end(), m.group()) for m in phrases.finditer(text)]
    boxes = [located for located in located_boxes(text) if is_valid(located.box)]
    found: list[tuple[str, Box]] = []
    current = -1
    for box, start, _ in boxes:
        while current + 1 < len(labels) and labels[current + 1][0] <= start:
            current += 1
        if current >= 0:
            found.append((labels[current][1], box))
    return BRACKETS.sub(_without_list, BOX.sub("[]", text)) if found else text, found[:MAX_BOXES]


def _without_list(run: re.Match[str]) -> str:
    """A run of brackets, commas and space without what stands from its first opening to its last closing bracket."""
    text = run.group()
    first = min((k for k in (text.find("["), text.find("(")) if k >= 0), default=len(text))
    last = max(text.rfind("]"), text.rfind(")"))
    return f"{text[:first]} {text[last + 1 :]}" if first < last else text
