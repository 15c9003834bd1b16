"""Reports of one stage against those of others on the same held-out rows, judged by rules: the metric ``win_rate``.

Left out: judges other than the rules on facts; ``clinalign winrate`` has them.
"""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from alignment.metrics.answer_lines import AnswerLine
from alignment.metrics.outcomes import Outcome
from rewards.config.json_lines import read_json_lines
from rewards.judges.facts_judge import FactsJudge
from rewards.judges.judging import Case, Pair

Evaluated = tuple[Path, str]
"""An evaluation's folder, and the condition under which its rows were answered (``clean``)."""


def contests(evaluated: Evaluated, opponents: Sequence[Evaluated]) -> list[Outcome]:
    """For each report that all of them wrote, the share of dimensions and opponents won; a tie is one half.

    The rules know no order of the two answers, so each pair is judged once.
    """
    if not opponents:
        return []
    lines = _reports(evaluated[0])
    answers = [_responses(opponent) for opponent in opponents]
    mine = _responses(evaluated)
    ids = [row_id for row_id in lines if row_id in mine and all(row_id in responses for responses in answers)]
    pairs = [Pair(_case(lines[row_id]), mine[row_id], responses[row_id]) for row_id in ids for responses in answers]
    verdicts = asyncio.run(FactsJudge().compare(pairs))
    scores = [None if v is None else sum(v.values()) / len(v) for v in verdicts]
    found: list[Outcome] = []
    for k, row_id in enumerate(ids):
        judged = [s for s in scores[k * len(answers) : (k + 1) * len(answers)] if s is not None]
        counts = {"contests": float(len(judged)), "won": float(sum(judged))}
        found.append(Outcome(row_id, lines[row_id]["patient"], "contest", None, counts if judged else {}))
    return found


def _reports(folder: Path) -> dict[str, AnswerLine]:
    """The lines of report rows in ``answers.jsonl``, by id."""
    lines = cast(list[AnswerLine], read_json_lines(folder / "answers.jsonl", "Evaluate again."))
    return {line["id"]: line for line in lines if line["task"] == "report"}


def _responses(evaluated: Evaluated) -> dict[str, str]:
    folder, condition = evaluated
    responses = {row_id: line["responses"].get(condition) for row_id, line in _reports(folder).items()}
    return {row_id: text for row_id, text in responses.items() if isinstance(text, str)}


def _case(line: AnswerLine) -> Case:
    return Case(question=str(line["question"]), facts=json.dumps(line["facts"]))
