"""``key=value`` of a command line: the one parser of overrides of recipes and specs, and of a reward's knobs.

The key is dotted; the value is YAML. Left out: adding to a list, and reaching into one (``rewards.0.weight=1``).
"""

import unicodedata
from collections.abc import Iterable
from typing import Any, cast

import yaml

from rewards.config.input_error import InputError
from rewards.config.yaml_loader import cut_off, loaded

SHOWN = 80
BLOCKS = ("|", ">")
"""How YAML begins a text that may hold line breaks."""
BREAKING = ("Cc", "Zl", "Zp")
QUOTED, UNBROKEN = '"', 2**31
Override = str | tuple[str, Any]
"""``key=value`` as it is typed, or a dotted key and its value."""


def with_overrides(
    content: dict[str, Any], overrides: Iterable[Override], *, example: str = "seed=1"
) -> dict[str, Any]:
    """The content with dotted keys replaced; mappings that lie on the way are made.

    What a program overrides it gives as key and value, which no reading of text can change.

    Raises: InputError naming the override that is no ``key=value``, or whose key or value cannot be.

    >>> with_overrides({"trainer": {"seed": 1}}, ["trainer.seed=2", "output=runs/x"])
    {'trainer': {'seed': 2}, 'output': 'runs/x'}
    >>> with_overrides({}, [("output", "runs/a #1")])
    {'output': 'runs/a #1'}
    """
    for override in overrides:
        key, value = override if isinstance(override, tuple) else key_and_value(override, example=example)
        *parents, last = key.split(".")
        section = content
        for parent in parents:
            # `trainer:` with nothing behind it is null, and holds no key yet
            inner = {} if section.get(parent) is None else section[parent]
            if not isinstance(inner, dict):
                held = "a list, which is written whole" if isinstance(inner, list) else f"'{_short(str(inner))}'"
                raise InputError(f"{override_shown(override)}: '{parent}' holds {held}, and no further keys.")
            section[parent] = inner
            section = cast(dict[str, Any], inner)
        section[last] = value
    return content


def override_shown(override: Override) -> str:
    """How an override is named in a fault.

    >>> override_shown("trainer.seed=a"), override_shown(("output", "runs/a #1"))
    ("override 'trainer.seed=a'", "override 'output=runs/a #1'")
    """
    return f"override '{_short(f'{override[0]}={override[1]}' if isinstance(override, tuple) else override)}'"


def written(key: str, text: str) -> str:
    """The override as it can be typed, for another process, which reads the same text.

    >>> written("output", "runs/a #1"), key_and_value(written("output", "runs/a #1"))[1]
    ('output="runs/a #1"', 'runs/a #1')
    """
    return f"{key}={yaml.safe_dump(text, default_style=QUOTED, width=UNBROKEN).rstrip()}"


def knob_values(pairs: Iterable[str]) -> dict[str, Any]:
    """The knobs of a reward.

    Raises: InputError naming the pair that is no ``knob=value``, or a knob that is given twice.

    >>> knob_values(["space=0-1000", "tolerance=0.5"])
    {'space': '0-1000', 'tolerance': 0.5}
    """
    knobs = dict[str, Any]()
    for pair in pairs:
        name, value = key_and_value(pair, example="tolerance=0.5")
        if name in knobs:
            raise InputError(f"override '{_short(pair)}': '{name}' is given twice. Keep one of them.")
        knobs[name] = value
    return knobs


def key_and_value(override: str, *, example: str = "seed=1") -> tuple[str, Any]:
    """The two sides of one override, the value read as YAML.

    Raises: InputError naming the override.

    >>> key_and_value("trainer.learning_rate=1.0e-6")
    ('trainer.learning_rate', 1e-06)
    """
    key, equals, value = override.partition("=")
    where = f"override '{_short(override)}'"
    if not equals:
        raise InputError(f"{where}: expected key=value, such as {example}.")
    if not all(part.strip() == part and part.isprintable() and part for part in key.split(".")):
        raise InputError(f"{where}: expected a key before '=', such as {example}.")
    try:
        content, comment = loaded(value), cut_off(value)
    except yaml.YAMLError as fault:
        raise InputError(
            f"{where}: '{_short(value)}' is not readable as a YAML value ({_short(_reason(fault))}). "
            f"Quote it if it is a text: {_short(key)}='\"...\"'."
        ) from None
    if isinstance(content, str) and value.lstrip()[:1] not in BLOCKS and (broken := _breaks(value)):
        raise InputError(
            f"{where}: the value holds {broken}, a line break or control character, which YAML changes. Leave it out, "
            f"or write it as YAML does: {_short(key)}='\"a\\nb\"'."
        )
    if comment:
        raise InputError(
            f"{where}: YAML takes '{_short(comment)}' for a comment. Quote the value: {_short(key)}='\"...\"'."
        )
    return key, content


def _breaks(text: str) -> str:
    """The first character of a text that is a line break or a control character, as Python writes it; "" if none is."""
    return next((repr(char) for char in text if unicodedata.category(char) in BREAKING), "")


def _reason(fault: yaml.YAMLError) -> str:
    return str(getattr(fault, "problem", None) or fault)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 3]}..."
