"""What the best of n sampled answers is worth, by a reward that was not asked to choose it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from alignment.config.data_entries import rows_at
from alignment.data.prompt_rows import file_with, limited
from alignment.models.generation import generate
from alignment.reward_models.pair_figures import Figure, Row, decoded_pair, figure
from data_builders.row_checks import Check
from rewards.config.input_error import InputError, nearest
from rewards.loading import Reward, load_reward
from rewards.ratings.bootstrap import drawn_indices
from rewards.ratings.preference_metrics import best_of_n


@dataclass(frozen=True)
class Curve:
    """Best of n in a verifiable reward: who picks, then n, then the figure. ``policy``: who wrote the samples.

    ``num_unjudged``: prompts left out, since the reward judges some answer to them by nothing.
    """

    policy: str
    metric: str
    num_prompts: int
    num_samples: int
    picks: dict[str, dict[int, Figure]]
    num_unjudged: int = 0


@dataclass(frozen=True)
class Candidates:
    """What best of n chooses among: the samples of a policy to each prompt row, and the reward that judges them."""

    policy: str
    rows: list[Row]
    responses: list[list[str]]
    reward: Reward


def best_of_curve(
    score: Callable[[list[Row]], list[list[float]]],
    rows: Sequence[Row],
    samples: Sequence[Sequence[str]],
    reward: Reward,
    *,
    policy: str,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Curve:
    """The curve of n = 1, 2, 4, ... up to the number of samples; prompts that the reward does not judge are left out.

    Exact over all subsets of the samples; ``oracle`` picks by the reward itself, ``random`` is its mean.
    """
    gold = [[reward(text, **row) for text in texts] for row, texts in _both(rows, samples)]
    judged = [k for k, texts in enumerate(gold) if None not in texts]
    if not judged:
        raise InputError(f"'{reward.name}' judges no answer to these prompts; name another with --metric.")
    judged_rows = [{**rows[k], "images": decoded_pair(rows[k]["images"]), "answers": list(samples[k])} for k in judged]
    proxy, true = score(judged_rows), [[float(v or 0.0) for v in gold[k]] for k in judged]
    num_samples = len(true[0])
    ns = [2**k for k in range(num_samples.bit_length())]
    values = {
        "reward model": np.array([_gold(p, t, ns) for p, t in zip(proxy, true, strict=True)]),
        "oracle": np.array([_gold(t, t, ns) for t in true]),
        "random": np.repeat(np.mean(true, axis=1)[:, None], len(ns), axis=1),
    }
    draws = drawn_indices([rows[k]["patient"] for k in judged], num_resamples=num_resamples, seed=seed)
    picks = {
        name: {n: figure(float(v[:, i].mean()), [float(v[d, i].mean()) for d in draws]) for i, n in enumerate(ns)}
        for name, v in values.items()
    }
    return Curve(policy, reward.name, len(judged), num_samples, picks, len(rows) - len(judged))


def _both(rows: Sequence[Row], samples: Sequence[Sequence[str]]) -> Any:
    return zip(rows, samples, strict=True)


def _gold(proxy: Sequence[float], gold: Sequence[float], ns: Sequence[int]) -> list[float]:
    return [best.gold for best in best_of_n([list(proxy)], [list(gold)], ns)]


def sampled(policy: str, rows: Sequence[Row], *, num_samples: int, max_new_tokens: int, seed: int) -> list[list[str]]:
    """Answers of a policy to prompt rows at temperature 1."""
    from alignment.models.loading import load_for_inference

    model, processor = load_for_inference(policy)
    torch.manual_seed(seed)
    questions = [{**row, "images": decoded_pair(row["images"])} for row in rows]
    return generate(
        model,
        processor,
        questions,
        max_new_tokens=max_new_tokens,
        num_samples=num_samples,
        temperature=1.0,
        batch_size=max(1, 256 // num_samples),
    )


def candidates_of(
    prompts: str,
    policy: str,
    *,
    num_samples: int,
    metric: str,
    task: str,
    limit: int | None,
    max_new_tokens: int,
    seed: int,
) -> Candidates:
    """The policy's sampled answers to the prompts, and the reward by which they are judged.

    Raises: InputError for a metric that is judged in batches.
    """
    reward = load_reward(metric)
    if not isinstance(reward, Reward):
        raise InputError(f"--metric: '{metric}' is judged in batches; name a verifiable reward.")
    prompt_rows = _prompt_rows(prompts, task, reward, limit=limit, seed=seed)
    responses = sampled(policy, prompt_rows, num_samples=num_samples, max_new_tokens=max_new_tokens, seed=seed)
    return Candidates(policy, prompt_rows, responses, reward)


def _prompt_rows(prompts: str, task: str, reward: Reward, *, limit: int | None = None, seed: int = 0) -> list[Row]:
    """The rows of the task, at most ``limit`` of them. Raises: InputError if there are none."""
    needed = ("images", "prompt", "task")
    what = f"rows for best of n by '{reward.name}'"
    file = file_with(prompts, (*needed, "patient", *reward.columns), Check(needed, blocks=True), what=what)
    tasks = pq.read_table(file, columns=["task"])["task"].to_pylist()
    indices = [index for index, one in enumerate(tasks) if one == task]
    if not indices:
        known = sorted({*tasks})
        raise InputError(f"{file}: no row of task '{task}'.{nearest(task, known)} There: {', '.join(known)}.")
    return rows_at(file, limited(indices, limit=limit, seed=seed))
