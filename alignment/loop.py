"""The whole loop: build, train every stage, evaluate every stage on held-out patients, report, release; one table.

Every comparison is paired: the same rows answered before and after, patients resampled together. Over several seeds
the interval is over seeds (Student's t). Left out: judging whether an effect is large enough; the table says it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

from alignment.loop_figures import figures, is_figure
from alignment.over_seeds import mean_over_seeds
from alignment.recipe import Chain
from alignment.train import run, stage_recipe
from data_builders.schema import user_turn
from rewards.strict_yaml import read_yaml, validated


class Comparison(BaseModel):
    """``after`` against ``before``: two stages, or a stage against its own control (``sft/shuffled``).

    ``metrics``: of the answers, or figures of the stages (``loop_figures.py``), which have a ``/`` in their names.
    ``opponents``: stages whose reports both sides are judged against by rules, for the metric ``win_rate``; only those
    that neither side was trained against are held out.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    before: str
    after: str
    metrics: list[str]
    opponents: list[str] = []


class Loop(BaseModel):
    """A loop file: the data spec, a chain of stages, what is compared, which stage is released.

    ``probe``: does each stage look? On ``probe_limit`` of the rows. ``operating_points``: biases on denials under
    which each stage writes the reports again (``operating_points.py``); 0 must be among them.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    spec: str
    test: str
    reference: str | None = None
    limit: int | None = None
    probe: bool = False
    probe_limit: int | None = None
    operating_points: list[float] = []
    chain: Chain
    compare: list[Comparison]
    release: str


@dataclass(frozen=True)
class Effect:
    """One line of the table. ``low`` and ``high`` bound ``change`` at 95 %."""

    before_name: str
    after_name: str
    metric: str
    before: float
    after: float
    change: float
    low: float
    high: float


def run_loop(path: Path, *, seeds: int = 1, fresh: bool = False, quiet: bool = False) -> dict[str, Any]:
    """Runs the loop for each seed and prints the table; what is already done is not done again.

    Returns the effects (over seeds where there are several), the folders of the runs, report and release.
    """
    loop = validated(Loop, read_yaml(path), where=path)
    data = _built(loop, fresh=fresh)
    base = _base_seed(loop, path)
    per_seed = [_one_seed(loop, path, data, base + k, single=seeds == 1, fresh=fresh) for k in range(seeds)]
    effects = per_seed[0] if seeds == 1 else over_seeds(per_seed)
    out = Path(loop.chain.output) / (f"effects_{seeds}_seeds.json" if seeds > 1 else "effects.json")
    result = {"seeds": seeds, "effects": [vars(effect) for effect in effects], "output": loop.chain.output}
    out.write_text(json.dumps(result, indent=2), encoding="utf-8")
    released = _released(loop, base, single=seeds == 1)
    if not quiet:
        _print_table(effects, seeds)
        Console().print(
            f"report: {_home(loop, base, seeds == 1) / 'report.html'}\nreleased: {released}", highlight=False
        )
    return {**result, "released": str(released)}


def _built(loop: Loop, *, fresh: bool) -> Path:
    from data_builders.build import build
    from data_builders.build_spec import read_spec

    spec = read_spec(Path(loop.spec), [])
    card = Path(spec.output) / "card.json"
    as_built = json.loads(card.read_text(encoding="utf-8"))["spec"] if card.is_file() else None
    return card.parent if as_built == spec.model_dump(mode="json") and not fresh else build(spec)


def _base_seed(loop: Loop, path: Path) -> int:
    first = read_yaml(path.parent / loop.chain.stages[0].recipe)
    return int(first.get("trainer", {}).get("seed", 42))


def _home(loop: Loop, seed: int, single: bool) -> Path:
    return Path(loop.chain.output) if single else Path(loop.chain.output) / f"seed{seed}"


def _one_seed(loop: Loop, path: Path, data: Path, seed: int, *, single: bool, fresh: bool) -> list[Effect]:
    home = _home(loop, seed, single)
    chain = loop.chain.model_copy(update={"output": str(home)})
    console = Console(stderr=True)
    folders: dict[str, Path] = {}
    controlled = {
        loop.release,
        *(name.partition("/")[0] for c in loop.compare for name in (c.before, c.after) if "/" in name),
    }
    for index, stage in enumerate(chain.stages):
        console.print(f"[bold]{stage.name}[/bold] (seed {seed})", highlight=False)
        recipe = stage_recipe(chain, index, path, seed=seed)
        folder = run(recipe, fresh=fresh)
        if index == 0 and any(c.before == "untrained" for c in loop.compare):
            folders["untrained"] = _evaluated(loop, data, folder / "init", folder / "init_evaluation", controls=False)
        if recipe.method != "pairs":
            folders[stage.name] = _evaluated(
                loop, data, folder, folder / "evaluation", controls=stage.name in controlled
            )
    from alignment.report import write_report

    write_report(folders, home / "report.html")
    return [effect for c in loop.compare for effect in effects_of(c, folders)]


def _evaluated(loop: Loop, data: Path, run_folder: Path, out: Path, *, controls: bool) -> Path:
    """The evaluation folder of a stage; made if it is not there."""
    from alignment.box_units import written_space
    from alignment.evaluate import evaluate, limited, read_rows
    from alignment.models import load_for_inference
    from alignment.operating_points import biases_in, operating_points, write_points

    if not (out / "evaluation.json").is_file():
        model, processor = load_for_inference(str(run_folder))
        evaluate(
            model, processor, data / loop.test, out=out, model_name=str(run_folder), limit=loop.limit,
            reference=data / loop.reference if loop.reference and controls else None,
            blind_controls=controls, batch_size=128, progress=True, probe=loop.probe, probe_limit=loop.probe_limit,
            box_space=written_space(str(run_folder)),
        )  # fmt: skip
    if loop.operating_points and biases_in(out) != loop.operating_points:
        model, processor = load_for_inference(str(run_folder))
        rows = limited(read_rows(data / loop.test), limit=loop.limit, seed=0)
        write_points(operating_points(model, processor, rows, loop.operating_points, batch_size=128), out)
    return out


def effects_of(comparison: Comparison, folders: dict[str, Path]) -> list[Effect]:
    """The effects of one comparison, with paired intervals where both answered the same rows."""
    from alignment.contests import contests
    from alignment.metrics import differences, summarise

    sides = [_place(name, folders) for name in (comparison.before, comparison.after)]
    opponents = [_place(name, folders) for name in comparison.opponents]
    won = [contests(place, opponents) for place in sides]
    before, after = ([*outcomes_of(*place), *played] for place, played in zip(sides, won, strict=True))
    changes = differences(before, after)
    values = [
        _metrics(*place) | {name: m.value for name, m in summarise(played).items()}
        for place, played in zip(sides, won, strict=True)
    ]
    effects: list[Effect] = []
    for metric in comparison.metrics:
        names = comparison.before, comparison.after, metric
        if is_figure(metric):
            first, second = figures(metric, sides[0][0], sides[1][0])
            effects.append(Effect(*names, first, second, second - first, float("nan"), float("nan")))
        elif metric in changes:
            own = changes[metric]
            found = values[0][metric], values[1][metric], own.value, _or_nan(own.low), _or_nan(own.high)
            effects.append(Effect(*names, *found))
    return effects


def outcomes_of(folder: Path, condition: str) -> list[Any]:
    """The outcomes of every row that was answered under a condition, from ``answers.jsonl``."""
    from alignment.controls import BASELINES
    from alignment.metrics import score_answers

    lines = [json.loads(line) for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    answered = [line for line in lines if condition in line["responses"]]
    rows = [_as_row(line) for line in answered]
    if condition in BASELINES:  # which state boxes as the truth does
        rows = [row | {"box_space": "grid"} for row in rows]
    return score_answers(rows, [line["responses"][condition] for line in answered])


def _as_row(line: dict[str, Any]) -> dict[str, Any]:
    facts = line["facts"]
    told = {"prompt": user_turn(line["question"]), "boxes": line["true_boxes"], "rule_set": facts["rule_set"]}
    return {**line, **told, "facts": json.dumps(facts)}


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _place(name: str, folders: dict[str, Path]) -> tuple[Path, str]:
    stage, _, condition = name.partition("/")
    return folders[stage], condition or "clean"


def _metrics(folder: Path, condition: str) -> dict[str, float]:
    content = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    return {name: metric["value"] for name, metric in content["metrics"][condition].items()}


def over_seeds(per_seed: list[list[Effect]]) -> list[Effect]:
    """Mean effect over seeds with Student's 95 % interval (at least two seeds)."""
    return [_mean_effect(list(same)) for same in zip(*per_seed, strict=True)]


def _mean_effect(effects: list[Effect]) -> Effect:
    interval = mean_over_seeds([effect.change for effect in effects])
    before, after = (float(np.mean([getattr(e, side) for e in effects])) for side in ("before", "after"))
    first = effects[0]
    return Effect(first.before_name, first.after_name, first.metric, before, after, *interval)


def _released(loop: Loop, seed: int, *, single: bool) -> Path:
    from alignment.release import release

    home = _home(loop, seed, single)
    out = Path("released") / Path(loop.chain.output).name
    return out if (out / "manifest.json").is_file() else release(home / loop.release, out)


def _print_table(effects: list[Effect], seeds: int) -> None:
    over = "patients" if seeds == 1 else f"{seeds} seeds"
    table = Table("comparison", "metric", "before", "after", f"change (95 % over {over})", title="held-out patients")
    for e in effects:
        table.add_row(f"{e.before_name} -> {e.after_name}", e.metric, _told(e.before), _told(e.after), _change(e))
    Console(width=120).print(table)


def _change(effect: Effect) -> str:
    if np.isnan(effect.change) or np.isnan(effect.low):
        return _told(effect.change, "+.3f")
    return f"{effect.change:+.3f} ({effect.low:+.3f} to {effect.high:+.3f})"


def _told(value: float, form: str = ".3f") -> str:
    return "not reached" if np.isnan(value) else format(value, form)
