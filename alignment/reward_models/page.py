"""The evaluation of a reward model as one HTML page: tables, reliability, best of n, and the pairs it got most wrong.

All text of data is escaped; nothing is loaded from elsewhere.
"""

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from alignment.reward_models.best_of_n import Curve
from alignment.reward_models.pair_figures import Figure, Pairs, Row, ScoredPairs
from data_builders.imaging.images import pixels
from data_builders.schema import message_text
from rewards.config.templates import template

NUM_PICTURES = 6
PICTURE_PIXELS = 256
COLOURS = {"reward model": "#1f5f99", "oracle": "#1d8f4c", "random": "#8a94a0"}


def write_page(
    table: Mapping[str, Pairs],
    curve: Curve | None,
    rows: Sequence[Row],
    scored: ScoredPairs,
    *,
    model: str,
    data: str,
    out: Path,
) -> Path:
    """A self-contained page at ``out``."""
    page = template("reward_evaluation.html.j2", beside=__file__).render(
        model=model,
        data=data,
        table=table,
        curve=curve,
        lines=_lines(curve) if curve else {},
        colours=COLOURS,
        worst=_worst(rows, scored),
        figure=_figure,
        names=list(next(iter(table.values())).figures),
    )
    out.write_text(page, encoding="utf-8")
    return out


def _figure(figure: Figure) -> str:
    if figure.value is None:
        return "\N{EN DASH}"
    interval = "" if figure.low is None else f" [{figure.low:.3f}, {figure.high:.3f}]"
    return f"{figure.value:.3f}{interval}"


def _lines(curve: Curve) -> dict[str, str]:
    """Points of each line in a box of 100 x 100, n on a logarithmic axis, the reward from its least to its most."""
    values = [f.value or 0.0 for by_n in curve.picks.values() for f in by_n.values()]
    low, span = min(values), max(max(values) - min(values), 1e-9)
    most = max(len(by_n) for by_n in curve.picks.values())
    return {
        name: " ".join(
            f"{100 * k / max(1, most - 1):.1f},{100 - 100 * ((f.value or 0.0) - low) / span:.1f}"
            for k, f in enumerate(by_n.values())
        )
        for name, by_n in curve.picks.items()
    }


def _worst(rows: Sequence[Row], scored: ScoredPairs) -> list[dict[str, object]]:
    margins = scored.chosen - scored.rejected
    indices = [int(k) for k in np.argsort(margins) if margins[k] < 0][:NUM_PICTURES]
    return [
        {
            "images": [_data(image) for image in [*rows[k]["images"], *(rows[k].get("rejected_images") or [])]],
            "question": message_text(rows[k]["prompt"]),
            "kind": scored.kinds[k],
            "sides": [
                (side, message_text(rows[k][side]), float(score))
                for side, score in (("chosen", scored.chosen[k]), ("rejected", scored.rejected[k]))
            ],
        }
        for k in indices
    ]


def _data(image: dict[str, bytes]) -> str:
    picture = pixels(image).convert("RGB")
    picture.thumbnail((PICTURE_PIXELS, PICTURE_PIXELS))
    buffer = BytesIO()
    picture.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
