"""Evidence and what may be asked of it, in three values: yes (True), no (False), unknown (None).

Evidence is a mapping from names (columns, findings, stages) to values; what is missing or None is not known, which is
not the same as absent. Logic is Kleene's strong three-valued logic. Left out: arithmetic between columns.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import model_validator

from rewards.config.strict_model import StrictModel

Truth = bool | None
"""True, False, or None where the evidence does not decide."""
Scalar = str | bool | int | float
Value = Scalar | list[str] | frozenset[str] | None
"""A list is a value with several parts (codes of a stay); a frozenset is one value of which only that much is known."""
Evidence = Mapping[str, Value]


class Test(StrictModel):
    """What is asked of one value; all given keys must hold.

    ``above``, ``at_least``, ``below``, ``at_most``: numbers. ``starts_with``: any part begins with one of these
    (code sets: ``[I21, I22]``). ``contains``: one of these words or phrases stands in the text. ``none_of``: not these.
    ``if_unknown``: what a value that is not known counts as, where a policy must decide all the same.
    """

    __test__ = False

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    starts_with: list[str] = []
    contains: list[str] = []
    none_of: list[Scalar] = []
    if_unknown: bool | None = None

    @model_validator(mode="after")
    def _asks_something(self) -> "Test":
        asked = [name for name in type(self).model_fields if name != "if_unknown"]
        if not self.model_fields_set & set(asked):
            raise ValueError(f"nothing is asked. Give one of: {', '.join(asked)}.")
        return self

    def of(self, value: Scalar | list[str]) -> bool:
        """Whether a known value passes."""
        return self._numbers_pass(value) and self._words_pass(value)

    def _numbers_pass(self, value: Scalar | list[str]) -> bool:
        limits = (self.above, self.at_least, self.below, self.at_most)
        if all(limit is None for limit in limits):
            return True
        if not isinstance(value, int | float):
            return False
        return (
            (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )

    def _words_pass(self, value: Scalar | list[str]) -> bool:
        parts = [str(part) for part in value] if isinstance(value, list) else [str(value)]
        if self.starts_with and not any(part.startswith(tuple(self.starts_with)) for part in parts):
            return False
        if self.contains and not any(_spaced(c) in _spaced(part) for c in self.contains for part in parts):
            return False
        return not any(part == str(refused) for refused in self.none_of for part in parts)


def _spaced(text: str) -> str:
    """The words of a text between single spaces, so that words match whole."""
    return " ".join(["", *re.findall(r"[\w-]+", text.casefold()), ""])


Asked = Scalar | list[Scalar] | Test
"""A value, a list of values (one of them), or a test."""
Clause = dict[str, Asked]
"""All of these must hold."""


def holds(clause: Clause, evidence: Evidence) -> Truth:
    """Whether all parts of a clause hold.

    >>> holds({"drusen": "present", "size": "large"}, {"drusen": "present"}) is None
    True
    >>> holds({"drusen": "present", "size": "large"}, {"drusen": "absent"})
    False
    """
    return every(answered(asked, evidence.get(name)) for name, asked in clause.items())


def any_holds(clauses: Iterable[Clause], evidence: Evidence) -> Truth:
    """Whether one of the clauses holds."""
    denied = every(_negated(holds(clause, evidence)) for clause in clauses)
    return _negated(denied)


def answered(asked: Asked, value: Value) -> Truth:
    """Whether a value is what is asked for."""
    if value is None:
        return asked.if_unknown if isinstance(asked, Test) else None
    if isinstance(value, frozenset):
        return _agreed({_passes(asked, possible) for possible in value})
    return _passes(asked, value)


def every(truths: Iterable[Truth]) -> Truth:
    """The conjunction: False if one is, else None if one is, else True."""
    seen = set(truths)
    return False if False in seen else None if None in seen else True


def _negated(truth: Truth) -> Truth:
    return None if truth is None else not truth


def _agreed(answers: set[bool]) -> Truth:
    return answers.pop() if len(answers) == 1 else None


def _passes(asked: Asked, value: Scalar | list[str]) -> bool:
    if isinstance(asked, Test):
        return asked.of(value)
    wanted: list[Any] = asked if isinstance(asked, list) else [asked]
    held: list[Any] = value if isinstance(value, list) else [value]
    return any(part in wanted for part in held)
