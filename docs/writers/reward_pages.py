"""The reference page of the rewards: what each reads, pays for and takes, from its signature and docstring."""

import inspect
import typing
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from docs.writers.model_pages import default_text
from docs.writers.pieces import code, docstring, table, type_text
from rewards.config.knobs import range_of
from rewards.loading import BatchReward, Reward, available, available_batched, knobs_of, load_reward

INTRO = """A reward is named in a recipe (`rewards: [{name: NAME, weight: 1.0, KNOB: value}]`), tried on any rows by
`clinalign score NAME KNOB=value`, and used from Python by `load_reward("NAME")`. It reads columns of the row beside the
response; a row without an optional one is judged without it. `none` is given where it cannot be judged, never for
"wrong". It pays for rows of its tasks only, unless the recipe names other `tasks`."""


def rewards_page() -> str:
    """The page of all rewards, by name."""
    rewards = [load_reward(name) for name in sorted((*available(), *available_batched()))]
    index = table(["reward", "bounds", "first sentence"], [_line(reward) for reward in rewards])
    return "\n\n".join(["# Rewards", INTRO, index, *(_section(reward) for reward in rewards)]) + "\n"


def _line(reward: Reward | BatchReward) -> list[str]:
    return [f"[{reward.name}](#{reward.name})", _bounds(reward), reward.summary.replace("``", "`")]


def _bounds(reward: Reward | BatchReward) -> str:
    return f"{reward.bounds[0]:g} to {reward.bounds[1]:g}"


def _section(reward: Reward | BatchReward) -> str:
    owner = reward.function if isinstance(reward, Reward) else type(reward.scorer)
    module = inspect.getmodule(owner)
    what = [
        ["columns", ", ".join(map(code, reward.columns)) or "none"],
        ["optional columns", ", ".join(map(code, reward.optional)) or "none"],
        ["tasks", "all" if reward.tasks is None else ", ".join(map(code, reward.tasks))],
        ["bounds", _bounds(reward)],
        ["judged", "one response at a time" if isinstance(reward, Reward) else "a batch at a time"],
    ]
    knobs = [_knob(owner, name) for name in knobs_of(reward.name)]
    parts = [f"## {reward.name}", signature(owner), docstring(module), docstring(owner), table(["it", ""], what)]
    return "\n\n".join([*parts, table(["knob", "what it takes", "default"], knobs) if knobs else "It has no knobs."])


def signature(owner: Any) -> str:
    """How a reward is called, as a block of code: names and defaults, without types.

    >>> def right(response: str, answer: str, *, credit: float = 0.5) -> float: ...
    >>> print(signature(right))
    ```python
    right(response, answer, *, credit=0.5)
    ```
    """
    parameters = inspect.signature(owner).parameters.values()
    hidden = [f.name for f in _fields(owner) if not f.metadata.get("knob", True)]
    shown = [p.replace(annotation=p.empty, default=_default(owner, p)) for p in parameters if p.name not in hidden]
    return f"```python\n{getattr(owner, '__name__', '')}{inspect.Signature(shown)}\n```"


def _default(owner: Any, parameter: inspect.Parameter) -> Any:
    """A parameter's default; of a dataclass's field with a factory, what that makes."""
    factory = {f.name: f.default_factory for f in _fields(owner)}.get(parameter.name, MISSING)
    return parameter.default if factory is MISSING else factory()


def _fields(owner: Any) -> tuple[Field[Any], ...]:
    return fields(owner) if is_dataclass(owner) else ()


def _knob(owner: Any, name: str) -> list[str]:
    hint = typing.get_type_hints(owner, include_extras=True)[name]
    taken = range_of(hint).removeprefix("expected ") or type_text(hint, lambda model: code(model.__name__))
    return [code(name), taken, default_text(_default(owner, inspect.signature(owner).parameters[name]))]
