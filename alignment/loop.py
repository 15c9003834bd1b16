"""The whole loop: build, train every stage, evaluate every stage on held-out patients, report, release; one table.

Every comparison is paired: the same rows answered before and after, patients resampled together. Over several seeds
the interval is over seeds (Student's t). A name that cannot be is an error (``loop_file.py``); a metric that no row of
this run was judged by keeps its line, which says so: the model may have claimed nothing, and other lines have figures.
Left out: judging whether an effect is large enough; the table says it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from alignment.controls import BASELINES
from alignment.kept_answers import is_finished
from alignment.loop_figures import figures, is_figure
from alignment.loop_file import UNTRAINED, Comparison, Loop, read_loop
from alignment.loop_release import check_release, loop_release
from alignment.metrics import BY_FINDING, differences, ratios_in, score_answers, summarise
from alignment.over_seeds import mean_over_seeds
from alignment.train import check_stages, refuse_others_in_stages, run, stage_recipe
from data_builders.interruptions import stands
from data_builders.locks import only_one
from data_builders.schema import user_turn
from rewards.json_lines import read_json, read_json_lines
from rewards.rule_set import load_rule_set
from rewards.strict_yaml import InputError, nearest, read_yaml

NAN = float("nan")


@dataclass(frozen=True)
class Effect:
    """One line of the table. ``low`` and ``high`` bound ``change`` at 95 %. ``note``: why a figure is NaN."""

    before_name: str
    after_name: str
    metric: str
    before: float
    after: float
    change: float
    low: float
    high: float
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The line as JSON has it: null for what is not there."""
        return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in vars(self).items()}


def run_loop(path: Path, *, seeds: int = 1, fresh: bool = False, quiet: bool = False) -> dict[str, Any]:
    """Runs the loop for each seed and prints the table; what is already done is not done again.

    Returns the effects (over seeds where there are several), the folders of the runs, report and release.
    """
    loop = read_loop(path)
    check_stages(loop.chain, path)
    done = f"What is finished in {loop.chain.output} stands, and is not done again."
    with only_one(Path(loop.chain.output)), stands(lambda: done):
        for seed in range(base := _base_seed(loop, path), base + seeds) if fresh else ():
            home = str(_home(loop, seed, seeds == 1))
            refuse_others_in_stages(loop.chain.model_copy(update={"output": home}))
        check_release(loop.chain.output, _run_to_release(loop, path, single=seeds == 1), fresh=fresh)
        return _run_loop(loop, path, seeds=seeds, fresh=fresh, quiet=quiet)


def _run_loop(loop: Loop, path: Path, *, seeds: int, fresh: bool, quiet: bool) -> dict[str, Any]:
    data = _built(loop, path, fresh=fresh)
    base = _base_seed(loop, path)
    per_seed = [_one_seed(loop, path, data, base + k, single=seeds == 1, fresh=fresh) for k in range(seeds)]
    effects = per_seed[0] if seeds == 1 else over_seeds(per_seed)
    out = Path(loop.chain.output) / (f"effects_{seeds}_seeds.json" if seeds > 1 else "effects.json")
    result = {"seeds": seeds, "effects": [effect.to_json() for effect in effects], "output": loop.chain.output}
    out.write_text(json.dumps(result, indent=2), encoding="utf-8")
    released = loop_release(loop.chain.output, _run_to_release(loop, path, single=seeds == 1), fresh=fresh)
    if not quiet:
        _print_table(effects, seeds)
        Console().print(
            f"report: {_home(loop, base, seeds == 1) / 'report.html'}\nreleased: {released}", highlight=False
        )
    return {**result, "released": str(released)}


def _built(loop: Loop, path: Path, *, fresh: bool) -> Path:
    from data_builders.build import build
    from data_builders.build_spec import read_spec

    spec = read_spec(Path(loop.spec), [])
    card = Path(spec.output) / "card.json"
    as_built = read_json(card, "Build the set anew.").get("spec") if card.is_file() else None
    is_built = as_built == spec.model_dump(mode="json") and not fresh
    return card.parent if is_built else build(spec, inputs=[path, Path(loop.spec)])


def _base_seed(loop: Loop, path: Path) -> int:
    first = read_yaml(path.parent / loop.chain.stages[0].recipe)
    return int(first.get("trainer", {}).get("seed", 42))


def _run_to_release(loop: Loop, path: Path, *, single: bool) -> Path:
    return _home(loop, _base_seed(loop, path), single) / loop.release


def _home(loop: Loop, seed: int, single: bool) -> Path:
    return Path(loop.chain.output) if single else Path(loop.chain.output) / f"seed{seed}"


def _one_seed(loop: Loop, path: Path, data: Path, seed: int, *, single: bool, fresh: bool) -> list[Effect]:
    home = _home(loop, seed, single)
    chain = loop.chain.model_copy(update={"output": str(home)})
    console = Console(stderr=True)
    folders: dict[str, Path] = {}
    effects: dict[int, list[Effect]] = {}
    for index, stage in enumerate(chain.stages):
        console.print(f"[bold]{stage.name}[/bold] (seed {seed})", highlight=False)
        recipe = stage_recipe(chain, index, path, seed=seed)
        folder = run(recipe, fresh=fresh, inputs=[path, path.parent / stage.recipe, data])
        if index == 0 and any(UNTRAINED in c.stages for c in loop.compare):
            folders[UNTRAINED] = _evaluated(loop, data, folder / "init", folder / "init_evaluation", controls=False)
        if recipe.method != "pairs":
            controls = stage.name in loop.controlled
            folders[stage.name] = _evaluated(loop, data, folder, folder / "evaluation", controls=controls)
        # as soon as both stages are there: a name that only figures can refute costs no further training
        ready = [n for n, c in enumerate(loop.compare) if n not in effects and c.stages <= folders.keys()]
        effects |= {n: effects_of(loop.compare[n], folders) for n in ready}
    from alignment.report import write_report

    write_report(folders, home / "report.html")
    return [effect for n in range(len(loop.compare)) for effect in effects[n]]


def _evaluated(loop: Loop, data: Path, run_folder: Path, out: Path, *, controls: bool) -> Path:
    """The evaluation folder of a stage; made if it is not there, or is not of the weights that are there.

    Raises: InputError if another process evaluates into it.
    """
    with only_one(out):
        _evaluate(loop, data, run_folder, out, controls=controls)
    return out


def _evaluate(loop: Loop, data: Path, run_folder: Path, out: Path, *, controls: bool) -> None:
    from alignment.box_units import written_space
    from alignment.evaluate import evaluate, limited, read_rows
    from alignment.models import load_for_inference
    from alignment.operating_points import biases_in, operating_points, write_points
    from alignment.weights_digest import model_sha256

    weights = model_sha256(str(run_folder))
    anew = not (is_finished(out) and _is_of(out, weights))
    if anew:
        model, processor = load_for_inference(str(run_folder))
        done = evaluate(
            model, processor, data / loop.test, out=out, model_name=str(run_folder), limit=loop.limit,
            reference=data / loop.reference if loop.reference and controls else None,
            blind_controls=controls, batch_size=128, progress=True, probe=loop.probe, probe_limit=loop.probe_limit,
            box_space=written_space(str(run_folder)), weights_sha256=weights,
        )  # fmt: skip
        for reason, number in done.unjudged.items():
            Console(stderr=True).print(f"{number} of {done.num_rows} rows: {reason}; not judged", highlight=False)
    if loop.operating_points and (anew or biases_in(out) != loop.operating_points):
        model, processor = load_for_inference(str(run_folder))
        rows = limited(read_rows(data / loop.test), limit=loop.limit, seed=0)
        write_points(operating_points(model, processor, rows, loop.operating_points, batch_size=128), out)


def _is_of(evaluation: Path, weights: str | None) -> bool:
    """Whether the folder holds an evaluation of these weights."""
    from alignment.evaluate import Evaluation

    return (evaluation / "evaluation.json").is_file() and Evaluation.read(evaluation).model_sha256 == weights


def effects_of(comparison: Comparison, folders: dict[str, Path]) -> list[Effect]:
    """The effects of one comparison, with paired intervals where both answered the same rows."""
    from alignment.contests import contests

    sides = [_place(name, folders) for name in (comparison.before, comparison.after)]
    opponents = [_place(name, folders) for name in comparison.opponents]
    judged = [[*outcomes_of(*place), *contests(place, opponents)] for place in sides]
    changes = differences(*judged)
    values = [{name: m.value for name, m in summarise(own, num_resamples=1).items()} for own in judged]
    known = [*ratios_in([*judged[0], *judged[1]])]
    effects: list[Effect] = []
    for metric in comparison.metrics:
        names = comparison.before, comparison.after, metric
        if is_figure(metric):
            first, second = figures(metric, sides[0][0], sides[1][0])
            note = "not reached" if np.isnan(second - first) else ""
            effects.append(Effect(*names, first, second, second - first, NAN, NAN, note))
        elif metric in changes:
            own = changes[metric]
            found = values[0][metric], values[1][metric], own.value, _or_nan(own.low), _or_nan(own.high)
            effects.append(Effect(*names, *found))
        else:
            _check_group(metric, known, [folder for folder, _ in sides])
            first, second = (own.get(metric, NAN) for own in values)
            effects.append(Effect(*names, first, second, NAN, NAN, NAN, _unjudged(first, second)))
    return effects


def _check_group(metric: str, known: list[str], folders: list[Path]) -> None:
    """Raises: InputError if the answers know no such finding or group, with the nearest name."""
    base, bracket, group = metric.partition("[")
    if not bracket or metric in known:
        return
    rule_sets = {line["facts"]["rule_set"] for folder in folders for line in _lines(folder)} - {""}
    findings = {name for rule_set in rule_sets for name in load_rule_set(rule_set).findings}
    there = sorted({name for name in known if name.startswith(f"{base}[")})
    if base not in BY_FINDING or group.removesuffix("]") not in findings:
        named = [*there, *(f"{base}[{name}]" for name in sorted(findings) if base in BY_FINDING)]
        hint = nearest(metric, named) or f" There are: {', '.join(named) or 'none of its kind'}."
        raise InputError(f"compare: no metric '{metric}' on these rows.{hint}")


def _unjudged(first: float, second: float) -> str:
    sides = [side for side, value in (("before", first), ("after", second)) if np.isnan(value)]
    return "no row judged it" + (f" {sides[0]}" if len(sides) == 1 else "")


def outcomes_of(folder: Path, condition: str) -> list[Any]:
    """The outcomes of every row that was answered under a condition, from ``answers.jsonl``.

    Raises: InputError if none was.
    """
    answered = [line for line in _lines(folder) if condition in line["responses"]]
    if not answered:
        raise InputError(
            f"{folder}: no row was answered under '{condition}'. If the rows allow it, remove the folder and evaluate "
            "again; else do not compare with it."
        )
    rows = [_as_row(line) for line in answered]
    if condition in BASELINES:  # which state boxes as the truth does
        rows = [row | {"box_space": "grid"} for row in rows]
    return score_answers(rows, [line["responses"][condition] for line in answered])


def _lines(folder: Path) -> list[dict[str, Any]]:
    return read_json_lines(folder / "answers.jsonl", "Remove the folder and evaluate again.")


def _as_row(line: dict[str, Any]) -> dict[str, Any]:
    facts = line["facts"]
    told = {"prompt": user_turn(line["question"]), "boxes": line["true_boxes"], "rule_set": facts["rule_set"]}
    return {**line, **told, "facts": json.dumps(facts)}


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _place(name: str, folders: dict[str, Path]) -> tuple[Path, str]:
    stage, _, condition = name.partition("/")
    return folders[stage], condition or "clean"


def over_seeds(per_seed: list[list[Effect]]) -> list[Effect]:
    """Mean effect over seeds with Student's 95 % interval (at least two seeds)."""
    return [_mean_effect(list(same)) for same in zip(*per_seed, strict=True)]


def _mean_effect(effects: list[Effect]) -> Effect:
    interval = mean_over_seeds([effect.change for effect in effects])
    before, after = (float(np.mean([getattr(e, side) for e in effects])) for side in ("before", "after"))
    first, notes = effects[0], [effect.note for effect in effects if effect.note]
    note = f"{notes[0]} with {len(notes)} of {len(effects)} seeds" if notes else ""
    return Effect(first.before_name, first.after_name, first.metric, before, after, *interval, note)


def _print_table(effects: list[Effect], seeds: int) -> None:
    over = "patients" if seeds == 1 else f"{seeds} seeds"
    table = Table("comparison", "metric", "before", "after", f"change (95 % over {over})", title="held-out patients")
    for e in effects:
        table.add_row(f"{e.before_name} -> {e.after_name}", e.metric, _told(e.before), _told(e.after), _change(e))
    Console(width=120).print(table)


def _change(effect: Effect) -> str:
    if effect.note:
        return effect.note
    if np.isnan(effect.change) or np.isnan(effect.low):
        return _told(effect.change, "+.3f")
    return f"{effect.change:+.3f} ({effect.low:+.3f} to {effect.high:+.3f})"


def _told(value: float, form: str = ".3f") -> str:
    return "-" if np.isnan(value) else format(value, form)
