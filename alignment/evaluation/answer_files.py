"""Files of answers: written, read back, and judged again."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from alignment.config.box_units import UNIT_COLUMNS
from alignment.data.prompt_rows import CURRICULUM_COLUMNS
from alignment.evaluation.controls import BASELINES, Answered, Response
from alignment.evaluation.pictures import write_pictures
from alignment.metrics.answer_lines import AnswerLine
from alignment.metrics.evaluated_row import EvaluatedRow
from alignment.metrics.outcomes import Outcome, score_answers
from alignment.metrics.unjudged import why_unjudged
from data_builders.imaging.images import image_key, pixels
from data_builders.schema import message_text, user_turn
from rewards.boxes.coordinate_space import whole
from rewards.config.input_error import InputError
from rewards.config.json_lines import json_value, read_json_lines
from rewards.reading.reading import read
from rewards.rules.rule_set import RuleSet, load_rule_set


def outcomes_of(folder: Path, condition: str) -> list[Outcome]:
    """The outcomes of every row that was answered under a condition, from ``answers.jsonl``.

    Raises: InputError if none was.
    """
    answered = [line for line in answer_lines(folder) if condition in line["responses"]]
    if not answered:
        raise InputError(
            f"{folder}: no row was answered under '{condition}'. If the rows allow it, remove the folder and evaluate "
            "again; else do not compare with it."
        )
    rows: list[EvaluatedRow] = [_as_row(line) for line in answered]
    if condition in BASELINES:  # which state boxes as the truth does
        rows = [{**row, "box_space": "grid"} for row in rows]
    return score_answers(rows, [line["responses"][condition] for line in answered])


def answer_lines(folder: Path) -> list[AnswerLine]:
    """The lines of ``answers.jsonl``."""
    return cast(list[AnswerLine], read_json_lines(folder / "answers.jsonl", "Remove the folder and evaluate again."))


def _as_row(line: AnswerLine) -> EvaluatedRow:
    facts = line["facts"]
    known = {"prompt": user_turn(line["question"]), "boxes": line["true_boxes"], "rule_set": facts["rule_set"]}
    return cast(EvaluatedRow, {**line, **known, "facts": json.dumps(facts)})


LINE_COLUMNS = (*UNIT_COLUMNS, "box_images", "box_space", "processed_size")


def write_answers(
    answered: Mapping[str, Answered], outcomes: Sequence[Outcome], out: Path, *, rules: RuleSet | None
) -> None:
    """``answers.jsonl``, a row a line: its truth and what was said under each condition; and the pictures."""
    responses = {name: {row["id"]: text for row, text in zip(*pair, strict=True)} for name, pair in answered.items()}
    rows = answered["clean"][0]
    lines = [_answer_line(row, outcome, responses, rules) for row, outcome in zip(rows, outcomes, strict=True)]
    with (out / "answers.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, sort_keys=True) + "\n" for line in lines)
    write_pictures(rows, lines, out / "pictures")


def _answer_line(
    row: EvaluatedRow, outcome: Outcome, responses: dict[str, dict[str, Response]], rules: RuleSet | None
) -> AnswerLine:
    clean, has_facts = responses["clean"][row["id"]], rules or row["rule_set"]
    line = {
        **({"dialogue": row.get("dialogue")} if row["task"] == "dialogue" else {}),
        **({name: row.get(name) for name in CURRICULUM_COLUMNS} if row.get("capability") else {}),
        **{name: value for name in LINE_COLUMNS if (value := row.get(name)) is not None},
        "id": row["id"],
        "patient": row["patient"],
        "task": row["task"],
        "finding": outcome.finding,
        "question": message_text(row["prompt"]),
        "answer": row["answer"],
        "true_boxes": None if row["boxes"] is None else [whole(box) for box in row["boxes"]],
        "facts": json_value(row["facts"], f"row {row['id']}: 'facts'", "Build the set anew.", strict=False),
        "image": image_key(pixels(row["images"][0])) if row["images"] else None,
        "responses": {name: answers[row["id"]] for name, answers in responses.items() if row["id"] in answers},
        "counts": outcome.counts,
        "unjudged": why_unjudged(row, rules),
        "boxes": outcome.boxes,
        "sentences": marked_sentences(clean, outcome, rules or load_rule_set(row["rule_set"])) if has_facts else [],
    }
    return cast(AnswerLine, line)


def marked_sentences(report: Response, outcome: Outcome, rules: RuleSet) -> list[tuple[str, bool]]:
    """The sentences of a report, each with whether it makes one of the outcome's wrong claims."""
    if outcome.task != "report" or not isinstance(report, str):
        return []
    sentences = [sentence for sentence in re.split(r"(?<=[.;])\s+|\n+", report) if sentence]
    return [(s, bool(set(read(s, rules).facts.present()) & set(outcome.wrong))) for s in sentences]
