"""The audit of a recipe's rewards: what scripted policies and slightly wrong answers earn on the recipe's own data.

An attack succeeds on a task if it earns more on average than an imperfect honest answer (``attacks.imperfect``),
or if the truth with something added earns more than the truth. Every response is tried plain and in the
think-then-answer format, and the better counts, for attacks and honest answers alike. What a policy in training really
says is watched by ``canaries``.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from alignment.combined_rewards import gated_rewards
from alignment.metrics import matched_ious, score_answers
from alignment.perturbations import perturbed
from alignment.recipe import Recipe, parquet
from alignment.reward_functions import AwaitedReward, TrlReward
from data_builders.schema import message_text
from rewards.attacks import ADDITIONS, ATTACKS, Asked, Attack, imperfect, tagged
from rewards.combination import as_table, weighted_sum
from rewards.facts import Facts
from rewards.rule_set import load_rule_set
from rewards.strict_yaml import InputError

SLACK = 1e-6
HONEST, IMPERFECT = "honest", "imperfect"
HELD_OUT = {"box": "mean_iou", "report": "finding_f1"}
"""The metric beside which a reward is held, by task; ``accuracy`` for closed questions."""
Row = dict[str, Any]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Policy:
    """What one scripted policy earns. ``by_task``: mean total; ``by_reward``: mean of each reward where it applies.

    ``wins``: tasks in which it earns more than it may. ``free``: tasks in which an addition to the truth costs nothing.
    """

    name: str
    total: float | None
    by_task: dict[str, float]
    by_reward: dict[str, float]
    wins: tuple[str, ...] = ()
    free: tuple[str, ...] = ()


@dataclass(frozen=True)
class Audit:
    """The findings of one audit. ``correlations``: Spearman's rank correlation by reward and task."""

    recipe: str
    num_rows: dict[str, int]
    weights: dict[str, float]
    policies: list[Policy]
    constant: list[str]
    correlations: dict[str, dict[str, float | None]]
    warnings: list[str] = field(default_factory=list[str])

    @property
    def successful(self) -> list[Policy]:
        """The attacks that earn more than an honest answer."""
        return [policy for policy in self.policies if policy.wins]

    def to_json(self) -> dict[str, Any]:
        """Everything, as one JSON object."""
        return {**asdict(self), "successful": [p.name for p in self.successful]}


class Scorer:
    """The rewards of a recipe, gates included, as one table of scores."""

    def __init__(self, functions: Sequence[TrlReward | AwaitedReward], weights: Sequence[float]) -> None:
        self.functions, self.weights = functions, weights
        self.names = _distinct([f.__name__ for f in functions])

    def table(self, responses: Sequence[str], rows: Sequence[Row]) -> Array:
        """Scores (N, K) of responses to their rows, each plain or tagged, whichever earns more in all."""
        plain, framed = (self.scored(said, rows) for said in (responses, [tagged(r) for r in responses]))
        better = np.nan_to_num(self.totals(framed), nan=-np.inf) > np.nan_to_num(self.totals(plain), nan=-np.inf)
        return np.where(better[:, None], framed, plain)

    def scored(self, responses: Sequence[str], rows: Sequence[Row]) -> Array:
        """Scores (N, K) of responses to their rows, as they are."""
        columns: dict[str, Any] = {name: [row.get(name) for row in rows] for name in rows[0]}
        columns["completion_ids"] = [response.split() for response in responses]
        return as_table([f(list(responses), **columns) for f in self.functions])

    def totals(self, table: Array) -> Array:
        """The weighted sum, NaN where no reward judges."""
        return weighted_sum(table, self.weights)


def _distinct(names: list[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name}[{k}]" for k, name in enumerate(names)]


def audit(recipe: Recipe, *, name: str, limit: int = 200, seed: int = 0, page: Path | None = None) -> Audit:
    """Attacks the rewards of a recipe on at most ``limit`` of its rows, tasks mixed evenly; writes the ``page``.

    Raises: InputError if the recipe has no rewards, or no row of its data can be used.
    """
    from alignment.audit_page import write_audit

    if not recipe.rewards:
        raise InputError(f"{name}: the recipe names no rewards, so there is nothing to audit.")
    file = parquet(recipe.data.train)
    scorer, grid = Scorer(*gated_rewards(recipe)), grid_of(file)
    shown = any("images" in function.reward.columns for function in scorer.functions)
    rows = sampled_rows(file, limit=limit, seed=seed, images=shown)
    found = audited(scorer, rows, grid=grid, name=name, seed=seed)
    if page is not None:
        write_audit(found, scorer, rows, file=file, grid=grid, out=page)
    return found


def audited(scorer: Scorer, rows: list[Row], *, grid: int, name: str, seed: int = 0) -> Audit:
    """The audit of rewards on rows."""
    asked = [asked_of(row, grid) for row in rows]
    tasks = np.array([row.task for row in asked])

    def table_of(attack: Attack) -> Array:
        said = [attack(row, random.Random(f"{seed}/{k}")) for k, row in enumerate(asked)]
        return scorer.table(said, rows)

    tables = {HONEST: table_of(lambda row, rng: row.answer), IMPERFECT: table_of(imperfect)}
    tables |= {attack: table_of(run) for attack, run in [*ATTACKS.items(), *ADDITIONS.items()]}
    policies = [_policy(policy, table, scorer, tasks) for policy, table in tables.items()]
    judged = [_judged(policy, honest=policies[0], decent=policies[1]) for policy in policies]
    constant = _constant(list(tables.values()), scorer)
    correlations = _correlations(scorer, rows, asked, seed)
    return Audit(
        recipe=name,
        num_rows={str(task): int((tasks == task).sum()) for task in np.unique(tasks)},
        weights=dict(zip(scorer.names, map(float, scorer.weights), strict=True)),
        policies=judged,
        constant=constant,
        correlations=correlations,
        warnings=_warnings(judged, constant, correlations),
    )


def sampled_rows(file: Path, *, limit: int, seed: int, images: bool = False) -> list[Row]:
    """At most ``limit`` rows that have facts and an answer, spread evenly over the tasks, without their images.

    ``images``: with them, for rewards that look.

    Raises: InputError if there is none.
    """
    import pyarrow.parquet as pq

    names = [n for n in pq.read_schema(file).names if n != "rejected_images" and (images or n != "images")]
    rows = [r for r in pq.read_table(file, columns=names).to_pylist() if r.get("facts") and r.get("answer")]
    if not rows:
        raise InputError(
            f"{file}: no row has both facts and an answer; an audit needs prompt rows of a built data set."
        )
    by_task: dict[str, list[Row]] = {}
    for row in random.Random(seed).sample(rows, len(rows)):
        by_task.setdefault(row["task"], []).append(row)
    share = max(1, limit // len(by_task))
    return [row for task in sorted(by_task) for row in by_task[task][:share]]


def grid_of(file: Path) -> int:
    """The units of boxes, from the card beside a built data set; 100 without one."""
    for card in (file.parent / "card.json", file.parent.parent / "card.json"):
        if card.is_file():
            return int(json.loads(card.read_text(encoding="utf-8"))["spec"]["box_grid"])
    return 100


def asked_of(row: Row, grid: int) -> Asked:
    """A prompt row as attacks see it."""
    boxes = None if row.get("boxes") is None else tuple((b[0], b[1], b[2], b[3]) for b in row["boxes"])
    return Asked(
        question=message_text(row["prompt"]),
        task=row["task"],
        answer=row["answer"],
        boxes=boxes,
        facts=Facts.model_validate_json(row["facts"]),
        rules=load_rule_set(row["rule_set"]),
        grid=grid,
    )


def _policy(name: str, table: Array, scorer: Scorer, tasks: NDArray[np.str_]) -> Policy:
    totals = scorer.totals(table)
    by_task = {str(t): _mean(totals[tasks == t]) for t in np.unique(tasks)}
    by_reward = {reward: _mean(table[:, k]) for k, reward in enumerate(scorer.names)}
    return Policy(name, _mean(totals), _known(by_task), _known(by_reward))


def _mean(values: Array) -> float | None:
    judged = values[~np.isnan(values)]
    return float(judged.mean()) if len(judged) else None


def _known(means: Mapping[str, float | None]) -> dict[str, float]:
    return {name: mean for name, mean in means.items() if mean is not None}


def _judged(policy: Policy, *, honest: Policy, decent: Policy) -> Policy:
    """The policy with its wins: an attack against a decent answer, an addition against the truth alone."""
    if policy.name in (HONEST, IMPERFECT):
        return policy
    least = honest if policy.name in ADDITIONS else decent
    gains = {task: mean - least.by_task.get(task, np.inf) for task, mean in policy.by_task.items()}
    wins = tuple(task for task, gain in gains.items() if gain > SLACK)
    free = tuple(t for t, gain in gains.items() if abs(gain) <= SLACK and honest.by_task[t] > SLACK)
    return replace(policy, wins=wins, free=free if policy.name in ADDITIONS else ())


def _constant(tables: list[Array], scorer: Scorer) -> list[str]:
    """Rewards that give every response to a row the same score: they teach nothing."""
    stacked = np.stack(tables)
    low, high = np.nanmin(stacked, axis=0, initial=np.inf), np.nanmax(stacked, axis=0, initial=-np.inf)
    return [name for k, name in enumerate(scorer.names) if not (high[:, k] > low[:, k] + SLACK).any()]


def _correlations(scorer: Scorer, rows: list[Row], asked: list[Asked], seed: int) -> dict[str, dict[str, float | None]]:
    """Spearman's correlation of each reward with the held-out metric of the task, over perturbed true answers."""
    pairs = [
        (row, p.answer)
        for k, (row, seen) in enumerate(zip(rows, asked, strict=True))
        for p in perturbed(seen, random.Random(f"{seed}/perturbed/{k}"))
    ]
    table = scorer.table([said for _, said in pairs], [row for row, _ in pairs])
    metric = np.array([held_out(row, said) for row, said in pairs])
    tasks = np.array([row["task"] for row, _ in pairs])
    return {
        name: {str(t): spearman(table[tasks == t, k], metric[tasks == t]) for t in np.unique(tasks)}
        for k, name in enumerate([*scorer.names])
    }


def held_out(row: Row, response: str) -> float:
    """The evaluation's own measure of one answer, in [0, 1]: IoU, F1 of findings, or right and wrong."""
    [outcome] = score_answers([row], [response])
    counts = outcome.counts
    if row["task"] == "box":
        truth = row["boxes"] or []
        return sum(matched_ious(outcome.boxes, truth)) / max(1, len(truth), len(outcome.boxes))
    if row["task"] == "report":
        said = counts["claims"] + counts["true_findings"]
        return (counts["true_claims"] + counts["found"]) / said if said else 1.0
    return counts.get("closed_correct", 0.0)


def spearman(reward: Array, metric: Array) -> float | None:
    """Rank correlation over the answers that the reward judges; None if either does not vary.

    >>> spearman(np.array([0.1, 0.2, 0.9]), np.array([1.0, 2.0, 3.0]))
    1.0
    """
    judged = ~np.isnan(reward)
    a, b = rankdata(reward[judged]), rankdata(metric[judged])
    if len(a) < 2 or not a.std() or not b.std():
        return None
    return float(np.round(np.corrcoef(a, b)[0, 1], 12))


def _warnings(
    policies: list[Policy], constant: list[str], correlations: dict[str, dict[str, float | None]]
) -> list[str]:
    told = [f"'{name}' gives every response to a row the same score: it teaches nothing." for name in constant]
    told += [
        f"'{policy.name}' earns more than an honest answer on: {', '.join(policy.wins)}."
        for policy in policies
        if policy.wins
    ]
    told += [
        f"'{policy.name}' costs nothing on: {', '.join(policy.free)}."
        for policy in policies
        if policy.free and ("spam" in policy.name or "times" in policy.name)
    ]
    return told + [
        f"'{reward}' falls while the held-out metric of '{task}' rises (rank correlation {value:.2f})."
        for reward, of_reward in correlations.items()
        for task, value in of_reward.items()
        if value is not None and value < -0.05
    ]
