"""What ``evaluation.json`` holds."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alignment.metrics.intervals import Metric
from rewards.boxes.coordinate_space import BoxSpace
from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json

PROTOCOL = "clinalign"
"""Answers are read and judged by clinalign's own rules, not by those of a published benchmark."""


@dataclass(frozen=True)
class Evaluation:
    """What ``evaluation.json`` holds. ``metrics``: by condition (``clean``, ``noise``, ...), then by name.

    ``unjudged``: how many rows no metric judges, by reason. ``model_sha256``: of the weights that answered (None: not
    known). ``data_card``: the counts, licence and hashes of the data set's card. ``rule_sets``: those of the rows.
    ``protocol``: by whose rules answers are read and judged. ``trained_on``: SHA-256 of the data that led to the model
    (None: not known). ``max_new_tokens`` by kind of task, and of ``generation`` the ``dtype``, ``temperature`` (None:
    greedy) and ``seed``; empty where answers were given in a file. ``rules``: SHA-256 of the rule
    sets of the user's own that the folder keeps, by file.
    """

    model: str
    data: str
    data_sha256: str
    data_card: dict[str, Any] | None
    num_rows: int
    num_patients: int
    seed: int
    max_new_tokens: dict[str, int]
    versions: dict[str, str]
    metrics: dict[str, dict[str, Metric]]
    box_space: BoxSpace = "grid"
    unjudged: dict[str, int] = field(default_factory=dict[str, int])
    model_sha256: str | None = None
    rule_sets: list[str] = field(default_factory=list[str])
    protocol: str = PROTOCOL
    trained_on: list[str] | None = None
    generation: dict[str, str | float | None] = field(default_factory=dict[str, str | float | None])
    rules: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def read(cls, folder: Path) -> "Evaluation":
        """The evaluation in a folder that ``clinalign eval`` wrote.

        Raises: InputError if there is none, or it is not one.
        """
        path = folder / "evaluation.json"
        content: Any = read_json(path, "An evaluation is made with: clinalign eval.")
        try:
            return cls(**content | {"metrics": _metrics_from(content["metrics"])})
        except (KeyError, TypeError, AttributeError):
            raise InputError(
                f"{path}: not an evaluation of this version. Make it again with: clinalign eval."
            ) from None

    def write(self, folder: Path) -> Path:
        """``evaluation.json`` in the folder."""
        path = folder / "evaluation.json"
        path.write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return path


def _metrics_from(content: dict[str, dict[str, Any]]) -> dict[str, dict[str, Metric]]:
    return {c: {name: Metric(**metric) for name, metric in metrics.items()} for c, metrics in content.items()}
