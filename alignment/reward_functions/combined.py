"""How a recipe's ``combination`` reaches TRL: by its own options where it has them, else in the reward functions.

``mode`` is TRL's ``multi_objective_aggregation``. Gates and schedules wrap single rewards, which keep their names in
the log. DRPO's domain temperatures need all rewards at once: one function then gives the finished advantage, and TRL is
told not to scale it. Left out: groups that are split over two processes under DRPO; they are refused.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch.distributed as dist
from transformers import TrainerCallback

from alignment.config.recipe import Recipe
from alignment.reward_functions.adapter import AwaitedReward, Completion, Log, TrlBatchReward, TrlReward, trl_rewards
from rewards.combination import Gate, as_table, domain_advantages
from rewards.config.input_error import InputError
from rewards.loading import Reward
from rewards.schedule import ThresholdSchedule
from rewards.tasks import Tasks


@dataclass
class CombinedRewards:
    """What a trainer is given: reward functions, TRL's arguments, callbacks, and the columns that are read."""

    functions: list[Any]
    arguments: dict[str, Any]
    columns: set[str]
    callbacks: list[TrainerCallback] = field(default_factory=list[TrainerCallback])


def combined_rewards(recipe: Recipe, *, group_size: int) -> CombinedRewards:
    """The rewards of a recipe as its ``combination`` asks, watched by its ``canaries``.

    ``group_size``: generations of one prompt.

    Raises: InputError under DRPO if a process' batch does not hold whole groups.
    """
    loaded, weights = trl_rewards(recipe.rewards, recipe.data.box_space)
    wraps = recipe.canaries or recipe.combination.gates or recipe.combination.schedules or recipe.combination.domains
    functions = gated_rewards(recipe)[0] if wraps else []
    tightening = [f for f in map(_ungated, functions) if isinstance(f, ScheduledReward)]
    found = CombinedRewards(
        functions=list(functions or loaded),
        arguments={"reward_weights": weights},
        columns={"task"} | {column for f in loaded for column in (*f.reward.columns, *f.reward.optional)},
        callbacks=[ScheduleStates(tightening)] if tightening else [],
    )
    if recipe.combination.domains is None:
        mode = recipe.trainer.get("multi_objective_aggregation", recipe.combination.mode)
        found.arguments["multi_objective_aggregation"] = mode
    else:
        _with_domains(found, recipe, functions, weights, group_size)
    if recipe.canaries:
        _with_canaries(found, recipe, functions, weights, group_size)
    return found


def _with_domains(
    found: CombinedRewards, recipe: Recipe, functions: list[Any], weights: list[float], group_size: int
) -> None:
    domains = recipe.combination.domains
    assert domains is not None
    _check_whole_groups(recipe, group_size)
    found.functions = [DomainReward(functions, weights, domains.column, group_size, domains.clusters, domains.floor)]
    found.arguments = {"reward_weights": [1.0], "scale_rewards": "none"}
    found.columns.add(domains.column)


def _with_canaries(
    found: CombinedRewards, recipe: Recipe, functions: list[Any], weights: list[float], group_size: int
) -> None:
    from alignment.config.box_units import UNIT_COLUMNS
    from alignment.reward_functions.canaries import COLUMNS, Canaries, Watched

    assert recipe.canaries is not None
    settings: dict[str, Any] = dict(group_size=group_size, gather=gathered, box_space=recipe.data.box_space)
    canaries = Canaries(recipe.canaries, functions, weights, **settings)
    found.functions[0] = Watched(found.functions[0], canaries)
    found.columns |= {*COLUMNS, *UNIT_COLUMNS}
    found.callbacks.append(canaries)


def gated_rewards(recipe: Recipe) -> tuple[list[TrlReward | AwaitedReward], list[float]]:
    """The rewards of a recipe one by one, with their schedules and gates, and their weights.

    Raises: InputError for a judge that cannot be wrapped: by gates, schedules and domains none can; by canaries and
    audits those that ask nobody outside and judge each response by itself.
    """
    loaded, weights = trl_rewards(recipe.rewards, recipe.data.box_space)
    batched = [f.reward for f in loaded if isinstance(f, TrlBatchReward)]
    combination = recipe.combination
    if batched and (combination.gates or combination.schedules or combination.domains):
        raise InputError(
            f"rewards: '{batched[0].name}' is judged in batches; gates, schedules and domains take rewards that are "
            "plain functions. Leave one of the two out."
        )
    for reward in batched:
        if reason := reward.unfit_for_attacks:
            raise InputError(f"rewards: '{reward.name}' {reason}, so canaries and audits leave it be. Leave it out.")
    functions = [AwaitedReward(f) if isinstance(f, TrlBatchReward) else f for f in loaded]
    schedules = {s.reward: s for s in combination.schedules}
    scheduled = [_scheduled(f, schedules[f.reward.name]) if f.reward.name in schedules else f for f in functions]
    return [f if isinstance(f, AwaitedReward) else _gated(f, recipe, functions) for f in scheduled], weights


def _ungated(function: TrlReward | AwaitedReward) -> TrlReward | AwaitedReward:
    return function.inner if isinstance(function, GatedReward) else function


def _check_whole_groups(recipe: Recipe, group_size: int) -> None:
    batch = int(recipe.trainer.get("per_device_train_batch_size", 8))
    batch *= int(recipe.trainer.get("steps_per_generation") or recipe.trainer.get("gradient_accumulation_steps", 1))
    if batch % group_size:
        raise InputError(
            f"combination.domains: a process generates {batch} responses at a time, which are no whole groups of "
            f"{group_size}. Set trainer.per_device_train_batch_size to a multiple of num_generations."
        )


class ScheduledReward(TrlReward):
    """A reward whose knob follows a schedule; each training batch's mean score, over all processes, moves it.

    A batch without ``log_metric`` is none of training's (an audit, a canary) and moves nothing.
    """

    def __init__(self, reward: Reward, knob: str, schedule: ThresholdSchedule, tasks: Tasks = None) -> None:
        super().__init__(reward, tasks)
        self.knob, self.schedule = knob, schedule

    def __call__(
        self, completions: Sequence[Completion], log_metric: Log | None = None, **columns: Any
    ) -> list[float | None]:
        """One number a completion, under the knob's value of now."""
        value = self.schedule.value
        self.reward = dataclasses.replace(self.reward, knobs={**self.reward.knobs, self.knob: value})
        scores = super().__call__(completions, log_metric=log_metric, **columns)
        if log_metric:
            log_metric(f"{self.reward.name}/{self.knob}", value)
            self.schedule.update([score for of_process in gathered(scores) for score in of_process])
        return scores


def _scheduled(function: TrlReward | AwaitedReward, entry: Any) -> ScheduledReward:
    assert isinstance(function, TrlReward)
    schedule = ThresholdSchedule(
        start=entry.start, end=entry.end, step=entry.step, window=entry.window, success=entry.success
    )
    return ScheduledReward(function.reward, entry.knob, schedule, function.tasks)


class ScheduleStates(TrainerCallback):
    """Keeps the schedules in each checkpoint, and takes them from the checkpoint that a run goes on from."""

    def __init__(self, functions: list[ScheduledReward]) -> None:
        self.functions = functions

    def kept_state(self) -> dict[str, Any]:
        """What a checkpoint has to keep (see ``resuming/training.py``)."""
        return {f.reward.name: f.schedule.state() for f in self.functions}

    def restore_state(self, state: dict[str, Any]) -> None:
        """Goes on from a checkpoint's state."""
        for function in self.functions:
            function.schedule.restore(state[function.reward.name])


class GatedReward(TrlReward):
    """A reward that counts only where others do. What it was before the gate is logged as ``NAME/before_gate``."""

    def __init__(self, inner: TrlReward, gates: Sequence[tuple[Gate, TrlReward]]) -> None:
        super().__init__(inner.reward, inner.tasks)
        self.inner, self.gates = inner, gates

    def __call__(
        self, completions: Sequence[Completion], log_metric: Log | None = None, **columns: Any
    ) -> list[float | None]:
        """One number a completion, after its gates."""
        scores = self.inner(completions, log_metric=log_metric, **columns)
        judged = [score for score in scores if score is not None]
        if log_metric and judged:
            log_metric(f"{self.reward.name}/before_gate", sum(judged) / len(judged))
        for gate, needs in self.gates:
            needed = needs(completions, **columns)
            floor = self.reward.bounds[0]
            scores = [gate.applied(s, n, floor=floor) for s, n in zip(scores, needed, strict=True)]
        return scores


def _gated(function: TrlReward, recipe: Recipe, functions: Sequence[TrlReward | AwaitedReward]) -> TrlReward:
    by_name = {f.reward.name: TrlReward(f.reward, f.tasks) for f in functions if isinstance(f, TrlReward)}
    gates = [
        (Gate(g.reward, g.needs, g.at_least, g.multiply), by_name[g.needs])
        for g in recipe.combination.gates
        if g.reward == function.reward.name
    ]
    return GatedReward(function, gates) if gates else function


class DomainReward:
    """DRPO: all rewards of a batch as one finished advantage a response; the rewards' own means are logged by name."""

    __name__ = "drpo"

    def __init__(
        self,
        functions: Sequence[TrlReward],
        weights: Sequence[float],
        column: str,
        group_size: int,
        clusters: int,
        floor: float,
    ) -> None:
        self.functions, self.weights, self.column = functions, weights, column
        self.group_size, self.clusters, self.floor = group_size, clusters, floor

    def __call__(
        self, completions: Sequence[Completion], log_metric: Log | None = None, **columns: Any
    ) -> list[float | None]:
        """The advantage of each completion, over the batch of all processes; None where no reward judges it."""
        scores = [f(completions, log_metric=log_metric, **columns) for f in self.functions]
        if log_metric:
            self._log_means(scores, log_metric)
        mine = as_table(scores)
        parts = gathered((mine, [str(domain) for domain in columns[self.column]]))
        found = domain_advantages(
            np.vstack([table for table, _ in parts]),
            self.weights,
            [domain for _, domains in parts for domain in domains],
            group_size=self.group_size,
            clusters=self.clusters,
            floor=self.floor,
        )
        start = sum(len(table) for table, _ in parts[: process_index()])
        unjudged: Any = np.isnan(mine).all(axis=1)
        of_rank = found[start : start + len(mine)]
        return [None if no else float(a) for no, a in zip(unjudged.tolist(), of_rank.tolist(), strict=True)]

    def _log_means(self, scores: list[list[float | None]], log: Log) -> None:
        for function, column in zip(self.functions, scores, strict=True):
            judged = [s for s in column if s is not None]
            log(f"{function.reward.name}/mean", sum(judged) / len(judged) if judged else 0.0)


def process_index() -> int:
    """The rank of this process; 0 where training is not distributed."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def gathered(mine: Any) -> list[Any]:
    """One value of each process, in the order of their ranks."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return [mine]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, mine)
    return found
