"""Rewards from Python, in TRL's form: ours by name, loaded, or a function of the user's under the same contract.

Left out: weights, which are ``GRPOConfig.reward_weights``.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from alignment.data.trl_rows import check_columns
from alignment.reward_functions.adapter import TrlBatchReward, TrlReward
from rewards.config.input_error import InputError, nearest
from rewards.loading import BatchReward, Reward, available, available_batched, load_reward, reward_of

RewardFunction = str | Reward | BatchReward | Callable[..., Any] | Any
"""What TRL takes (a function, a model, the name of one), and rewards of ours."""
OF_TRAINER = ("prompt", "prompts", "completions", "completion_ids", "trainer_state", "log_metric", "log_extra")
"""What TRL hands to every reward beside the columns of the rows."""


def trl_reward(
    reward: str | Reward | BatchReward | Callable[..., float | None],
    *,
    tasks: Sequence[str] | None = None,
    **knobs: object,
) -> TrlReward | TrlBatchReward:
    """A reward as ``trl.GRPOTrainer(reward_funcs=[...])`` takes it: it reads the columns of the rows by their names.

    Args:
        reward: the name of one of ours; one that is loaded; or a function ``(response, COLUMN, ..., *, KNOB=...)``
            that gives a number, or None for a row that it cannot judge. One in TRL's own form needs no adapter.
        tasks: pays for rows of these tasks only, where rows have a column ``task``. None: as the reward says.
        knobs: the reward's keyword-only parameters.

    Raises: InputError for a name or a knob that is not there.
    """
    loaded = _loaded(reward, knobs)
    return TrlBatchReward(loaded, tasks) if isinstance(loaded, BatchReward) else TrlReward(loaded, tasks)


def _loaded(
    reward: str | Reward | BatchReward | Callable[..., float | None], knobs: dict[str, object]
) -> Reward | BatchReward:
    if isinstance(reward, str):
        return load_reward(reward, **knobs)
    if isinstance(reward, Reward | BatchReward):
        if knobs:
            raise InputError(f"trl_reward: '{reward.name}' is loaded already; give load_reward its {', '.join(knobs)}.")
        return reward
    if not callable(reward):  # a slip, whatever the types say
        raise InputError(f"trl_reward: a reward's name or a function is expected, got {reward!r}.")
    name = getattr(reward, "__name__", type(reward).__name__)
    parameters = inspect.signature(reward).parameters.values()
    if any(p.name in OF_TRAINER and p.name != "prompt" for p in parameters):
        raise InputError(f"trl_reward: '{name}' is in TRL's own form; hand it to the trainer as it is.")
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    if wrong := [knob for knob in knobs if knob not in known]:
        hint = nearest(wrong[0], known)
        raise InputError(f"'{name}' has no knob '{wrong[0]}'.{hint} Knobs: {', '.join(known) or 'none'}.")
    return reward_of(name, reward, knobs, bounds=(-math.inf, math.inf))


def as_trl_rewards(given: RewardFunction | list[RewardFunction] | None, data: object) -> list[RewardFunction] | None:
    """The reward functions of a script in TRL's form; a function of one response counts as one of ours.

    Raises: InputError for a name that is nearly one of ours, or a column that a reward of ours reads and ``data`` lack.
    """
    if given is None:
        return None
    functions = [_as_trl(reward) for reward in (given if isinstance(given, list) else [given])]
    for function in functions:
        if isinstance(function, TrlReward | TrlBatchReward):
            read = [column for column in function.reward.columns if column not in OF_TRAINER]
            check_columns(data, read, f"the reward '{function.reward.name}' reads")
    return functions


def _as_trl(reward: RewardFunction) -> RewardFunction:
    if isinstance(reward, Reward | BatchReward) or (inspect.isfunction(reward) and not _is_of_trl(reward)):
        return trl_reward(reward)
    if not callable(reward) and not isinstance(reward, str):
        raise InputError(f"reward_funcs: functions, models or names are expected, got {reward!r}.")
    if not isinstance(reward, str) or "/" in reward or Path(reward).exists():
        return reward
    known = [*available(), *available_batched()]
    if reward not in known and not nearest(reward, known):
        return reward  # TRL takes it for a model
    return trl_reward(reward)


def _is_of_trl(function: Callable[..., object]) -> bool:
    """Whether it takes a batch, as TRL hands it over: TRL gives every function its ``completions`` by that name."""
    parameters = inspect.signature(function).parameters.values()
    return any(p.kind is p.VAR_KEYWORD or p.name == "completions" for p in parameters)
