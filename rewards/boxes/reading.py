"""Boxes with all that a text says beside them: label and image of a sequence.

``box_text.parse_boxes`` is the short way where only coordinates count.
"""

import re
from dataclasses import dataclass

from rewards.answers.final_answer import answer_region
from rewards.reading.box_text import MAX_BOXES, LocatedBox, is_valid, located_boxes
from rewards.rules.facts import Box

JSON_LABEL = re.compile(r"""["'](?:label|name|class|category)["']\s{0,40}:\s{0,40}["']([^"'{}\[\]]{1,80})["']""")
JSON_IMAGE = re.compile(r"""["'](?:image|image_index|image_id|frame)["']\s{0,40}:\s{0,40}["']?(\d{1,4})""")
NAMED_IMAGE = re.compile(r"(?:<image|<img|\bimage|\bframe|\bslice)[\s_#-]{0,3}(\d{1,4})\b", re.IGNORECASE)
REFERENCE = re.compile(
    r"<ref>([^<>]{1,80})</ref>|<p(?:hrase)?>([^<>]{1,80})</p(?:hrase)?>"
    r"|<\|object_ref_start\|>([^<>|]{1,80})<\|object_ref_end\|>"
)
AFTER_TOKENS = re.compile(r"\s{0,9}([^<>;\n]{1,80})")
WORDS_BEFORE = re.compile(r"([^\W\d_][\w /'-]{0,79}?)\s{0,9}:?\s{0,9}(?:<box>|<\|box_start\|>)?[\[(\s]{0,9}\Z")


@dataclass(frozen=True)
class ReadBox:
    """A valid box in the units as written. ``label`` in lower case; ``image``: its number in a sequence, as written."""

    box: Box
    label: str | None = None
    image: int | None = None


@dataclass(frozen=True)
class BoxReading:
    """What was read. ``num_invalid``: boxes without area."""

    boxes: tuple[ReadBox, ...]
    num_invalid: int = 0


def read_boxes(text: str) -> BoxReading:
    """Every box of the answer region with its label and image; at most 100. Never raises.

    A label stands in the same JSON object, in a reference tag or right before the box; one label holds for all boxes
    of its list. An image is a JSON key (``image``, ``frame``) or the last ``image 2`` named before.

    >>> read_boxes("image 2: nodule <box>[[1,2,3,4]]</box>").boxes
    (ReadBox(box=(1.0, 2.0, 3.0, 4.0), label='nodule', image=2),)
    """
    region = answer_region(text)
    located = list(located_boxes(region))
    valid = [written for written in located if is_valid(written.box)]
    stretches = _stretches(region, located)
    found: list[ReadBox] = []
    label, image = None, None
    for written, before, after in stretches:
        new_image = _image(before, after)
        label = _label(region, written, before, after) or (label if _same_list(before) else None)
        image = image if new_image is None else new_image
        if is_valid(written.box):
            found.append(ReadBox(written.box, label, image))
    return BoxReading(tuple(found[:MAX_BOXES]), len(located) - len(valid))


def _stretches(region: str, located: list[LocatedBox]) -> list[tuple[LocatedBox, str, str]]:
    """Each box with the text since the box before it and until the next one."""
    starts = [*(written.start for written in located), len(region)]
    ends = [0, *(written.end for written in located)]
    return [
        (written, region[ends[k] : written.start], region[written.end : starts[k + 1]])
        for k, written in enumerate(located)
    ]


def _same_list(before: str) -> bool:
    return not re.search(r"\w", before)


def _label(region: str, written: LocatedBox, before: str, after: str) -> str | None:
    """The label of one box, or None where nothing names it."""
    if region.startswith("<loc", written.start):
        named = AFTER_TOKENS.match(after)
    else:
        named = _in_object(JSON_LABEL, before, after) or _last(REFERENCE, before) or WORDS_BEFORE.search(before[-120:])
    words = next((group for group in named.groups() if group), "") if named else ""
    return re.sub(r"\s+", " ", words).strip(" :-").lower() or None


def _image(before: str, after: str) -> int | None:
    named = _in_object(JSON_IMAGE, before, after) or _last(NAMED_IMAGE, before)
    return int(named[1]) if named else None


def _in_object(pattern: re.Pattern[str], before: str, after: str) -> re.Match[str] | None:
    """A key of the JSON object that a box stands in: after the last ``{`` before it, or up to the ``}`` behind it."""
    if "{" not in before:
        return None
    return pattern.search(before[before.rindex("{") :]) or pattern.search(after.partition("}")[0])


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = None
    for match in pattern.finditer(text):
        found = match
    return found
