"""How good is a reward model? On held-out pairs, and as the chooser among a policy's own samples.

Pairs: accuracy, calibration of sigmoid(difference), length bias; by kind of pair, noised images among them, and with
another patient's image in place of each (``another image``), where accuracy should fall to one half. Samples: best of n
by the reward model's pick, beside an oracle's and a random one, in a verifiable reward. Every interval is a bootstrap
over patients. Left out: agreement with human raters.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

from alignment.config.checkpoint_folders import check_model_name, model_folder, reward_model_folder
from alignment.config.data_entries import parquet
from alignment.models.reward_model import scores_of
from alignment.reward_models.best_of_n import Candidates, best_of_curve, candidates_of
from alignment.reward_models.pair_figures import SWAPPED, Pairs, Row, pair_rows, pair_table
from data_builders.digest import sha256
from data_builders.locks import only_one
from data_builders.output_folders import check_writable, refuse_foreign
from rewards.config.input_error import InputError


def not_measured(table: dict[str, Pairs]) -> list[str]:
    """What the pairs did not allow to measure, and why."""
    return [] if SWAPPED in table else [f"{SWAPPED}: no two pairs with one image on both sides have different facts"]


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
        candidates = cache(partial(candidates_of, prompts, policy, max_new_tokens=max_new_tokens, **options))
    rows = pair_rows(data, limit=limit, seed=seed)
    found: list[dict[str, Any]] = []
    for run, out in runs.items():
        reward_model_folder(run)
        check_writable(out)
    for run, out in runs.items():
        with only_one(out):
            found.append(_evaluated(run, out, data, rows, candidates, seed))
    return found


def _evaluated(
    run: str, out: Path, data: str, rows: list[Row], candidates: Callable[[], Candidates] | None, seed: int
) -> dict[str, Any]:
    from alignment.models.reward_model_files import load_reward_model
    from alignment.reward_models.page import write_page

    model, processor = load_reward_model(run)
    table, scored = pair_table(model, processor, rows, seed=seed)
    curve = None
    if candidates is not None:
        of = candidates()
        curve = best_of_curve(
            lambda batch: scores_of(model, processor, batch),
            of.rows,
            of.responses,
            of.reward,
            policy=of.policy,
            seed=seed,
        )
    found = {
        "model": run,
        "data": data,
        "data_sha256": sha256(parquet(data)),
        "seed": seed,
        "pairs": {name: asdict(pairs) for name, pairs in table.items()},
        "best_of_n": asdict(curve) if curve else None,
        "not_measured": not_measured(table),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "reward_model.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    write_page(table, curve, rows, scored, model=run, data=data, out=out / "reward_model.html")
    return found
