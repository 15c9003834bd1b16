"""The audit of a recipe's rewards: what scripted and slightly wrong answers earn on the rows that the recipe trains on.

What counts is the weighted sum of the rewards as trained, gates included. An attack beats honesty on a task if its mean
over the task's rows is more, by over 1e-6, than the mean of the honest answer that it stands against, over the rows
that both can be tried on: a blind attack against an ``imperfect`` honest answer, an addition against the truth alone,
a hedge against the mean of the honest answers that it hedges over. A falsehood beats honesty if it earns as much as the
truth. Every response is tried plain and in the think-then-answer format, and the better counts, for attacks and honest
answers alike. What a policy in training really says is watched by ``canaries``.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from alignment.audit.perturbations import perturbed
from alignment.audit.trials import Trial, dialogue_trials, question_trials
from alignment.metrics.evaluated_row import EvaluatedRow
from alignment.metrics.outcomes import matched_ious, score_answers
from alignment.reward_functions.sampled_rows import Row, prompt_row, row_dialogue
from alignment.reward_functions.scorer import Array, Scorer
from rewards.attacks.attacks import PromptRow
from rewards.config.input_error import nearest
from rewards.dialogues.dialogue import Dialogue
from rewards.ratings.preference_metrics import rank_correlation

SLACK = 1e-6


@dataclass(frozen=True)
class Policy:
    """What one scripted policy earns. ``by_task``: mean total; ``by_reward``: mean of each reward where it applies.

    ``wins``: tasks in which it beats honesty, that is ``against`` (empty: it is honest itself). ``free``: tasks in
    which an addition to the truth costs nothing.
    """

    name: str
    total: float | None
    by_task: dict[str, float]
    by_reward: dict[str, float]
    against: tuple[str, ...] = ()
    wins: tuple[str, ...] = ()
    free: tuple[str, ...] = ()


@dataclass(frozen=True)
class Audit:
    """The findings of one audit. ``correlations``: Spearman's rank correlation by reward and task.

    ``listed``: the attacks that the recipe's header names (``Beaten by:``).
    """

    recipe: str
    num_rows: dict[str, int]
    weights: dict[str, float]
    policies: list[Policy]
    constant: list[str]
    correlations: dict[str, dict[str, float | None]]
    warnings: list[str] = field(default_factory=list[str])
    listed: tuple[str, ...] = ()

    @property
    def successful(self) -> list[Policy]:
        """The attacks that beat honesty."""
        return [policy for policy in self.policies if policy.wins]

    @property
    def faults(self) -> list[str]:
        """What the header does not say: attacks that win and are not listed, and listed ones that do not win."""
        won = [policy.name for policy in self.successful]
        known = [policy.name for policy in self.policies if policy.against]
        new = [f"'{name}' beats honesty and is not listed." for name in won if name not in self.listed]
        unknown = [f"'{n}' is listed, but no attack.{nearest(n, known)}" for n in self.listed if n not in known]
        gone = [n for n in self.listed if n in known and n not in won]
        return [*new, *unknown, *(f"'{name}' is listed and beats honesty no longer." for name in gone)]

    def to_json(self) -> dict[str, object]:
        """Everything, as one JSON object."""
        return {**asdict(self), "successful": [p.name for p in self.successful], "faults": self.faults}


def audited(scorer: Scorer, rows: list[Row], *, name: str, seed: int = 0) -> Audit:
    """The audit of rewards on rows: of dialogues, where these have a column ``dialogue`` that is filled, or not."""
    dialogues = [row_dialogue(row) for row in rows if row.get("dialogue")]
    prompts = [prompt_row(row) for row in rows] if not dialogues else []
    trials = dialogue_trials(dialogues) if dialogues else question_trials()
    tasks = np.array([str(row["task"]) for row in rows])
    tables = {trial.name: _table(trial, dialogues or prompts, rows, scorer, seed) for trial in trials}
    totals = {policy: scorer.totals(table) for policy, table in tables.items()}
    policies = [_judged(trial, tables[trial.name], totals, scorer, tasks) for trial in trials]
    constant = _constant(list(tables.values()), scorer)
    correlations = _correlations(scorer, rows, prompts, seed) if prompts else {}
    return Audit(
        recipe=name,
        num_rows={str(task): int((tasks == task).sum()) for task in np.unique(tasks)},
        weights=dict(zip(scorer.names, map(float, scorer.weights), strict=True)),
        policies=policies,
        constant=constant,
        correlations=correlations,
        warnings=_warnings(policies, constant, correlations),
    )


def _table(
    trial: Trial, prompts: Sequence[PromptRow] | Sequence[Dialogue], rows: list[Row], scorer: Scorer, seed: int
) -> Array:
    """What a trial's responses earn, (N, K); NaN for a row on which it cannot be tried."""
    responses = [trial.says(row, random.Random(f"{seed}/{k}")) for k, row in enumerate(prompts)]
    tried = [k for k, response in enumerate(responses) if response is not None]
    table = np.full((len(rows), len(scorer.names)), np.nan)
    if tried:
        table[tried] = scorer.table([r for r in responses if r is not None], [rows[k] for k in tried])
    return table


def _mean(values: Array) -> float | None:
    judged = values[~np.isnan(values)]
    return float(judged.mean()) if len(judged) else None


def _known(means: Mapping[str, float | None]) -> dict[str, float]:
    return {name: mean for name, mean in means.items() if mean is not None}


def _judged(trial: Trial, table: Array, totals: Mapping[str, Array], scorer: Scorer, tasks: NDArray[np.str_]) -> Policy:
    """What a trial earns, and where it beats the honest answers that it stands against."""
    earned, names = totals[trial.name], [str(task) for task in np.unique(tasks)]
    policy = Policy(
        trial.name,
        _mean(earned),
        by_task=_known({task: _mean(earned[tasks == task]) for task in names}),
        by_reward=_known({reward: _mean(table[:, k]) for k, reward in enumerate(scorer.names)}),
        against=trial.against,
    )
    if not trial.against:
        return policy
    least: Array = np.mean([totals[name] for name in trial.against], axis=0)  # NaN where one of them is
    gains = _known({task: _mean((earned - least)[tasks == task]) for task in names})
    enough = -SLACK if trial.is_false else SLACK
    earns = {task for task in gains if (_mean(least[tasks == task]) or 0.0) > SLACK}
    return replace(
        policy,
        wins=tuple(t for t, gain in gains.items() if gain > enough),
        free=tuple(t for t, gain in gains.items() if trial.is_addition and abs(gain) <= SLACK and t in earns),
    )


def _constant(tables: list[Array], scorer: Scorer) -> list[str]:
    """Rewards that give every response to a row the same score: they teach nothing."""
    stacked = np.stack(tables)
    low, high = np.nanmin(stacked, axis=0, initial=np.inf), np.nanmax(stacked, axis=0, initial=-np.inf)
    return [name for k, name in enumerate(scorer.names) if not (high[:, k] > low[:, k] + SLACK).any()]


def _correlations(
    scorer: Scorer, rows: list[Row], prompts: list[PromptRow], seed: int
) -> dict[str, dict[str, float | None]]:
    """Spearman's correlation of each reward with the held-out metric of the task, over perturbed true answers."""
    pairs = [
        (row, p.answer)
        for k, (row, prompt) in enumerate(zip(rows, prompts, strict=True))
        for p in perturbed(prompt, random.Random(f"{seed}/perturbed/{k}"))
    ]
    table = scorer.table([answer for _, answer in pairs], [row for row, _ in pairs])
    metric = np.array([held_out(row, answer) for row, answer in pairs])
    tasks = np.array([row["task"] for row, _ in pairs])
    return {
        name: {str(t): spearman(table[tasks == t, k], metric[tasks == t]) for t in np.unique(tasks)}
        for k, name in enumerate([*scorer.names])
    }


def held_out(row: Row, response: str) -> float:
    """The evaluation's own measure of one answer, in [0, 1]: IoU, F1 of findings, or right and wrong."""
    [outcome] = score_answers([cast(EvaluatedRow, row)], [response])
    counts = outcome.counts
    if row["task"] == "box":
        truth = row["boxes"] or []
        return sum(matched_ious(outcome.boxes, truth)) / max(1, len(truth), len(outcome.boxes))
    if row["task"] == "report":
        total = counts["claims"] + counts["true_findings"]
        return (counts["true_claims"] + counts["found"]) / total if total else 1.0
    return counts.get("closed_correct", 0.0)


def spearman(reward: Array, metric: Array) -> float | None:
    """Rank correlation over the answers that the reward judges; None if either does not vary.

    >>> spearman(np.array([0.1, 0.2, 0.9]), np.array([1.0, 2.0, 3.0]))
    1.0
    """
    judged = ~np.isnan(reward)
    found = rank_correlation(reward[judged], metric[judged])
    return None if math.isnan(found) else float(np.round(found, 12))


def _warnings(
    policies: list[Policy], constant: list[str], correlations: dict[str, dict[str, float | None]]
) -> list[str]:
    warnings = [f"'{name}' gives every response to a row the same score: it teaches nothing." for name in constant]
    warnings += [f"'{policy.name}' beats honesty on: {', '.join(policy.wins)}." for policy in policies if policy.wins]
    warnings += [
        f"'{policy.name}' costs nothing on: {', '.join(policy.free)}."
        for policy in policies
        if policy.free and ("spam" in policy.name or "times" in policy.name)
    ]
    return warnings + [
        f"'{reward}' falls while the held-out metric of '{task}' rises (rank correlation {value:.2f})."
        for reward, of_reward in correlations.items()
        for task, value in of_reward.items()
        if value is not None and value < -0.05
    ]
