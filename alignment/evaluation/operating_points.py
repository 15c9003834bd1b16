"""Hallucinations at equal recall: the same model, asked to deny a little less or a little more.

A model that claims less hallucinates less and omits more, so two models' hallucination rates can be compared only
where they omit equally often. A bias in nats on the word that begins a denial ("No nodule.") moves a model along its
own trade-off under greedy decoding, as a threshold moves a classifier along its ROC curve; between two measured points
the curve is taken for straight. Left out: points outside the measured biases, which are not guessed.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignment.config.generation_section import GenerationSection
from alignment.data.prompt_rows import decoded_row
from alignment.distributed.ranks import over_ranks
from alignment.evaluation.answers import GREEDY
from alignment.metrics.evaluated_row import EvaluatedRow
from alignment.metrics.intervals import summarise
from alignment.metrics.outcomes import score_answers
from alignment.models.generation import generate, like_batches
from data_builders.rendering.render import report
from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json_list
from rewards.rules.facts import Facts, Finding, Polarity
from rewards.rules.rule_set import RuleSet, load_rule_set

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

FILE = "operating_points.json"


@dataclass(frozen=True)
class OperatingPoint:
    """Rates of the reports under one ``bias`` (nats on denials; below 0 the model claims more)."""

    bias: float
    omission_rate: float
    hallucination_rate: float
    finding_f1: float
    report_parse_failure: float


def operating_points(
    model: "PreTrainedModel",
    processor: "ProcessorMixin",
    rows: Sequence[EvaluatedRow],
    biases: Sequence[float],
    *,
    generation: GenerationSection = GREEDY,
) -> list[OperatingPoint]:
    """The model's trade-off on the report rows among ``rows``, one point for each bias. Ranks share out the batches.

    Raises: InputError if there are no reports, or no token of the model begins denials alone.
    """
    report_rows = [decoded_row(row) for row in rows if _is_read(row)]
    if not report_rows:
        raise InputError(f"operating points: none of {len(rows)} rows asks for a report with known facts.")
    tokens = denial_tokens(processor.tokenizer, load_rule_set(report_rows[0]["rule_set"]))
    return [_point(model, processor, report_rows, tokens, bias, generation) for bias in biases]


def _is_read(row: EvaluatedRow) -> bool:
    return row["task"] == "report" and bool(row["rule_set"])


def _point(
    model: "PreTrainedModel",
    processor: "ProcessorMixin",
    rows: list[EvaluatedRow],
    tokens: list[int],
    bias: float,
    generation: GenerationSection,
) -> OperatingPoint:
    longest = generation.bound("report")
    how: dict[str, Any] = {"max_new_tokens": longest, "token_bias": dict.fromkeys(tokens, bias)}
    batches = [indices for indices, _ in like_batches(rows, longest, generation.batch_size)]

    def reports(batch: list[int]) -> list[list[str]]:
        return generate(model, processor, [rows[k] for k in batch], batch_size=len(batch), **how)

    responses = {
        k: text for batch, texts in over_ranks(batches, reports) for k, (text,) in zip(batch, texts, strict=True)
    }
    found = summarise(score_answers(rows, [responses[k].strip() for k in range(len(rows))]), num_resamples=1)
    names = ("omission_rate", "hallucination_rate", "finding_f1", "report_parse_failure")
    return OperatingPoint(bias, *(found[name].value if name in found else float("nan") for name in names))


def denial_tokens(tokenizer: Any, rules: RuleSet) -> list[int]:
    """The tokens with which a report's sentence begins where it denies a finding, and never where it claims one.

    Raises: InputError if there is none, as where both begin with "There".
    """
    denials, claims = (
        {token for name in rules.findings for token in _first_tokens(tokenizer, _sentence(rules, name, polarity))}
        for polarity in ("absent", "present")
    )
    if not denials - claims:
        raise InputError(f"operating points: in rule set {rules.id} denials and claims begin with the same token.")
    return sorted(denials - claims)


def _sentence(rules: RuleSet, name: str, polarity: Polarity) -> str:
    return report(Facts(rule_set=rules.id, findings={name: Finding(polarity=polarity)}), rules)


def _first_tokens(tokenizer: Any, sentence: str) -> set[int]:
    """Its first token at the beginning of a text, and behind another sentence."""
    before = tokenizer(".", add_special_tokens=False)["input_ids"]
    behind = tokenizer(f". {sentence}", add_special_tokens=False)["input_ids"]
    same = next((k for k, (a, b) in enumerate(zip(before, behind, strict=False)) if a != b), len(before))
    return {tokenizer(sentence, add_special_tokens=False)["input_ids"][0], behind[same]}


def hallucination_at(points: Sequence[OperatingPoint], omission_rate: float) -> float | None:
    """The hallucination rate where the model omits this often, None outside of what was measured.

    >>> a, b = (OperatingPoint(bias, o, h, 0.0, 0.0) for bias, o, h in ((0.0, 0.3, 0.1), (-1.0, 0.1, 0.3)))
    >>> round(hallucination_at([a, b], 0.2), 6), hallucination_at([a, b], 0.05)
    (0.2, None)
    """
    known = sorted((p.omission_rate, p.hallucination_rate) for p in points if not np.isnan(p.hallucination_rate))
    if not known or not known[0][0] <= omission_rate <= known[-1][0]:
        return None
    omissions, hallucinations = zip(*known, strict=True)
    return float(np.interp(omission_rate, omissions, hallucinations))


def write_points(points: Sequence[OperatingPoint], folder: Path) -> Path:
    """``operating_points.json`` in the folder."""
    path = folder / FILE
    path.write_text(json.dumps([asdict(point) for point in points], indent=2) + "\n", encoding="utf-8")
    return path


def read_points(folder: Path) -> list[OperatingPoint]:
    """The points that were written into a folder."""
    return [OperatingPoint(**point) for point in read_json_list(folder / FILE, "Evaluate again.", strict=False)]


def biases_in(folder: Path) -> list[float]:
    """The biases under which points were written into a folder; none if there are no points."""
    return [point.bias for point in read_points(folder)] if (folder / FILE).is_file() else []
