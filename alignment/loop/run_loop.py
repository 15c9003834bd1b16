"""The whole loop: build, train every stage, evaluate every stage on held-out patients, report, release; one table.

Every comparison is paired: the same rows answered before and after, patients resampled together. Over several seeds
the interval is over seeds (Student's t). A name that cannot be is an error (``loop_file.py``); a metric that no row of
this run was judged by keeps its line, which says so: the model may have claimed nothing, and other lines have figures.
Left out: judging whether an effect is large enough; the table says it.
"""

import contextlib
import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from alignment.distributed.engine import is_main_process
from alignment.distributed.ranks import agreed, alone_at, of_rank_0
from alignment.distributed.shared_folder import check_shared
from alignment.evaluation.controls import BASELINES
from alignment.loop.evaluation import evaluated
from alignment.loop.figures import figures, is_figure
from alignment.loop.loop_file import UNTRAINED, Comparison, Loop, read_loop
from alignment.loop.release import check_release, loop_release
from alignment.loop.steps import BUILD, RELEASE, Step, base_seed, check_inputs, is_built, step_named, steps_of
from alignment.metrics.intervals import BY_FINDING, differences, ratios_in, score_answers, summarise
from alignment.metrics.over_seeds import mean_over_seeds
from alignment.training.run import check_stages, refuse_others_in_stages, run, stage_recipe
from data_builders.build.build import build
from data_builders.build.build_spec import read_spec
from data_builders.interruptions import stands
from data_builders.schema import user_turn
from rewards.config.input_error import InputError, nearest
from rewards.config.json_lines import read_json_lines
from rewards.rules.rule_set import load_rule_set

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


def run_loop(
    path: Path, *, seeds: int = 1, fresh: bool = False, quiet: bool = False, step: str | None = None
) -> dict[str, Any]:
    """Runs the loop for each seed and prints the table; what is already done is not done again.

    ``step``: only this one of ``loop_steps.steps_of``, whose inputs must be there; it takes no lock of the whole loop,
    so that steps that do not read each other can be done at once. Ranks train and evaluate together; rank 0 alone
    builds, compares and releases.
    Returns the effects (over seeds where there are several), the folders of the runs, report and release; of another
    step than the last, the folder that it filled.
    """
    loop = agreed(lambda: read_loop(path))
    agreed(lambda: check_stages(loop.chain, path))
    steps = agreed(lambda: steps_of(loop, path, seeds))
    running = _Running(loop, path, seeds=seeds, fresh=fresh, quiet=quiet)
    done = f"What is finished in {loop.chain.output} stands, and is not done again."
    if step is not None:
        only = agreed(lambda: step_named(step, steps, path))
        again = f"clinalign demo {path}{f' --seeds {seeds}' if seeds > 1 else ''} --step"
        of_rank_0(lambda: check_inputs(only, steps, loop, again=again))
        alone = contextlib.nullcontext() if only.stage is not None else alone_at(Path(loop.chain.output))
        with alone, stands(lambda: done):
            return running.done(only)
    with alone_at(Path(loop.chain.output)), stands(lambda: done):
        check_shared(Path(loop.chain.output))
        return [running.done(each) for each in steps][-1]


@dataclass
class _Running:
    """A loop in this process. ``evaluated``: the evaluations that are finished, by seed.

    ``effects``: by seed and number of the comparison, in rank 0 alone.
    """

    loop: Loop
    path: Path
    seeds: int
    fresh: bool
    quiet: bool
    evaluated: dict[int, dict[str, Path]] = field(default_factory=dict[int, dict[str, Path]])
    effects: dict[int, dict[int, list[Effect]]] = field(default_factory=dict[int, dict[int, list[Effect]]])

    @property
    def every_seed(self) -> range:
        base = base_seed(self.loop, self.path)
        return range(base, base + self.seeds)

    def home(self, seed: int) -> Path:
        output = Path(self.loop.chain.output)
        return output if self.seeds == 1 else output / f"seed{seed}"

    @property
    def run_to_release(self) -> Path:
        return self.home(self.every_seed[0]) / self.loop.release

    def done(self, step: Step) -> dict[str, Any]:
        """What a step made, once it is finished in all ranks."""
        if step.name == BUILD:
            return {"made": of_rank_0(lambda: str(self.built()))}
        if step.name == RELEASE:
            return of_rank_0(self.released)
        Console(stderr=True, quiet=not is_main_process()).print(
            f"[bold]{step.name}[/bold] (seed {step.seed})", highlight=False
        )
        return {"made": str(self.evaluation(step) if step.evaluates else self.stage(step))}

    def built(self) -> Path:
        """The data set's folder, once nothing speaks against replacing what is there, the release too."""
        for seed in self.every_seed if self.fresh else ():
            refuse_others_in_stages(self.loop.chain.model_copy(update={"output": str(self.home(seed))}))
        check_release(self.loop.chain.output, self.run_to_release, fresh=self.fresh)
        spec = read_spec(Path(self.loop.spec), [])
        if not self.fresh and is_built(spec):
            return Path(spec.output)
        return build(spec, inputs=[self.path, Path(self.loop.spec)])

    def stage(self, step: Step) -> Path:
        """The folder of a run, or of pairs."""
        assert step.stage is not None
        chain = self.loop.chain.model_copy(update={"output": str(self.home(step.seed))})
        recipe = agreed(partial(stage_recipe, chain, step.stage, self.path, seed=step.seed))
        file = self.path.parent / chain.stages[step.stage].recipe
        return run(recipe, fresh=self.fresh, inputs=[self.path, file, self.data])

    @property
    def data(self) -> Path:
        return Path(read_spec(Path(self.loop.spec), []).output)

    def evaluation(self, step: Step) -> Path:
        """The folder of an evaluation. What can be compared by now is: a fault of a name costs no further training."""
        assert step.stage is not None
        assert step.evaluates is not None
        folder = self.home(step.seed) / self.loop.chain.stages[step.stage].name
        weights = folder / "init" if step.evaluates == UNTRAINED else folder
        out = Path(self.loop.chain.output) / step.name
        controls = step.evaluates in self.loop.controlled
        evaluated(self.loop, self.data, weights, out, controls=controls)
        self.evaluated.setdefault(step.seed, {})[step.evaluates] = out
        if is_main_process():
            self.compare(step.seed)
        return out

    def compare(self, seed: int) -> None:
        """The effects of every comparison whose stages are evaluated; once all are, the seed's report."""
        folders, found = self.evaluated[seed], self.effects.setdefault(seed, {})
        ready = [n for n, c in enumerate(self.loop.compare) if n not in found and c.stages <= folders.keys()]
        found |= {n: effects_of(self.loop.compare[n], folders) for n in ready}
        if ready and len(found) == len(self.loop.compare):
            from alignment.evaluation.report import write_report

            write_report(folders, self.home(seed) / "report.html")

    def released(self) -> dict[str, Any]:
        """The table, printed and as JSON, and the release."""
        output, seeds = self.loop.chain.output, self.seeds
        for step in steps_of(self.loop, self.path, seeds):
            if step.evaluates:
                self.evaluated.setdefault(step.seed, {})[step.evaluates] = Path(output) / step.name
        for seed in self.every_seed:
            self.compare(seed)
        per_seed = [[e for n in sorted(found) for e in found[n]] for found in self.effects.values()]
        effects = per_seed[0] if seeds == 1 else over_seeds(per_seed)
        out = Path(output) / (f"effects_{seeds}_seeds.json" if seeds > 1 else "effects.json")
        result = {"seeds": seeds, "effects": [effect.to_json() for effect in effects], "output": output}
        out.write_text(json.dumps(result, indent=2), encoding="utf-8")
        released = loop_release(output, self.run_to_release, fresh=self.fresh)
        if not self.quiet:
            _print_table(effects, seeds)
            report = self.home(self.every_seed[0]) / "report.html"
            Console().print(f"report: {report}\nreleased: {released}", highlight=False)
        return {**result, "released": str(released)}


def effects_of(comparison: Comparison, folders: dict[str, Path]) -> list[Effect]:
    """The effects of one comparison, with paired intervals where both answered the same rows."""
    from alignment.evaluation.contests import contests

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
