"""The two filters of the command line, a line of JSON in and a line out: ``score`` and ``read``. Loads no torch."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from rewards.loading import load_reward
from rewards.reading import read
from rewards.rule_set import load_rule_set
from rewards.strict_yaml import InputError


def score_lines(name: str, knobs: list[str], lines: Iterable[str]) -> Iterator[str]:
    """Each row with its ``score`` (null: cannot be judged) and ``components``.

    Raises: InputError naming the line that is not JSON, or lacks ``response`` or a column of the reward.
    """
    reward = load_reward(name, **_knobs(knobs))
    for number, row in _rows(lines):
        lacking = [c for c in ("response", *reward.columns) if c not in row]
        if lacking:
            raise InputError(f"line {number}: '{name}' reads {', '.join(lacking)}, which this row lacks.")
        columns = {c: row[c] for c in reward.columns}
        scored = {
            "score": reward(row["response"], **columns),
            "components": reward.components(row["response"], **columns),
        }
        yield json.dumps({**row, **scored})


def read_lines(rule_set: str, lines: Iterable[str]) -> Iterator[str]:
    """Each row with the ``facts`` read from its ``text``, the evidence (words, and the cue that decided), the rest."""
    rules = load_rule_set(rule_set)
    for number, row in _rows(lines):
        if "text" not in row:
            raise InputError(f"line {number}: a row needs a 'text'.")
        reading = read(row["text"], rules)
        facts = reading.facts.model_dump(exclude_defaults=True)
        evidence = {
            name: [{"words": words, "cue": cue} for words, cue in zip(said, reading.cues[name], strict=True)]
            for name, said in reading.evidence.items()
        }
        found = {"facts": facts, "evidence": evidence, "conflicts": sorted(reading.conflicts)}
        yield json.dumps({**row, **found, "unread": list(reading.unread)})


def _rows(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as fault:
            raise InputError(f"line {number}: not JSON ({fault.msg}).") from None
        if not isinstance(row, dict):
            raise InputError(f"line {number}: expected an object, got {type(row).__name__}.")
        yield number, row


def _knobs(pairs: list[str]) -> dict[str, Any]:
    knobs: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"knob '{pair}': expected knob=value.")
        knobs[name] = yaml.safe_load(value)
    return knobs
