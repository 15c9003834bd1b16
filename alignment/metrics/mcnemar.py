"""McNemar's test of two models on the same rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from alignment.metrics.confusion import CELL


@dataclass(frozen=True)
class McNemar:
    """Rows that only one of two runs got right, and the exact two-sided p of their being equally many."""

    only_before: int
    only_after: int
    p: float


def mcnemar(before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]]) -> dict[str, McNemar]:
    """McNemar's exact test by group, over the rows of two runs in the same order (McNemar 1947).

    It takes rows as independent; with several rows a patient, trust the paired interval by patient more.
    """
    pairs: dict[str, list[tuple[bool, bool]]] = {}
    for one, other in zip(before, after, strict=True):
        for group, right in rights(one).items():
            also = rights(other).get(group)
            if also is not None:
                pairs.setdefault(group, []).append((right, also))
    return {group: _mcnemar(found) for group, found in sorted(pairs.items())}


def rights(counts: Mapping[str, float]) -> dict[str, bool]:
    """By group of closed questions: whether the answer of this row is right."""
    matches = [match for key in counts if (match := CELL.fullmatch(key))]
    return {match["group"]: match["truth"] == match["said"] for match in matches}


def _mcnemar(pairs: list[tuple[bool, bool]]) -> McNemar:
    only_before, only_after = pairs.count((True, False)), pairs.count((False, True))
    total = only_before + only_after
    # Rows that both got right or wrong say nothing; of the others half go either way by chance: a binomial test.
    return McNemar(only_before, only_after, float(stats.binomtest(only_after, total).pvalue) if total else 1.0)
