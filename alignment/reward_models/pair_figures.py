"""How often a reward or a reward model ranks preference rows as they were ranked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq

from alignment.config.data_entries import rows_at
from alignment.data.prompt_rows import file_with, limited
from alignment.evaluation.controls import blinded
from alignment.metrics.evaluated_row import EvaluatedRow
from alignment.models.reward_model import scores_of
from data_builders.imaging.images import pixels
from data_builders.row_checks import Check
from data_builders.schema import message_text
from rewards.config.input_error import InputError
from rewards.ratings.bootstrap import drawn_indices, interval
from rewards.ratings.preference_metrics import Bin, calibration, length_bias, pairwise_accuracy, reliability

SWAPPED = "another image"

Row = dict[str, Any]


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
class ScoredPairs:
    """Scores (pairs) of both sides, their lengths in characters, and whose they are."""

    chosen: np.ndarray
    rejected: np.ndarray
    chosen_length: np.ndarray
    rejected_length: np.ndarray
    patients: list[str]
    kinds: list[str]

    def at(self, indices: Sequence[int] | np.ndarray) -> "ScoredPairs":
        """The pairs at these places, as often as they are named."""
        chosen, rejected, *lengths = (
            v[indices] for v in (self.chosen, self.rejected, self.chosen_length, self.rejected_length)
        )
        patients, kinds = [self.patients[k] for k in indices], [self.kinds[k] for k in indices]
        return ScoredPairs(chosen, rejected, lengths[0], lengths[1], patients, kinds)


def pair_rows(data: str, *, limit: int | None = None, seed: int = 0) -> list[Row]:
    """Preference rows with their images still encoded.

    Raises: InputError if the entry holds none.
    """
    needed = ("images", "prompt", "chosen", "rejected")
    file = file_with(data, (*needed, "patient"), Check(needed, blocks=True), what="preference rows")
    if not (number := pq.read_metadata(file).num_rows):
        raise InputError(f"{file}: holds no pairs.")
    return rows_at(file, limited([*range(number)], limit=limit, seed=seed))


def scored_pairs(model: Any, processor: Any, rows: Sequence[Mapping[str, Any]], *, batch_size: int = 64) -> ScoredPairs:
    """Both sides of each pair; a rejected answer under its own images, where the row has them."""
    both: list[tuple[float, float]] = []
    for start in range(0, len(rows), CHUNK):
        parts = [part for row in rows[start : start + CHUNK] for part in _parts(row)]
        scores = iter(
            [s for part_scores in scores_of(model, processor, parts, batch_size=batch_size) for s in part_scores]
        )
        both += [(next(scores), next(scores)) for _ in rows[start : start + CHUNK]]
    sides = [[message_text(row[side]) for row in rows] for side in ("chosen", "rejected")]
    lengths = [np.array([len(text) for text in texts], float) for texts in sides]
    chosen, rejected = np.array(both).T
    patients, kinds = [row["patient"] for row in rows], [row.get("kind") or "" for row in rows]
    return ScoredPairs(chosen, rejected, lengths[0], lengths[1], patients, kinds)


def _parts(row: Mapping[str, Any]) -> list[Row]:
    """The row as ``scores_of`` takes it: two answers, or one under each of its images."""
    answers = [message_text(row["chosen"]), message_text(row["rejected"])]
    if not row.get("rejected_images"):
        return [{"images": decoded_pair(row["images"]), "prompt": row["prompt"], "answers": answers}]
    return [
        {"images": decoded_pair(images), "prompt": row["prompt"], "answers": [answer]}
        for images, answer in zip((row["images"], row["rejected_images"]), answers, strict=True)
    ]


def decoded_pair(images: Sequence[Any]) -> list[Any]:
    """The images of one side as pixels."""
    return [pixels(image).convert("RGB") for image in images]


def pair_figures(pairs: ScoredPairs, *, num_resamples: int = 1000, seed: int = 0) -> Pairs:
    """Accuracy, calibration and length bias of these pairs, each with its interval."""
    values = _values(pairs)
    drawn = [_values(pairs.at(p)) for p in drawn_indices(pairs.patients, num_resamples=num_resamples, seed=seed)]
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


def figure(value: float, drawn: Sequence[float]) -> Figure:
    """The value with the percentile interval of its resamples; where it is NaN they are left out."""
    low, high = interval(drawn) or (None, None)
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
        shown = blinded(cast(list[EvaluatedRow], text_side), "shuffled", seed=seed)  # which reads no other columns
        swapped = scored_pairs(model, processor, shown, batch_size=batch_size)
        table[SWAPPED] = pair_figures(swapped, **options)
    return table, scored
