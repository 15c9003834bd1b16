"""Whose doctor is better: two replayed consultations judged turn by turn, or as wholes, against the real doctor."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from rewards.answers.final_answer import answer_region
from rewards.config.input_error import InputError
from rewards.judges.consultation import Consultation, transcript
from rewards.judges.judging import Case, Judge, Pair, Verdict, compared

Unit = Literal["turn", "whole"]


def consultation_pairs(
    real: Consultation,
    ours: Consultation,
    theirs: Consultation,
    *,
    unit: Unit,
    images: Mapping[str, bytes] | None = None,
) -> list[Pair]:
    """What a judge is asked of two replays of one consultation.

    ``turn``: for each answer, the real dialogue before it is the case and the real doctor's words are the reference;
    images seen so far go with it. ``whole``: both transcripts at once, all images with them.
    Raises: InputError if a replay does not belong to the consultation.
    """
    for replayed in (ours, theirs):
        if replayed.id != real.id or len(replayed.turns) != len(real.turns):
            raise InputError(f"consultation {real.id}: a replay of '{replayed.id}' with {len(replayed.turns)} turns.")
    if unit == "whole":
        complaint = transcript([turn for turn in real.turns if turn.speaker == "patient"])
        case = Case(complaint, _bytes(real, len(real.turns), images), reference=transcript(real.turns))
        return [Pair(case, _answered(ours), _answered(theirs))]
    return [
        Pair(
            Case(transcript(real.turns[:k]), _bytes(real, k, images), reference=real.turns[k].text),
            ours.turns[k].text,
            theirs.turns[k].text,
        )
        for k in real.doctor_turns
    ]


def _answered(replayed: Consultation) -> str:
    """The transcript of a replay without what was thought aloud before an answer."""
    return transcript([replace(turn, text=answer_region(turn.text).strip()) for turn in replayed.turns])


def _bytes(real: Consultation, end: int, images: Mapping[str, bytes] | None) -> tuple[bytes, ...]:
    names = dict.fromkeys(name for turn in real.turns[:end] for name in turn.images)
    return tuple(images[name] for name in names) if images is not None else ()


async def judge_consultations(
    judge: Judge, cases: Sequence[Sequence[Pair]], *, swap: bool = True, min_valid: float = 0.5
) -> list[float | None]:
    """A score in [0, 1] for each consultation: the mean of its pairs' verdicts over dimensions.

    None where fewer than ``min_valid`` of its pairs have a verdict. All pairs of all cases are asked at once.
    """
    verdicts = iter(await compared(judge, [pair for pairs in cases for pair in pairs], swap=swap))
    return [_score([next(verdicts) for _ in pairs], min_valid) for pairs in cases]


def _score(verdicts: list[Verdict | None], min_valid: float) -> float | None:
    valid = [float(np.mean(list(verdict.values()))) for verdict in verdicts if verdict is not None]
    return float(np.mean(valid)) if valid and len(valid) >= min_valid * len(verdicts) else None
