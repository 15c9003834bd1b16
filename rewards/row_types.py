"""What each column of a row may hold, by its name: one table for JSON lines that are scored and for data files.

A value is judged before any reward sees it, so that a reward's own crash is a bug and never a user's typo.
Left out: columns with other names, which belong to rewards of the user's own; pictures (``data_builders.row_checks``).
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from pydantic import ValidationError

from rewards.answers.choice_answer import option_named
from rewards.config.input_error import InputError, nearest
from rewards.config.json_lines import json_value
from rewards.dialogues.dialogue import read_dialogue
from rewards.rules.facts import Facts
from rewards.rules.rule_set import RuleSet, load_rule_set

SHOWN_LENGTH = 60
ROLES = ("system", "user", "assistant", "tool")
JSON_TEXTS = ("facts", "dialogue", "attributes", "regions")
"""Columns that hold JSON text."""


@dataclass(frozen=True)
class Kind:
    """What a column holds where it is not null: in words, and as a test."""

    wanted: str
    holds: Callable[[Any], bool]


def column_fault(name: str, value: Any) -> str | None:
    """Why a column cannot hold a value; None where it can, and for columns that are not known here.

    >>> column_fault("answer", 3)
    "'answer': got int 3; expected a text (in quotes) or null."
    >>> column_fault("boxes", [[0, 0, 5, 5]])
    """
    kind = KINDS.get(name)
    if kind is None or value is None or kind.holds(value):
        return None
    return f"'{name}': got {shown(value)}; expected {kind.wanted} or null."


def shown(value: Any) -> str:
    """A value with its type, cut short."""
    if value is None:
        return "null"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= SHOWN_LENGTH else text[:SHOWN_LENGTH] + '...'}"


def row_faults(row: Mapping[str, Any]) -> Iterator[str]:
    """Every fault of a row: columns of a wrong type, and columns that do not go together."""
    wrong = {name: fault for name, value in row.items() if (fault := column_fault(name, value))}
    yield from wrong.values()
    sound = {name: value for name, value in row.items() if name not in wrong and value is not None}
    for together in _TOGETHER:
        if fault := together(sound):
            yield fault


def as_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with ``facts`` and the like that were given as objects in the JSON text that rewards read."""
    return {k: json.dumps(v) if k in JSON_TEXTS and isinstance(v, dict) else v for k, v in row.items()}


def response_fault(response: Any, *, turns: bool) -> str | None:
    """Why this is no response; ``turns``: a list of texts, the turns of a dialogue, is one too."""
    if isinstance(response, str) or (turns and _texts(response)):
        return None
    return f"'response': got {shown(response)}; expected a text{' or a list of texts (turns)' if turns else ''}."


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_box(value: Any) -> bool:
    """Whether this is [x1, y1, x2, y2], finite, with x1 < x2 and y1 < y2.

    >>> is_box([0, 0, 5, 5]), is_box([5, 0, 0, 5]), is_box([0, 0, 5]), is_box("0055")
    (True, False, False, False)
    """
    if not isinstance(value, list | tuple):
        return False
    numbers = cast(list[Any], value)
    if len(numbers) != 4 or not all(map(_is_number, numbers)):
        return False
    return numbers[0] < numbers[2] and numbers[1] < numbers[3]


def _list_of(value: Any, test: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(test, cast(list[Any], value)))


def _texts(value: Any) -> bool:
    return _list_of(value, lambda one: isinstance(one, str))


def _options(value: Any) -> bool:
    if not _texts(value) or not all(text.strip() for text in value):
        return False
    return len({text.strip().casefold() for text in value}) == len(value)


def _sizes(value: Any) -> bool:
    return _list_of(value, lambda size: _list_of(size, lambda n: _is_number(n) and n > 0) and len(size) == 2)


def is_messages(value: Any) -> bool:
    """Whether this is a list of ``{role, content}``; content is a text, or blocks ``{type: image | text, text}``.

    >>> is_messages([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Where?"}]}])
    True
    >>> is_messages([{"role": "user", "content": [{"type": "text"}]}]), is_messages("Where?"), is_messages([])
    (False, False, False)
    """
    return _list_of(value, _is_message) and bool(value)


def _is_message(message: Any) -> bool:
    if not isinstance(message, dict):
        return False
    given = cast(dict[str, Any], message)
    content = given.get("content")
    return given.get("role") in ROLES and (isinstance(content, str) or (bool(content) and _list_of(content, _is_block)))


def _is_block(block: Any) -> bool:
    if not isinstance(block, dict):
        return False
    given = cast(dict[str, Any], block)
    return given.get("type") == "image" or (given.get("type") == "text" and isinstance(given.get("text"), str))


def _is_counterpart(value: Any) -> bool:
    given = cast(dict[str, Any], value) if isinstance(value, dict) else {}
    return isinstance(given.get("model"), str) and isinstance(given.get("text"), str)


TEXT = Kind("a text (in quotes)", lambda value: isinstance(value, str))
NAME = Kind("a text or a whole number", lambda value: isinstance(value, str) or _is_whole(value))
NUMBER = Kind("a finite number", _is_number)
TEXTS = Kind('a list of texts such as ["a", "b"]', _texts)
SIZES = Kind("a list of [width, height] in pixels, one for each image", _sizes)
MESSAGES = Kind(
    'messages such as [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "..."}]}]', is_messages
)
PROMPT = Kind(f"a text, or {MESSAGES.wanted}", lambda value: isinstance(value, str) or is_messages(value))
KINDS: dict[str, Kind] = {
    "id": NAME,
    **dict.fromkeys(("patient", "study"), NAME),
    **dict.fromkeys(("source", "split", "task", "rule_set", "provenance", "target", "answer", "kind"), TEXT),
    **dict.fromkeys(("stage", "capability", "text", "node"), TEXT),
    **dict.fromkeys(("guidelines", "answers"), TEXTS),
    **dict.fromkeys(("weight", "relevance"), NUMBER),
    "may_leave": Kind("true or false", lambda value: isinstance(value, bool)),
    "options": Kind('a list of different texts, none empty, such as ["CT", "MRI"]', _options),
    "boxes": Kind(
        "a list of boxes [x1, y1, x2, y2], each four finite numbers with x1 < x2 and y1 < y2",
        lambda value: _list_of(value, is_box),
    ),
    "box_images": Kind(
        "the number of the image of each box, counted from 1, such as [1, 2]",
        lambda value: _list_of(value, lambda n: _is_whole(n) and n > 0),
    ),
    "box_grid": Kind("a whole number above 0 such as 1000", lambda value: _is_whole(value) and value > 0),
    **dict.fromkeys(("image_size", "processed_size"), SIZES),
    "facts": Kind('JSON text such as "{\\"rule_set\\": ...}"', lambda value: isinstance(value, str)),
    "dialogue": Kind("JSON text", lambda value: isinstance(value, str)),
    "attributes": Kind('JSON text such as "{\\"sex\\": \\"F\\"}"', lambda value: isinstance(value, str)),
    "regions": Kind('JSON text such as "{\\"heart\\": [[10, 20, 60, 80]]}"', lambda value: isinstance(value, str)),
    "counterparts": Kind(
        'a list such as [{"model": "sft", "text": "..."}]', lambda value: _list_of(value, _is_counterpart)
    ),
    "completion_ids": Kind("a list of tokens", lambda value: isinstance(value, list)),
    "prompt": PROMPT,
    **dict.fromkeys(("completion", "chosen", "rejected"), MESSAGES),
}
"""By column. Where a data file must hold messages, ``prompt`` is stricter there."""


def _option_fault(row: Mapping[str, Any]) -> str | None:
    answer, options = row.get("answer"), row.get("options")
    if not answer or not options or option_named(answer, options) is not None:
        return None
    hint = nearest(answer, options)
    return f"'answer': '{answer}' is none of its options ({', '.join(options)}).{hint} Mend one of the two."


def _answers_fault(row: Mapping[str, Any]) -> str | None:
    answer, answers = row.get("answer"), row.get("answers")
    if answer is None or answers is None or (answers and answers[0] == answer):
        return None
    first = f"opens with '{answers[0]}'" if answers else "is empty"
    return f"'answers': {first}, and 'answer' is '{answer}'; expected all accepted answers, 'answer' first."


def _attributes_fault(row: Mapping[str, Any]) -> str | None:
    return _json_fault(row, "attributes", "texts, numbers, true, false or null by name", _is_attribute)


def _is_attribute(value: Any) -> bool:
    return value is None or isinstance(value, str | bool) or _is_number(value)


def _regions_fault(row: Mapping[str, Any]) -> str | None:
    return _json_fault(
        row, "regions", "a list of boxes [x1, y1, x2, y2] by name", lambda value: _list_of(value, is_box)
    )


def _json_fault(row: Mapping[str, Any], name: str, wanted: str, holds: Callable[[Any], bool]) -> str | None:
    """Why the JSON text of a column is no object whose values are what is ``wanted``."""
    if row.get(name) is None:
        return None
    try:
        content = json_value(row[name], f"'{name}'", f"Write {wanted}.")
    except InputError as fault:
        return str(fault)
    if not isinstance(content, dict):
        return f"'{name}': got {shown(content)}; expected {wanted}."
    wrong = next((item for item in cast(dict[str, Any], content).items() if not holds(item[1])), None)
    return None if wrong is None else f"'{name}': '{wrong[0]}' is {shown(wrong[1])}; expected {wanted}."


def _box_image_fault(row: Mapping[str, Any]) -> str | None:
    images, boxes, sizes = row.get("box_images"), row.get("boxes"), row.get("image_size")
    if images is None:
        return None
    if boxes is not None and len(images) != len(boxes):
        return f"'box_images': names {len(images)} images for {len(boxes)} boxes; expected one for each box."
    if sizes and max(images, default=1) > len(sizes):
        return f"'box_images': names image {max(images)}, but 'image_size' holds {len(sizes)}; count images from 1."
    return None


def _facts_fault(row: Mapping[str, Any]) -> str | None:
    try:
        return _fault_of_facts(row["facts"]) if row.get("facts") else None
    except InputError as fault:
        return f"'facts': {fault}"


@lru_cache(maxsize=1024)  # the rows of one image share them
def _fault_of_facts(text: str) -> str | None:
    """What is wrong with facts. Raises: InputError if no such rule set is known, which may change while we run."""
    try:
        facts = Facts.told(text)
    except ValidationError as fault:
        return f"'facts': not readable: {_first(fault)}. Write them as `clinalign read` does."
    boxes = [box for finding in facts.findings.values() for box in finding.boxes]
    if not all(map(is_box, boxes)):
        return "'facts': a box in them is not [x1, y1, x2, y2] with x1 < x2 and y1 < y2. Mend the box."
    if not facts.rule_set:
        return None
    rules = load_rule_set(facts.rule_set)
    named = [*facts.findings, *(change.finding for change in facts.changes)]
    unknown = [name for name in named if name not in rules.findings]
    if unknown:
        hint = nearest(unknown[0], list(rules.findings)) or f" Known: {', '.join(rules.findings) or 'none'}."
        return f"'facts': {rules.id} has no finding '{unknown[0]}'.{hint}"
    return None


def _first(fault: ValidationError) -> str:
    first = fault.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place + ': ' if place else ''}{first['msg']}"


def _rules(name: str) -> RuleSet | str:
    """The rule set, or why there is none."""
    try:
        return load_rule_set(name)
    except InputError as fault:
        return str(fault)


def _rule_fault(row: Mapping[str, Any]) -> str | None:
    if not row.get("rule_set"):
        return None
    rules = _rules(row["rule_set"])
    if isinstance(rules, str):
        return f"'rule_set': {rules}"
    target, nodes = row.get("target"), rules.decision.nodes if rules.decision else {}
    known = [*rules.findings, *nodes]
    if target is None or target in known:
        return None
    hint = nearest(target, known) or f" Known: {', '.join(known)}."
    return f"'target': {rules.id} has no '{target}'.{hint}"


def _provenance_fault(row: Mapping[str, Any]) -> str | None:
    """Of rows of a curriculum alone: their closed questions are judged by what it tells."""
    if not row.get("capability") or not row.get("provenance"):
        return None
    try:
        provenance = json_value(row["provenance"], "'provenance'", "Build the set anew.")
    except InputError as fault:
        return str(fault)
    return None if isinstance(provenance, dict) else f"'provenance': expected a JSON object, got {shown(provenance)}."


def _dialogue_fault(row: Mapping[str, Any]) -> str | None:
    return _fault_of_dialogue(row["dialogue"]) if row.get("dialogue") else None


def _fault_of_dialogue(text: str) -> str | None:
    try:
        dialogue = read_dialogue(text)
        decision = dialogue.decision
    except ValidationError as fault:
        return f"'dialogue': not readable: {_first(fault)}. Build it anew with `clinalign build`."
    except InputError as fault:
        return f"'dialogue': {fault}"
    for number, turn in enumerate(dialogue.turns, start=1):
        node = decision.nodes.get(turn.node)
        if node is None:
            return f"'dialogue': turn {number}: no node '{turn.node}'.{nearest(turn.node, list(decision.nodes))}"
        if turn.gold not in node.domain:
            return (
                f"'dialogue': turn {number}: '{turn.gold}' is no answer of node '{turn.node}'; there are "
                f"{', '.join(node.domain)}."
            )
    return None


_TOGETHER = (
    _option_fault,
    _answers_fault,
    _attributes_fault,
    _regions_fault,
    _box_image_fault,
    _facts_fault,
    _dialogue_fault,
    _rule_fault,
    _provenance_fault,
)
"""What looks beyond the type of a column: into its text, or at two columns together."""
