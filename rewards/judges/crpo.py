"""Comparison-based Reinforcement Policy Optimization (PulseMind, arXiv 2601.07344): win rate over a pool of answers.

A response is compared with the answers that other models gave to the same prompt, dimension by dimension; its reward
is the share it wins, and GRPO goes on from there. Not the clinical-objective CRPO (2512.00601) of the same letters.
Left out: asking the counterparts during training; ``clinalign counterparts`` asks them once a data set.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from rewards.config.input_error import InputError, nearest
from rewards.config.knobs import Number, Share
from rewards.judges.cases import cases
from rewards.judges.judge_spec import JudgeSpec, open_judge
from rewards.judges.judging import DIMENSIONS, Case, Dimension, Judge, Pair, Verdict, compared
from rewards.llm.budget import CapReached
from rewards.llm.spec import LocalBackend
from rewards.loading import Judged

BOUNDS = (0.0, 1.0)
TASKS: tuple[str, ...] | None = None
log = logging.getLogger(__name__)

Answer = Mapping[str, Any]
"""A counterpart's answer: ``model`` and ``text``."""


def win_rate(verdicts: Sequence[Verdict | None], weights: Mapping[Dimension, float], *, tie: float) -> float | None:
    """Weighted mean score over dimensions and valid verdicts, in [0, 1]; None without any.

    A dimension counts 1 if won, ``tie`` if tied, 0 if lost. With equal weights and ``tie`` 0 it is the paper's
    (1 / CD) x sum of r[c, d].

    >>> win_rate([{"accuracy": 1.0}, {"accuracy": 0.5}, None], {"accuracy": 1.0}, tie=0.5)
    0.75
    """
    values = [
        sum(weight * (tie if verdict[name] == 0.5 else verdict[name]) for name, weight in weights.items())
        for verdict in verdicts
        if verdict is not None
    ]
    return float(np.mean(values)) if values else None


@dataclass(frozen=True)
class Crpo:
    """Share of comparisons won against the row's ``counterparts``, in [0, 1]; None where too few could be judged.

    ``judge``: ``facts``, or a language model. ``preset``: ``published`` asks once and pays a tie like a loss, as the
    paper does with five counterparts and four equal dimensions; ``better`` asks in both orders and pays a tie one
    half. ``swap``, ``tie`` and ``weights`` (of dimensions; sum 1) change a preset. ``opponents``: the models of the
    pool, all by default; ``held_out``: models kept for evaluation, never in the pool. ``min_valid``: the least share
    of comparisons that must have a verdict. ``max_calls``: of the judge in one batch; where more were needed, first the
    swap is dropped, then opponents (the same for a whole group). ``reference``: a column that the judge may see.
    """

    judge: JudgeSpec | Literal["facts"] = "facts"
    preset: Literal["published", "better"] = "better"
    swap: bool | None = None
    tie: Share | None = None
    weights: dict[Dimension, float] | None = None
    opponents: list[str] | None = None
    held_out: list[str] = field(default_factory=list[str])
    min_valid: Share = 0.5
    max_calls: Number | None = None
    reference: str | None = None
    saturation: Share = 0.8
    local: LocalBackend | None = field(default=None, repr=False, metadata={"knob": False})

    def __post_init__(self) -> None:
        weights = self.dimension_weights
        if abs(sum(weights.values()) - 1) > 1e-6 or min(weights.values()) < 0:
            raise InputError(f"'crpo', knob 'weights': {weights} must be at least 0 and sum to 1.")
        leaked = set(self.opponents or ()) & set(self.held_out)
        if leaked:
            raise InputError(f"'crpo': {', '.join(sorted(leaked))} is held out for evaluation and also an opponent.")
        if self.tie is not None and not 0 <= self.tie <= 1:
            raise InputError(f"'crpo', knob 'tie': got {self.tie}; it must lie in [0, 1].")

    @property
    def columns(self) -> tuple[str, ...]:
        """What is read of a row: facts for the rules, images for a model."""
        seen = ("facts",) if self.judge == "facts" else ("images",)
        return ("prompt", "counterparts", *seen, *((self.reference,) if self.reference else ()))

    @property
    def dimension_weights(self) -> Mapping[Dimension, float]:
        """Weight by dimension, equal by default."""
        return self.weights or {name: 1 / len(DIMENSIONS) for name in DIMENSIONS}

    @cached_property
    def opened(self) -> Judge:
        """The judge, opened at its first use."""
        return open_judge(self.judge, dimensions=tuple(self.dimension_weights), local=self.local)

    async def __call__(self, responses: Sequence[str], **columns: list[Any]) -> Judged:
        """One win rate for each response, and what to watch.

        Raises: InputError if a row's counterparts lack a named opponent, or a cap is reached.
        """
        pools = [self._pool(row) for row in columns["counterparts"]]
        questions = cases(columns, reference=self.reference)
        swap, size = self._affordable(responses, questions, pools)
        matches = [(k, p) for k, r in enumerate(responses) for p in _pairs(questions[k], r, pools[k][:size])]
        verdicts = await compared(self.opened, [pair for _, pair in matches], swap=swap)
        scores: list[float | None] = []
        for k in range(len(responses)):
            of_row = [v for (row, _), v in zip(matches, verdicts, strict=True) if row == k]
            scores.append(self._score(of_row))
        return Judged(scores, self._metrics(scores, [pair for _, pair in matches], verdicts))

    def _pool(self, counterparts: Sequence[Answer] | None) -> list[str]:
        answers = {str(a["model"]): str(a["text"]) for a in counterparts or () if a["model"] not in self.held_out}
        if not answers or self.opponents is None:
            return list(answers.values())
        for name in self.opponents:
            if name not in answers:
                raise InputError(f"'crpo': a row has no answer of opponent '{name}'.{nearest(name, list(answers))}")
        return [answers[name] for name in self.opponents]

    def _affordable(self, responses: Sequence[str], questions: list[Case], pools: list[list[str]]) -> tuple[bool, int]:
        """Whether to swap, and against how many opponents, within ``max_calls`` and what the judge's cap leaves."""
        wanted = self.swap if self.swap is not None else self.preset == "better"
        limits = [n for n in (self.max_calls, self.opened.calls_left) if n is not None]
        most = max(map(len, pools), default=0)
        if not limits:
            return wanted, most
        for swap, size in [(wanted, most), *((False, size) for size in range(most, 0, -1))]:
            pairs = [p for k, r in enumerate(responses) for p in _pairs(questions[k], r, pools[k][:size])]
            calls = self.opened.num_calls([*pairs, *(p.swapped for p in pairs)] if swap else pairs)
            if calls <= min(limits):
                return swap, size
        raise CapReached(f"'crpo': one opponent a response is more than the {min(limits)} judge calls that are left.")

    def _score(self, verdicts: list[Verdict | None]) -> float | None:
        valid = sum(verdict is not None for verdict in verdicts)
        if not verdicts or valid < self.min_valid * len(verdicts):
            return None
        tie = self.tie if self.tie is not None else 0.0 if self.preset == "published" else 0.5
        return win_rate(verdicts, self.dimension_weights, tie=tie)

    def _metrics(
        self, scores: list[float | None], pairs: list[Pair], verdicts: list[Verdict | None]
    ) -> dict[str, float]:
        rated = [score for score in scores if score is not None]
        metrics = {"failure_rate": sum(v is None for v in verdicts) / max(1, len(verdicts))}
        valid = [(p, v) for p, v in zip(pairs, verdicts, strict=True) if v is not None]
        for name in self.dimension_weights if valid else ():
            metrics[name] = float(np.mean([v[name] for _, v in valid]))
        if rated:
            metrics |= {"win_rate": float(np.mean(rated)), "saturated": float(np.mean(rated) > self.saturation)}
            if metrics["saturated"]:
                log.warning(
                    "crpo: mean win rate %.2f; the pool is beaten, add stronger counterparts", metrics["win_rate"]
                )
        length = length_correlation([p for p, _ in valid], [v for _, v in valid])
        return metrics | ({} if length is None else {"length_correlation": length})


def _pairs(case: Case, response: str, pool: Sequence[str]) -> list[Pair]:
    return [Pair(case, response, text) for text in pool]


def length_correlation(pairs: Sequence[Pair], verdicts: Sequence[Verdict]) -> float | None:
    """Correlation, in [-1, 1], of an answer's lead in length with its score; None where either never varies."""
    lengths = np.array([[len(answer) for answer in pair.answers] for pair in pairs]).reshape(-1, 2)
    lead = np.log1p(lengths[:, 0]) - np.log1p(lengths[:, 1])
    score = np.array([np.mean(list(v.values())) for v in verdicts])
    if len(lead) < 2 or np.ptp(lead) < 1e-12 or np.ptp(score) < 1e-12:
        return None
    return float(np.corrcoef(lead, score)[0, 1])
