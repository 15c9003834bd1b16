"""``clinalign eval-reward-model``: how good a reward model is on held-out pairs, and as a chooser among samples."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from alignment.cli_output import JsonFlag, say_json


def eval_reward_model(
    run: Annotated[str, typer.Argument(help="a run's folder (method: reward_model)")],
    data: Annotated[str, typer.Argument(help="held-out pairs, such as data/phantom_rewards/preference/test")],
    prompts: Annotated[str | None, typer.Option(help="best of n: prompt rows, such as data/x/prompt/test")] = None,
    policy: Annotated[str | None, typer.Option(help="best of n: whose samples are chosen among")] = None,
    samples: Annotated[int, typer.Option(help="best of n: samples a prompt")] = 16,
    metric: Annotated[str, typer.Option(help="best of n: the verifiable reward")] = "finding_f1",
    task: Annotated[str, typer.Option(help="best of n: prompts of this task")] = "report",
    limit: Annotated[int | None, typer.Option(help="only so many pairs, and prompts, drawn at random")] = None,
    out: Annotated[Path | None, typer.Option(help="where to write; RUN/evaluation by default")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Evaluate a reward model: accuracy, calibration, length bias, noised images; best-of-n curves of a policy.

    Example: clinalign eval-reward-model runs/rm data/phantom_rewards/preference/test
    """
    from alignment.reward_evaluation import evaluate_reward_model

    folder = out or Path(run) / "evaluation"
    found = evaluate_reward_model(
        run, data, folder, prompts=prompts, policy=policy, num_samples=samples, metric=metric, task=task, limit=limit
    )
    if as_json:
        say_json(found)
        return
    for table in _tables(found):
        Console(width=140).print(table)
    Console().print(f"page: {folder / 'reward_model.html'}", markup=False, highlight=False, soft_wrap=True)


def _tables(found: dict[str, Any]) -> list[Table]:
    pairs = Table("figure", *found["pairs"], title="held-out pairs (95 % over patients)")
    for name in next(iter(found["pairs"].values()))["figures"]:
        pairs.add_row(name, *(_figure(own["figures"][name]) for own in found["pairs"].values()))
    curve = found["best_of_n"]
    if curve is None:
        return [pairs]
    best = Table("picked by", *(f"n = {n}" for n in curve["picks"]["random"]), title=f"best of n in {curve['metric']}")
    for name, by_n in curve["picks"].items():
        best.add_row(name, *(_figure(own) for own in by_n.values()))
    return [pairs, best]


def _figure(own: dict[str, Any]) -> str:
    if own["value"] is None:
        return "-"
    return f"{own['value']:.3f}" + ("" if own["low"] is None else f" ({own['low']:.3f} to {own['high']:.3f})")
