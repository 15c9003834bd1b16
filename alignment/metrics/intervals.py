"""Metrics of answers: each row's outcome as counts, each metric a ratio of summed counts.

A ratio of sums (all hallucinated claims / all claims) lets a report with five claims weigh five times one
with a single claim. The interval is a percentile bootstrap over patients (``rewards.ratings.bootstrap``).
A metric whose denominator is zero is left out rather than called 0 or 1; one patient gives no interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignment.metrics.confusion import Confused
from alignment.metrics.outcomes import Outcome
from alignment.metrics.ratios import Macro, Made, Ratio, ratios_in
from alignment.metrics.text_overlap import Bleu
from rewards.ratings.bootstrap import drawn_counts, interval


@dataclass(frozen=True)
class Metric:
    """A value with its 95 % interval, and on how much it rests. ``low``, ``high``: None with one patient."""

    value: float
    low: float | None
    high: float | None
    num_rows: int
    num_patients: int


def summarise(outcomes: Sequence[Outcome], *, num_resamples: int = 1000, seed: int = 0) -> dict[str, Metric]:
    """Every metric that the outcomes allow, with a 95 % bootstrap interval clustered by patient."""
    sums = _PatientSums.of(outcomes, patients=sorted({o.patient for o in outcomes}))
    weights = drawn_counts(len(sums.patients), num_resamples=num_resamples, seed=seed)
    return {
        name: metric
        for name, ratios in ratios_in(outcomes).items()
        if (metric := _metric(ratios, outcomes, sums.statistic(ratios), sums.statistic(ratios, weights)))
    }


def differences(
    before: Sequence[Outcome], after: Sequence[Outcome], *, num_resamples: int = 1000, seed: int = 0
) -> dict[str, Metric]:
    """After minus before, each resample drawing the same patients for both: tighter than two intervals."""
    patients = sorted({o.patient for o in [*before, *after]})
    first, second = (_PatientSums.of(outcomes, patients=patients) for outcomes in (before, after))
    weights = drawn_counts(len(patients), num_resamples=num_resamples, seed=seed)
    found: dict[str, Metric | None] = {}
    for name, ratios in ratios_in([*before, *after]).items():
        change, changes = (second.statistic(ratios, w) - first.statistic(ratios, w) for w in (None, weights))
        found[name] = _metric(ratios, after, change, changes)
    return {name: metric for name, metric in found.items() if metric}


@dataclass(frozen=True)
class _PatientSums:
    """Counts summed over each patient's rows: ``table[patient, count]``."""

    patients: list[str]
    columns: dict[str, int]
    table: np.ndarray

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], *, patients: list[str]) -> "_PatientSums":
        columns = {name: n for n, name in enumerate(sorted({key for o in outcomes for key in o.counts}))}
        row_of = {patient: n for n, patient in enumerate(patients)}
        table = np.zeros((len(patients), len(columns)))
        for outcome in outcomes:
            for key, count in outcome.counts.items():
                table[row_of[outcome.patient], columns[key]] += count
        return cls(patients, columns, table)

    def statistic(self, ratios: Made, weights: np.ndarray | None = None) -> np.ndarray:
        """The metric of each resample (or of the patients as they are); NaN where a denominator is 0."""
        drawn = np.ones((1, len(self.patients))) if weights is None else weights
        if isinstance(ratios, Confused):
            cells = [[self._sum((cell,), drawn) for cell in row] for row in ratios.cells]
            return ratios.value(np.moveaxis(np.array(cells), 2, 0))
        if isinstance(ratios, Bleu):
            return ratios.value(np.stack([self._sum((count,), drawn) for count in ratios.counts], axis=1))
        if isinstance(ratios, Macro):
            values = np.array([self._mean(part, drawn) for part in ratios.parts])
            with np.errstate(invalid="ignore"):
                return np.nansum(values, axis=0) / (~np.isnan(values)).sum(axis=0)
        return self._mean(ratios, drawn)

    def _mean(self, ratios: tuple[Ratio, ...], drawn: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = [self._sum(ratio.over, drawn) / self._sum(ratio.under, drawn) for ratio in ratios]
        return np.mean(parts, axis=0)

    def _sum(self, keys: tuple[str, ...], drawn: np.ndarray) -> np.ndarray:
        columns = [self.columns[key] for key in keys if key in self.columns]
        # Sums of counts are linear in the patients: all resamples are one product, and ratios are formed afterwards.
        return drawn @ self.table[:, columns].sum(axis=1)


def _metric(ratios: Made, outcomes: Sequence[Outcome], value: np.ndarray, resampled: np.ndarray) -> Metric | None:
    if np.isnan(value[0]):
        return None
    under = _under(ratios)
    rows = [o for o in outcomes if under & o.counts.keys()]
    num_patients = len({o.patient for o in rows})
    low, high = (interval(resampled) if num_patients > 1 else None) or (None, None)
    return Metric(value=float(value[0]), low=low, high=high, num_rows=len(rows), num_patients=num_patients)


def _under(made: Made) -> set[str]:
    """The counts below the line: the rows that hold one of them are those that the metric rests on."""
    if isinstance(made, Confused):
        return {cell for row in made.cells for cell in row}
    if isinstance(made, Bleu):
        return {f"texts[{made.group}]"}
    parts = made.parts if isinstance(made, Macro) else (made,)
    return {key for ratios in parts for ratio in ratios for key in ratio.under}
