"""Rewards by name. A reward is a module of this package that defines ``BOUNDS`` and a function of its own name."""

import inspect
import pkgutil
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

import rewards
from rewards.strict_yaml import InputError, nearest


@dataclass(frozen=True)
class Reward:
    """A reward with its knobs set. ``columns``: what it reads of a row; ``bounds``: the least and most it gives."""

    name: str
    function: Callable[..., float | None]
    knobs: dict[str, Any] = field(default_factory=dict[str, Any])
    columns: tuple[str, ...] = ()
    bounds: tuple[float, float] = (0.0, 1.0)

    def __call__(self, response: str, **columns: Any) -> float | None:
        """The score of one response; None if it cannot be judged."""
        return self.function(response, *(columns[c] for c in self.columns), **self.knobs)

    def components(self, response: str, **columns: Any) -> dict[str, float]:
        """The parts of the score by name; empty for a reward without parts."""
        parts = getattr(import_module(f"rewards.{self.name}"), "components", None)
        return parts(response, *(columns[c] for c in self.columns), **self.knobs) if parts else {}

    @property
    def summary(self) -> str:
        """The first sentence of its docstring."""
        return (inspect.getdoc(self.function) or "").split("\n", maxsplit=1)[0]


@cache
def available() -> tuple[str, ...]:
    """Names of the rewards of this package.

    >>> "box_overlap" in available()
    True
    """
    names = [module.name for module in pkgutil.iter_modules(rewards.__path__) if not module.ispkg]
    return tuple(name for name in names if _function(name) is not None)


def _function(name: str) -> Callable[..., Any] | None:
    module = import_module(f"rewards.{name}")
    return getattr(module, name, None) if hasattr(module, "BOUNDS") else None


def load_reward(name: str, **knobs: Any) -> Reward:
    """The reward of a name.

    Raises: InputError if there is none, it has no such knob, or a knob has the wrong type.
    """
    if name not in available():
        hint = nearest(name, list(available()))
        raise InputError(f"no reward named '{name}'.{hint} Available: {', '.join(available())}.")
    function = _function(name)
    assert function is not None
    parameters = inspect.signature(function).parameters.values()
    _check_knobs(name, function, knobs, [p.name for p in parameters if p.kind is p.KEYWORD_ONLY])
    columns = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD][1:]
    return Reward(name, function, knobs, tuple(columns), import_module(f"rewards.{name}").BOUNDS)


def _check_knobs(name: str, function: Callable[..., Any], knobs: dict[str, Any], known: list[str]) -> None:
    hints = typing.get_type_hints(function)
    for knob, value in knobs.items():
        if knob not in known:
            raise InputError(
                f"'{name}' has no knob '{knob}'.{nearest(knob, known)} Knobs: {', '.join(known) or 'none'}."
            )
        try:
            TypeAdapter(hints[knob], config=ConfigDict(strict=True)).validate_python(value)
        except ValidationError as wrong:
            raise InputError(f"'{name}', knob '{knob}': got {value!r}; {wrong.errors()[0]['msg'].lower()}.") from None
