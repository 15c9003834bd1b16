"""Ranges of the rewards' knobs, as types of their signatures: a value outside is refused before a run (``loading``).

Left out: ranges over several knobs, such as a least number above the most.
"""

from typing import Annotated, Any, get_args

from pydantic import Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
"""A credit, a threshold, a part of a whole."""
Amount = Annotated[float, Field(ge=0.0)]
"""A cost or a weight: a negative one would pay for what it is there to punish."""
Above = Annotated[float, Field(gt=0.0)]
"""A size that divides."""
Count = Annotated[int, Field(ge=0)]
"""A number of words, tokens or calls."""
Number = Annotated[int, Field(ge=1)]
"""A number of which there is at least one."""
SIGNS = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}


def range_of(hint: Any) -> str:
    """What a knob's type asks for, in words; empty for a type without a range.

    >>> range_of(Share), range_of(Number | None), range_of(float)
    ('expected a number of at least 0 and of at most 1', 'expected a whole number of at least 1, or none', '')
    """
    kinds = [kind for kind in (hint, *get_args(hint)) if getattr(kind, "__metadata__", None)]
    if not kinds:
        return ""
    constraints = [limit for kind in kinds for info in kind.__metadata__ for limit in info.metadata]
    limits = [f"{word} {getattr(c, sign):g}" for c in constraints for sign, word in SIGNS.items() if hasattr(c, sign)]
    number = "a whole number" if get_args(kinds[0])[0] is int else "a number"
    return f"expected {number} {' and '.join(limits)}{', or none' if type(None) in get_args(hint) else ''}"
