"""How good is a reward model? On held-out pairs, and as the chooser among a policy's own samples.

Pairs: accuracy, calibration of sigmoid(difference), length bias; by kind of pair, noised images among them, and with
another patient's image in place of each (``another image``), where accuracy should fall to one half. Samples: best of n
by the reward model's pick, beside an oracle's and a random one, in a verifiable reward. Every interval is a bootstrap
over patients. Left out: agreement with human raters.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from alignment.config.recipe import parquet
from alignment.config.trainer_faults import check_model_name
from alignment.evaluation.controls import blinded, pixels
from alignment.evaluation.evaluate import limited
from alignment.models.generation import generate
from alignment.models.loading import model_folder
from alignment.models.reward_model import reward_model_folder, scores_of
from data_builders.digest import sha256
from data_builders.locks import only_one
from data_builders.output_folders import check_writable, refuse_foreign
from data_builders.row_checks import Check, check_rows
from data_builders.schema import message_text
from rewards.config.input_error import InputError, nearest
from rewards.loading import Reward, load_reward
from rewards.ratings.preference_metrics import Bin, best_of_n, calibration, length_bias, pairwise_accuracy, reliability

Row = dict[str, Any]
SWAPPED = "another image"
CHUNK = 256
"""Rows whose images are decoded at a time."""


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % interval over patients; None with one patient, or where it is undefined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Pairs:
    """Figures of one set of pairs. ``reliability``: of sigmoid(difference), both orders of each pair."""

    num_pairs: int
    num_patients: int
    figures: dict[str, Figure]
    reliability: list[Bin]


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
    said: list[list[str]]
    reward: Reward


@dataclass(frozen=True)
class ScoredPairs:
    """Scores (pairs) of both sides, their lengths in characters, and whose they are."""

    chosen: np.ndarray
    rejected: np.ndarray
    chosen_length: np.ndarray
    rejected_length: np.ndarray
    patients: list[str]
    kinds: list[str]

    def at(self, places: Sequence[int] | np.ndarray) -> "ScoredPairs":
        """The pairs at these places, as often as they are named."""
        chosen, rejected, *lengths = (
            v[places] for v in (self.chosen, self.rejected, self.chosen_length, self.rejected_length)
        )
        patients, kinds = [self.patients[k] for k in places], [self.kinds[k] for k in places]
        return ScoredPairs(chosen, rejected, lengths[0], lengths[1], patients, kinds)


def pair_rows(data: str, *, limit: int | None = None, seed: int = 0) -> list[Row]:
    """Preference rows with their images still encoded.

    Raises: InputError if the entry holds none.
    """
    file = parquet(data)
    names = pq.read_schema(file).names
    if missing := [c for c in ("images", "prompt", "chosen", "rejected", "patient") if c not in names]:
        raise InputError(f"{file}: not preference rows: no column {', '.join(missing)} among {', '.join(names)}.")
    check_rows(file, Check(("images", "prompt", "chosen", "rejected"), blocks=True))
    rows = pq.read_table(file).to_pylist()
    if not rows:
        raise InputError(f"{file}: holds no pairs.")
    return limited(rows, limit=limit, seed=seed)


def scored_pairs(model: Any, processor: Any, rows: Sequence[Row], *, batch_size: int = 64) -> ScoredPairs:
    """Both sides of each pair; a rejected answer under its own images, where the row has them."""
    both: list[tuple[float, float]] = []
    for start in range(0, len(rows), CHUNK):
        asked = [part for row in rows[start : start + CHUNK] for part in _parts(row)]
        scores = iter([s for own in scores_of(model, processor, asked, batch_size=batch_size) for s in own])
        both += [(next(scores), next(scores)) for _ in rows[start : start + CHUNK]]
    sides = [[message_text(row[side]) for row in rows] for side in ("chosen", "rejected")]
    lengths = [np.array([len(text) for text in texts], float) for texts in sides]
    chosen, rejected = np.array(both).T
    patients, kinds = [row["patient"] for row in rows], [row.get("kind") or "" for row in rows]
    return ScoredPairs(chosen, rejected, lengths[0], lengths[1], patients, kinds)


def _parts(row: Row) -> list[Row]:
    """The row as ``scores_of`` takes it: two answers, or one under each of its images."""
    answers = [message_text(row["chosen"]), message_text(row["rejected"])]
    if not row.get("rejected_images"):
        return [{"images": _decoded(row["images"]), "prompt": row["prompt"], "answers": answers}]
    return [
        {"images": _decoded(images), "prompt": row["prompt"], "answers": [answer]}
        for images, answer in zip((row["images"], row["rejected_images"]), answers, strict=True)
    ]


def _decoded(images: Sequence[Any]) -> list[Any]:
    return [pixels(image).convert("RGB") for image in images]


def pair_figures(pairs: ScoredPairs, *, num_resamples: int = 1000, seed: int = 0) -> Pairs:
    """Accuracy, calibration and length bias of these pairs, each with its interval."""
    values = _values(pairs)
    drawn = [_values(pairs.at(p)) for p in resampled(pairs.patients, num_resamples, seed)]
    return Pairs(
        num_pairs=len(pairs.chosen),
        num_patients=len(set(pairs.patients)),
        figures={name: figure(value, [other[name] for other in drawn]) for name, value in values.items()},
        reliability=reliability(pairs.chosen, pairs.rejected),
    )


def _values(pairs: ScoredPairs) -> dict[str, float]:
    chosen, rejected = pairs.chosen, pairs.rejected
    calibrated = calibration(chosen, rejected)
    bias = length_bias(chosen, rejected, pairs.chosen_length, pairs.rejected_length)
    return {
        "accuracy": pairwise_accuracy(chosen, rejected).value,
        "margin": float((chosen - rejected).mean()),
        "ece": calibrated.ece,
        "brier": calibrated.brier,
        "log_loss": calibrated.log_loss,
        "accuracy_chosen_longer": bias.chosen_longer.value,
        "accuracy_chosen_shorter": bias.chosen_shorter.value,
        "length_correlation": bias.correlation,
    }


def resampled(patients: Sequence[str], num_resamples: int, seed: int) -> list[np.ndarray]:
    """Places of the cases in each resample of patients, whose cases come together; none with one patient."""
    of_patient: dict[str, list[int]] = {}
    for place, patient in enumerate(patients):
        of_patient.setdefault(patient, []).append(place)
    groups = [np.array(places) for places in of_patient.values()]
    rng = np.random.default_rng(seed)
    if len(groups) < 2:
        return []
    return [
        np.concatenate([groups[k] for k in rng.integers(len(groups), size=len(groups))]) for _ in range(num_resamples)
    ]


def figure(value: float, drawn: Sequence[float]) -> Figure:
    """The value with the percentile interval of its resamples; where it is NaN they are left out."""
    seen = np.array([v for v in drawn if not np.isnan(v)])
    low, high = np.quantile(seen, [0.025, 0.975]).tolist() if len(seen) else (None, None)
    return Figure(None if np.isnan(value) else float(value), low, high)


def pair_table(
    model: Any, processor: Any, rows: Sequence[Row], *, batch_size: int = 64, num_resamples: int = 1000, seed: int = 0
) -> tuple[dict[str, Pairs], ScoredPairs]:
    """Figures of all pairs, of each kind, and of the text-side pairs under another patient's image; and the scores."""
    scored = scored_pairs(model, processor, rows, batch_size=batch_size)
    options = {"num_resamples": num_resamples, "seed": seed}
    table = {"all pairs": pair_figures(scored, **options)}
    kinds = sorted(set(scored.kinds))
    for kind in kinds if len(kinds) > 1 else []:
        table[kind or "(no kind)"] = pair_figures(
            scored.at([p for p, k in enumerate(scored.kinds) if k == kind]), **options
        )
    text_side = [row for row in rows if row["images"] and not row.get("rejected_images") and row.get("facts")]
    if len({row["facts"] for row in text_side}) > 1:
        swapped = scored_pairs(model, processor, blinded(text_side, "shuffled", seed=seed), batch_size=batch_size)
        table[SWAPPED] = pair_figures(swapped, **options)
    return table, scored


def not_measured(table: dict[str, Pairs]) -> list[str]:
    """What the pairs did not allow to measure, and why."""
    return [] if SWAPPED in table else [f"{SWAPPED}: no two pairs with one image on both sides have different facts"]


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
    gold = [[reward(text, **row) for text in own] for row, own in _both(rows, samples)]
    judged = [k for k, own in enumerate(gold) if None not in own]
    if not judged:
        raise InputError(f"'{reward.name}' judges no answer to these prompts; name another with --metric.")
    asked = [{**rows[k], "images": _decoded(rows[k]["images"]), "answers": list(samples[k])} for k in judged]
    proxy, true = score(asked), [[float(v or 0.0) for v in gold[k]] for k in judged]
    num_samples = len(true[0])
    ns = [2**k for k in range(num_samples.bit_length())]
    values = {
        "reward model": np.array([_gold(p, t, ns) for p, t in zip(proxy, true, strict=True)]),
        "oracle": np.array([_gold(t, t, ns) for t in true]),
        "random": np.repeat(np.mean(true, axis=1)[:, None], len(ns), axis=1),
    }
    draws = resampled([rows[k]["patient"] for k in judged], num_resamples, seed)
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
    asked = [{**row, "images": _decoded(row["images"])} for row in rows]
    return generate(
        model, processor, asked, max_new_tokens=max_new_tokens, num_samples=num_samples, temperature=1.0,
        batch_size=max(1, 256 // num_samples),
    )  # fmt: skip


def evaluate_reward_models(
    runs: dict[str, Path],
    data: str,
    *,
    prompts: str | None = None,
    policy: str | None = None,
    num_samples: int = 16,
    metric: str = "finding_f1",
    task: str = "report",
    limit: int | None = None,
    max_new_tokens: int = 96,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """``reward_model.json`` and ``reward_model.html`` in each run's folder; returns what the former hold.

    ``prompts`` and ``policy``: prompt rows, of which those of ``task`` get ``num_samples`` answers for best of n, the
    same for every run. Raises: InputError if one of the two is missing, a folder holds
    something else or cannot be written to, or the data are no preference rows.
    """
    for out in runs.values():
        refuse_foreign(out, mark="reward_model.json", kind="an evaluation of a reward model")
        check_writable(out)
    if (prompts is None) != (policy is None):
        raise InputError("eval-reward-model: best of n needs both --prompts and --policy.")
    candidates = None
    if prompts is not None and policy is not None:
        check_model_name(policy)
        model_folder(policy)
        options = {"num_samples": num_samples, "metric": metric, "task": task, "limit": limit, "seed": seed}
        candidates = cache(partial(_candidates, prompts, policy, max_new_tokens=max_new_tokens, **options))
    rows = pair_rows(data, limit=limit, seed=seed)
    found: list[dict[str, Any]] = []
    for run, out in runs.items():
        reward_model_folder(run)
        check_writable(out)
    for run, out in runs.items():
        with only_one(out):
            found.append(_evaluated(run, out, data, rows, candidates, seed))
    return found


def _candidates(
    prompts: str, policy: str, *, num_samples: int, metric: str, task: str, limit: int | None, max_new_tokens: int,
    seed: int,
) -> Candidates:  # fmt: skip
    reward = load_reward(metric)
    if not isinstance(reward, Reward):
        raise InputError(f"--metric: '{metric}' is judged in batches; name a verifiable reward.")
    asked = limited(_prompt_rows(prompts, task, reward), limit=limit, seed=seed)
    said = sampled(policy, asked, num_samples=num_samples, max_new_tokens=max_new_tokens, seed=seed)
    return Candidates(policy, asked, said, reward)


def _evaluated(
    run: str, out: Path, data: str, rows: list[Row], candidates: Callable[[], Candidates] | None, seed: int
) -> dict[str, Any]:
    from alignment.models.reward_model import load_reward_model
    from alignment.reward_models.page import write_page

    model, processor = load_reward_model(run)
    table, scored = pair_table(model, processor, rows, seed=seed)
    curve = None
    if candidates is not None:
        of = candidates()
        curve = best_of_curve(
            lambda batch: scores_of(model, processor, batch), of.rows, of.said, of.reward, policy=of.policy, seed=seed
        )
    found = {
        "model": run, "data": data, "data_sha256": sha256(parquet(data)), "seed": seed,
        "pairs": {name: asdict(pairs) for name, pairs in table.items()},
        "best_of_n": asdict(curve) if curve else None,
        "not_measured": not_measured(table),
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    (out / "reward_model.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    write_page(table, curve, rows, scored, model=run, data=data, out=out / "reward_model.html")
    return found


def _prompt_rows(prompts: str, task: str, reward: Reward) -> list[Row]:
    file = parquet(prompts)
    names = pq.read_schema(file).names
    if missing := [c for c in ("images", "prompt", "task", "patient", *reward.columns) if c not in names]:
        raise InputError(f"{file}: no column {', '.join(missing)}, which best of n by '{reward.name}' reads.")
    check_rows(file, Check(("images", "prompt", "task"), blocks=True))
    rows = pq.read_table(file).to_pylist()
    asked = [row for row in rows if row["task"] == task]
    if not asked:
        known = sorted({row["task"] for row in rows})
        raise InputError(f"{file}: no row of task '{task}'.{nearest(task, known)} There: {', '.join(known)}.")
    return asked
