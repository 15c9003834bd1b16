"""Rewards by name. A reward is a file in a room of this package: ``BOUNDS``, ``TASKS`` and a function of its name.

One that needs a group or a service defines a frozen dataclass instead, named in camel case (``RoundRobin`` in
``round_robin``): its fields are the knobs, its ``columns`` what it reads, and it is awaited with a whole batch.
"""

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from rewards.config.input_error import InputError, nearest
from rewards.config.knobs import range_of
from rewards.config.named_modules import modules_with


@dataclass(frozen=True)
class Reward:
    """A reward with its knobs set. ``bounds``: the least and most it gives.

    ``columns``: what it reads of a row; ``optional``: what it reads too where the row has it.
    ``tasks``: those whose rows it pays for; None: all.
    """

    name: str
    function: Callable[..., float | None]
    knobs: dict[str, Any] = field(default_factory=dict[str, Any])
    columns: tuple[str, ...] = ()
    bounds: tuple[float, float] = (0.0, 1.0)
    optional: tuple[str, ...] = ()
    tasks: tuple[str, ...] | None = None

    def __call__(self, response: str | Sequence[str], **columns: Any) -> float | None:
        """The score of one response (of a dialogue: the model's turns); None if it cannot be judged."""
        return self.function(response, **self.read_of(columns), **self.knobs)

    def read_of(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The columns that it reads, out of all those of a row. KeyError if one that is not optional is not there."""
        return {c: row[c] for c in self.columns} | {c: row[c] for c in self.optional if c in row}

    def components(self, response: str | Sequence[str], **columns: Any) -> dict[str, float]:
        """The parts of the score by name; empty for a reward without parts."""
        parts = getattr(self._home, "components", None)
        return parts(response, **self.read_of(columns), **self.knobs) if parts else {}

    @property
    def _home(self) -> ModuleType | None:
        """Its file; None for a function that is none of this package, whatever its name."""
        return _module(self.name) if _is_ours(self.name, self.function) else None

    @property
    def judges_turns(self) -> bool:
        """Whether it says what each turn of a dialogue earns."""
        return hasattr(self._home, "by_turn")

    def by_turn(self, responses: Sequence[str], **columns: Any) -> tuple[list[float], float]:
        """What each turn of a dialogue earns, and the dialogue beyond them; for a reward that ``judges_turns``."""
        assert self._home is not None, "asked of a function of the user's"
        parts = self._home.by_turn
        return parts(responses, **self.read_of(columns), **self.knobs)

    @property
    def summary(self) -> str:
        """The first sentence of its docstring."""
        return (inspect.getdoc(self.function) or "").split("\n", maxsplit=1)[0]


@cache  # asked for at each answer
def _module(name: str) -> ModuleType:
    return _modules()[name]


def _is_ours(name: str, function: Callable[..., Any]) -> bool:
    return getattr(_modules().get(name), name, None) is function


@dataclass(frozen=True)
class Judged:
    """Scores of a batch (None: cannot be judged), and figures to log beside them."""

    scores: list[float | None]
    metrics: dict[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True)
class BatchReward:
    """A reward over a whole batch, with its knobs set. ``scorer`` is the dataclass of its module."""

    name: str
    scorer: Any
    bounds: tuple[float, float] = (0.0, 1.0)

    async def __call__(self, responses: Sequence[str], **columns: list[Any]) -> Judged:
        """The scores of a batch. Columns hold one entry a response."""
        return await self.scorer(responses, **self.read_of(columns))

    def read_of(self, columns: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """The columns that it reads, out of all those of a batch. KeyError if one that is not optional is not there."""
        return {c: columns[c] for c in self.columns} | {c: columns[c] for c in self.optional if c in columns}

    @property
    def columns(self) -> tuple[str, ...]:
        """What it reads of a row."""
        return self.scorer.columns

    @property
    def optional(self) -> tuple[str, ...]:
        """What it reads of a row where the row has it: the scorer's ``optional``, each an argument with a default."""
        return getattr(self.scorer, "optional", ())

    @property
    def tasks(self) -> tuple[str, ...] | None:
        """The tasks whose rows it pays for; None: all. Rules as judge read reports."""
        return ("report",) if getattr(self.scorer, "judge", None) == "facts" else _module(self.name).TASKS

    @property
    def summary(self) -> str:
        """The first sentence of its docstring."""
        return (inspect.getdoc(type(self.scorer)) or "").split("\n", maxsplit=1)[0]

    @property
    def unfit_for_attacks(self) -> str | None:
        """Why scripted answers cannot be tried on it, or None if they can."""
        if getattr(self.scorer, "group_wise", False):
            return "compares the responses of a group with one another"
        return None if getattr(self.scorer, "judge", "facts") == "facts" else "asks a language model at a cost"

    def with_local(self, local: Any) -> "BatchReward":
        """The same reward, able to open local models, which this floor cannot (it loads no torch)."""
        return replace(self, scorer=replace(self.scorer, local=local))


@cache
def _modules() -> dict[str, ModuleType]:
    """The files that define ``BOUNDS``, by name, in order of names."""
    return dict(sorted(modules_with("BOUNDS", "rewards").items()))


@cache
def available() -> tuple[str, ...]:
    """Names of the rewards of this package.

    >>> "box_overlap" in available()
    True
    """
    return tuple(name for name in _modules() if _function(name) is not None)


def _function(name: str) -> Callable[..., Any] | None:
    return getattr(_module(name), name, None)


@cache
def available_batched() -> tuple[str, ...]:
    """Names of the rewards of this package that need a group or a service.

    >>> "crpo" in available_batched()
    True
    """
    return tuple(name for name in _modules() if _scorer(name) is not None)


def _scorer(name: str) -> type | None:
    return getattr(_module(name), name.title().replace("_", ""), None)


def load_reward(name: str, **knobs: Any) -> Reward | BatchReward:
    """The reward of a name.

    Raises: InputError if there is none, it has no such knob, or a knob has the wrong type or is out of its range.
    """
    bounds, scorer, known = _module(_known(name)).BOUNDS, _scorer(name), knobs_of(name)
    if scorer is not None:
        return BatchReward(name, scorer(**_checked_knobs(name, scorer, knobs, known)), bounds)
    function = _function(name)
    assert function is not None
    return reward_of(name, function, _checked_knobs(name, function, knobs, known), bounds, _module(name).TASKS)


def knobs_of(name: str) -> list[str]:
    """The names of a reward's knobs.

    >>> knobs_of("box_overlap")
    ['measure', 'false_box_weight', 'box_space']
    """
    scorer, function = _scorer(_known(name)), _function(name)
    if scorer is not None:
        return [f.name for f in fields(scorer) if f.metadata.get("knob", True)]
    assert function is not None
    return [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]


def _known(name: str) -> str:
    known = (*available(), *available_batched())
    if name not in known:
        raise InputError(f"no reward named '{name}'.{nearest(name, list(known))} Available: {', '.join(known)}.")
    return name


def reward_of(
    name: str,
    function: Callable[..., float | None],
    knobs: dict[str, Any],
    bounds: tuple[float, float],
    tasks: tuple[str, ...] | None = None,
) -> Reward:
    """The reward of a function: its positional parameters after the response are columns, optional with a default."""
    parameters = inspect.signature(function).parameters.values()
    columns = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD][1:]
    required = tuple(p.name for p in columns if p.default is p.empty)
    optional = tuple(p.name for p in columns if p.default is not p.empty)
    return Reward(name, function, knobs, required, bounds, optional, tasks)


def _checked_knobs(name: str, owner: Any, knobs: dict[str, Any], known: list[str]) -> dict[str, Any]:
    hints = typing.get_type_hints(owner, include_extras=True)
    checked: dict[str, Any] = {}
    for knob, value in knobs.items():
        if knob not in known:
            raise InputError(
                f"'{name}' has no knob '{knob}'.{nearest(knob, known)} Knobs: {', '.join(known) or 'none'}."
            )
        try:
            checked[knob] = _knob_type(hints[knob]).validate_python(value)
        except ValidationError as wrong:
            fault = wrong.errors()[0]
            place = ".".join([knob, *(str(part) for part in fault["loc"] if part in _keys(value))])
            wanted = range_of(hints[knob]) or fault["msg"].lower()
            if fault["type"] == "finite_number":
                wanted = wanted.replace("a number", "a finite number")
            raise InputError(f"'{name}', knob '{place}': got {fault['input']!r}; {wanted}.") from None
    return checked


def _knob_type(hint: Any) -> TypeAdapter[Any]:
    """A section's own model is strict already; pydantic takes no further config for it."""
    has_model = any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in (hint, *typing.get_args(hint)))
    strict = ConfigDict(strict=True, allow_inf_nan=False)
    return TypeAdapter(hint) if has_model else TypeAdapter(hint, config=strict)


def _keys(value: Any) -> set[str]:
    """All keys of nested mappings."""
    if not isinstance(value, dict):
        return set()
    return {str(k) for k in value}.union(*(_keys(v) for v in value.values()))
