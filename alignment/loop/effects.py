"""What changed between two stages of a loop, with intervals; over seeds."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignment.evaluation.answer_files import answer_lines, outcomes_of
from alignment.loop.figures import figures, is_figure
from alignment.loop.loop_file import StageComparison
from alignment.metrics.intervals import differences, summarise
from alignment.metrics.over_seeds import mean_over_seeds
from alignment.metrics.ratios import BY_FINDING, ratios_in
from alignment.provenance.kept_rules import rules_kept_in
from rewards.config.input_error import InputError, nearest
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

    def to_json(self) -> dict[str, object]:
        """The line as JSON has it: null for what is not there."""
        return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in vars(self).items()}


def effects_of(comparison: StageComparison, folders: dict[str, Path]) -> list[Effect]:
    """The effects of one comparison, with paired intervals where both answered the same rows."""
    from alignment.evaluation.contests import contests

    sides = [_evaluated(name, folders) for name in (comparison.before, comparison.after)]
    opponents = [_evaluated(name, folders) for name in comparison.opponents]
    judged = [[*outcomes_of(*evaluated), *contests(evaluated, opponents)] for evaluated in sides]
    changes = differences(*judged)
    values = [{name: m.value for name, m in summarise(outcomes, num_resamples=1).items()} for outcomes in judged]
    known = [*ratios_in([*judged[0], *judged[1]])]
    effects: list[Effect] = []
    for metric in comparison.metrics:
        names = comparison.before, comparison.after, metric
        if is_figure(metric):
            first, second = figures(metric, sides[0][0], sides[1][0])
            note = "not reached" if np.isnan(second - first) else ""
            effects.append(Effect(*names, first, second, second - first, NAN, NAN, note))
        elif metric in changes:
            interval = changes[metric]
            found = values[0][metric], values[1][metric], interval.value, _or_nan(interval.low), _or_nan(interval.high)
            effects.append(Effect(*names, *found))
        else:
            _check_group(metric, known, [folder for folder, _ in sides])
            first, second = (of_side.get(metric, NAN) for of_side in values)
            effects.append(Effect(*names, first, second, NAN, NAN, NAN, _unjudged(first, second)))
    return effects


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _evaluated(name: str, folders: dict[str, Path]) -> tuple[Path, str]:
    stage, _, condition = name.partition("/")
    rules_kept_in(folders[stage], "evaluation.json", cure="Evaluate again with: clinalign eval.")
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


def _check_group(metric: str, known: list[str], folders: list[Path]) -> None:
    """Raises: InputError if the answers know no such finding or group, with the nearest name."""
    base, bracket, group = metric.partition("[")
    if not bracket or metric in known:
        return
    rule_sets = {line["facts"]["rule_set"] for folder in folders for line in answer_lines(folder)} - {""}
    findings = {name for rule_set in rule_sets for name in load_rule_set(rule_set).findings}
    there = sorted({name for name in known if name.startswith(f"{base}[")})
    if base not in BY_FINDING or group.removesuffix("]") not in findings:
        named = [*there, *(f"{base}[{name}]" for name in sorted(findings) if base in BY_FINDING)]
        hint = nearest(metric, named) or f" There are: {', '.join(named) or 'none of its kind'}."
        raise InputError(f"compare: no metric '{metric}' on these rows.{hint}")


def _unjudged(first: float, second: float) -> str:
    sides = [side for side, value in (("before", first), ("after", second)) if np.isnan(value)]
    return "no row judged it" + (f" {sides[0]}" if len(sides) == 1 else "")
