"""The HTML report of one or several evaluations: one file, no script, nothing loaded from elsewhere.

Several folders (before and after alignment) are shown side by side. All text of models and data is escaped.
Left out: curves over training; they show the reward that was trained on, not what came of it.
"""

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from PIL import Image

from alignment.evaluation.dialogue_pages import confusion_tables, dialogues_to_read
from alignment.evaluation.pictures import NUM_PICTURES
from alignment.evaluation.run_comparison import mcnemar_tables
from alignment.metrics.answer_lines import AnswerLine, LineFacts
from alignment.metrics.confusion import METRICS as CAPABILITY_METRICS
from alignment.metrics.confusion import capability_tables
from alignment.metrics.mcnemar import rights
from alignment.metrics.metric_names import CONDITIONS
from alignment.metrics.ratios import LOWER_IS_BETTER, MACROS, RATIOS
from rewards.boxes.coordinate_space import Extent, Units
from rewards.boxes.geometry import Box
from rewards.config.json_lines import read_json, read_json_lines
from rewards.config.templates import template

UNBOUNDED = ("claims_per_report", "boxes_per_answer")
HIGHEST = {"cider_d": 10.0}
"""The most that a metric can be, where that is not 1."""
Json = dict[str, Any]
MADE_WITH = "An evaluation is made with: clinalign eval."


def write_report(evaluations: Mapping[str, Path], out: Path) -> Path:
    """A self-contained page at ``out`` for evaluation folders by stage name, in the order given.

    Raises: InputError if a folder holds no evaluation.
    """
    stages = {name: _read_json(folder / "evaluation.json") for name, folder in evaluations.items()}
    answers = {name: _read_answers(folder / "answers.jsonl") for name, folder in evaluations.items()}
    page = template("report.html.j2", beside=__file__).render(
        stages=stages,
        comparable=len({stage["data_sha256"] for stage in stages.values()}) == 1,
        tables=[_by_stage(stages), *(_by_condition(name, stage) for name, stage in stages.items())],
        pictures=_pictures(evaluations, stages, answers),
        dialogues=dialogues_to_read(answers),
        dialogue_images=_images_by_key(evaluations),
        tests=mcnemar_tables(answers),
        confusions=[*confusion_tables(answers), *capability_tables(answers)],
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    return out


def _read_json(path: Path) -> Json:
    return read_json(path, MADE_WITH)


def _read_answers(path: Path) -> list[AnswerLine]:
    return cast(list[AnswerLine], read_json_lines(path, MADE_WITH))


def metric_names(summaries: list[Json]) -> list[str]:
    """The metrics that any summary holds, as they are ordered in ``RATIOS``: pooled, macro, then by finding."""
    order = {name: position for position, name in enumerate([*RATIOS, *CAPABILITY_METRICS])}
    names = {name for summary in summaries for name in summary}

    def rank(name: str) -> tuple[int, bool, bool, str]:
        base = name.partition("[")[0]
        return order.get(MACROS.get(base, base), len(order)), "[" in name, base in MACROS, name

    return sorted(names, key=rank)


def _by_stage(stages: Mapping[str, Json]) -> Json:
    return _table("Stages", {name: stage["metrics"]["clean"] for name, stage in stages.items()})


def _by_condition(name: str, stage: Json) -> Json:
    metrics = stage["metrics"]
    summaries = {title: metrics[condition] for condition, title in CONDITIONS.items() if condition in metrics}
    return _table(f"{name}: with and without the image", summaries)


def _table(title: str, columns: Mapping[str, Json]) -> Json:
    names = metric_names(list(columns.values()))
    rows = [_table_row(name, [summary.get(name) for summary in columns.values()]) for name in names]
    return {"title": title, "columns": list(columns), "rows": rows}


def _table_row(name: str, metrics: list[Json | None]) -> Json:
    highest = max(m["high"] or m["value"] for m in metrics if m)
    top = HIGHEST.get(name.partition("[")[0], 1.0)
    scale = max(highest, 1e-9) if name in UNBOUNDED else top
    better = (
        ""
        if name in UNBOUNDED
        else "lower is better"
        if name.partition("[")[0] in LOWER_IS_BETTER
        else "higher is better"
    )
    return {"name": name, "better": better, "cells": [_cell(m, scale) for m in metrics]}


def _cell(metric: Json | None, scale: float) -> Json | None:
    """A figure with its bar: lengths in percent of the bar's full width."""
    if metric is None:
        return None
    lengths = {
        key: None if metric[key] is None else 100 * max(metric[key], 0.0) / scale for key in ("value", "low", "high")
    }
    return {"metric": metric, "bar": lengths}


def _pictures(
    folders: Mapping[str, Path], stages: Mapping[str, Json], answers: Mapping[str, list[AnswerLine]]
) -> list[Json]:
    single = {name: [line for line in lines if line["task"] != "dialogue"] for name, lines in answers.items()}
    images = {line["image"] for lines in single.values() for line in lines}
    files = [file for file in _picture_files(folders) if file.stem in images]
    return [_picture(file, stages, single) for file in files[:NUM_PICTURES]]


def _picture_files(folders: Mapping[str, Path]) -> list[Path]:
    folder = next(iter(folders.values())) / "pictures"
    return sorted(folder.glob("*.png")) if folder.is_dir() else []


def _images_by_key(folders: Mapping[str, Path]) -> dict[str, str]:
    return {file.stem: base64.b64encode(file.read_bytes()).decode("ascii") for file in _picture_files(folders)}


def _picture(file: Path, stages: Mapping[str, Json], answers: Mapping[str, list[AnswerLine]]) -> Json:
    with Image.open(file) as image:
        size = image.size
    lines = {
        name: {line["id"]: line for line in by_id if line["image"] == file.stem} for name, by_id in answers.items()
    }
    first = next(iter(lines.values()))
    return {
        "data": base64.b64encode(file.read_bytes()).decode("ascii"),
        "width": size[0],
        "height": size[1],
        "patient": next((line["patient"] for line in first.values()), ""),
        "drawings": {name: _drawing(by_id.values(), size) for name, by_id in lines.items()},
        "questions": [_question(line, [by_id.get(line["id"]) for by_id in lines.values()]) for line in first.values()],
    }


def _drawing(lines: Iterable[AnswerLine], size: tuple[int, int]) -> Json:
    """The boxes of answers whose rows tell their units."""
    box_lines = [(line, extent) for line in lines if line["task"] == "box" and (extent := Units.of(line).extent())]
    return {
        "true": [_rectangle(b, line["finding"], e, size) for line, e in box_lines for b in line["true_boxes"] or []],
        "said": [_rectangle(b, line["finding"], e, size) for line, e in box_lines for b in line["boxes"]],
    }


def _rectangle(box: Box, name: str | None, extent: Extent, size: tuple[int, int]) -> Json:
    x1, y1, x2, y2 = (v * side / whole for v, side, whole in zip(box, size * 2, extent * 2, strict=True))
    return {
        "x": round(x1, 1),
        "y": round(y1, 1),
        "width": round(x2 - x1, 1),
        "height": round(y2 - y1, 1),
        "name": name or "",
    }


def _question(line: AnswerLine, answers: list[AnswerLine | None]) -> Json:
    return {
        "question": line["question"],
        "truth": _truth(line),
        "answers": [_answer(other) for other in answers],
    }


def _truth(line: AnswerLine) -> str:
    if line["answer"]:
        return line["answer"]
    return json.dumps(line["true_boxes"]) if line["task"] == "box" else _findings_in_words(line["facts"])


def _findings_in_words(facts: LineFacts) -> str:
    parts = [
        " ".join(str(part) for part in (f["polarity"], f.get("size"), f.get("side"), name) if part)
        for name, f in facts.get("findings", {}).items()
    ]
    return "; ".join(parts)


def _answer(line: AnswerLine | None) -> list[Json]:
    """The pieces of an answer, each with whether it is wrong; a report's sentences are judged one by one."""
    if line is None:
        return []
    if line["sentences"]:
        return [{"text": text, "wrong": wrong} for text, wrong in line["sentences"]]
    missed = False in rights(line["counts"]).values()
    wrong = missed or line["counts"].get("closed_correct") == 0.0 or line["counts"].get("unparsed_boxes") == 1.0
    return [{"text": line["responses"]["clean"], "wrong": wrong}]
