"""``clinalign eval-reward-model``: how good a reward model is on held-out pairs, and as a chooser among samples."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from alignment.cli.output import JsonFlag, say_json


def eval_reward_model(
    run: Annotated[str, typer.Argument(help="a run's folder (method: reward_model)")],
    data: Annotated[str, typer.Argument(help="held-out pairs, such as data/phantom_rewards/preference/test")],
    also: Annotated[list[str] | None, typer.Option(help="the run of another seed; figures over all runs")] = None,
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
    from alignment.reward_models.evaluation import evaluate_reward_models
    from rewards.config.input_error import InputError

    if out and also:
        raise InputError("--out: leave it out beside --also; each run's evaluation is written to RUN/evaluation.")
    runs = {each: out or Path(each) / "evaluation" for each in [run, *(also or [])]}
    found = evaluate_reward_models(
        runs, data, prompts=prompts, policy=policy, num_samples=samples, metric=metric, task=task, limit=limit
    )
    shown = found[0] if len(runs) == 1 else {"runs": found, **_over(found)}
    if as_json:
        say_json(shown)
        return
    for table in _tables(shown, "patients" if len(runs) == 1 else f"{len(runs)} runs"):
        Console(width=140).print(table)
    for lacking in found[0]["not_measured"]:
        Console().print(f"not measured: {lacking}", markup=False, highlight=False, soft_wrap=True)
    for folder in runs.values():
        Console().print(f"page: {folder / 'reward_model.html'}", markup=False, highlight=False, soft_wrap=True)


def _over(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of several evaluations, over the runs."""
    from alignment.metrics.over_seeds import figures_over_seeds

    curves = [run["best_of_n"] for run in found]
    pairs = figures_over_seeds([run["pairs"] for run in found])
    if curves[0] is None:
        return {"pairs": pairs, "best_of_n": None}
    picks = figures_over_seeds([curve["picks"] for curve in curves])
    same = {name: curves[0][name] for name in ("metric", "num_unjudged")}
    return {"pairs": pairs, "best_of_n": {**same, "picks": picks}}


def _tables(found: dict[str, Any], over: str) -> list[Table]:
    pairs = Table("figure", *found["pairs"], title=f"held-out pairs (95 % over {over})")
    for name in next(iter(found["pairs"].values()))["figures"]:
        pairs.add_row(name, *(_figure(entry["figures"][name]) for entry in found["pairs"].values()))
    curve = found["best_of_n"]
    if curve is None:
        return [pairs]
    lacking = f" ({curve['num_unjudged']} prompts not judged)" if curve["num_unjudged"] else ""
    title = f"best of n in {curve['metric']}{lacking}"
    best = Table("picked by", *(f"n = {n}" for n in curve["picks"]["random"]), title=title)
    for name, by_n in curve["picks"].items():
        best.add_row(name, *(_figure(entry) for entry in by_n.values()))
    return [pairs, best]


def _figure(figure: Mapping[str, float | None]) -> str:
    if figure["value"] is None:
        return "-"
    return f"{figure['value']:.3f}" + (
        "" if figure["low"] is None else f" ({figure['low']:.3f} to {figure['high']:.3f})"
    )
