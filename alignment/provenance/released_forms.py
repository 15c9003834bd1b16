"""Forms: what of a value is kept in a release. A form takes a value and gives that, or ``LEFT_OUT``.

Left out: errors. What is of no known form is not kept, and the rest stands.
"""

import math
import re
from collections.abc import Callable
from typing import Any

LEFT_OUT: Any = object()
"""What a form gives for a value that is not kept."""
Form = Callable[[object], Any]
OTHER = "other"


def number(value: object) -> object:
    """A finite number, a truth value or None."""
    if value is None or isinstance(value, bool | int):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else LEFT_OUT


def one_of(*known: str) -> Form:
    """A word of a list."""
    return lambda value: value if isinstance(value, str) and value in known else LEFT_OUT


def pattern(expression: str) -> Form:
    """A text that matches from end to end."""
    return lambda value: value if isinstance(value, str) and re.fullmatch(expression, value, re.ASCII) else LEFT_OUT


def record(**forms: Form) -> Form:
    """A mapping of which these names are kept."""

    def kept(value: object) -> object:
        if not isinstance(value, dict):
            return LEFT_OUT
        found = {name: form(value[name]) for name, form in forms.items() if name in value}
        return {name: field for name, field in found.items() if field is not LEFT_OUT}

    return kept


def table(key: Form, value: Form) -> Form:
    """A mapping of which the entries are kept whose key and value both are."""

    def kept(content: object) -> object:
        if not isinstance(content, dict):
            return LEFT_OUT
        found = {key(name): value(entry) for name, entry in content.items()}
        return {name: entry for name, entry in found.items() if name is not LEFT_OUT and entry is not LEFT_OUT}

    return kept


def counts(key: Form) -> Form:
    """A mapping to counts; those whose key is not kept are summed under ``other``."""

    def kept(content: object) -> object:
        if not isinstance(content, dict):
            return LEFT_OUT
        summed: dict[str, int] = {}
        for name, count in content.items():
            if isinstance(count, int):
                shown = OTHER if key(name) is LEFT_OUT else key(name)
                summed[shown] = summed.get(shown, 0) + count
        return summed

    return kept


def each(form: Form) -> Form:
    """A list of which those entries are kept that are of a form."""

    def kept(content: object) -> object:
        return (
            [form_kept for one in content if (form_kept := form(one)) is not LEFT_OUT]
            if isinstance(content, list)
            else LEFT_OUT
        )

    return kept


def either(*forms: Form) -> Form:
    """What the first form keeps that keeps anything."""
    return lambda value: next((form_kept for form in forms if (form_kept := form(value)) is not LEFT_OUT), LEFT_OUT)
