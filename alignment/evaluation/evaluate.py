"""Evaluation on a held-out split: greedy answers, metrics with intervals, blind controls, trivial baselines.

A model that does not look at the image can still answer many questions from habit. So every figure stands
beside the same figure with the image replaced (by noise, by another patient's image) and, where a reference
split is given, beside answers that need no image at all. Ranks share out the batches; each has all answers, rank 0
writes. Left out: sampled answers (pass@k) and judges.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from alignment.config.recipe import parquet
from alignment.data.box_units import UNIT_COLUMNS, with_units
from alignment.data.processed_size import ProcessedSizes
from alignment.data.processor_checks import check_processing
from alignment.distributed.engine import is_main_process
from alignment.distributed.ranks import of_rank_0, over_ranks
from alignment.evaluation.controls import (
    Answered,
    Blind,
    Response,
    Row,
    baselines,
    blinded,
    controls_for,
    image_key,
    pixels,
)
from alignment.evaluation.dialogue_answers import dialogues_said
from alignment.evaluation.kept_answers import KeptAnswers, check_out, rows_digest, weights_stamp
from alignment.evaluation.report import NUM_PICTURES, write_report
from alignment.metrics.intervals import Metric, Outcome, final_words, score_answers, summarise
from alignment.metrics.unjudged import unjudged_rows, why_unjudged
from alignment.models.generation import generate
from alignment.provenance.data_summary import data_summary
from alignment.provenance.lineage import trained_on
from data_builders.build.written_rows import UNKNOWN
from data_builders.digest import sha256
from data_builders.interruptions import stands
from data_builders.row_checks import Check, check_rows
from data_builders.schema import message_text
from rewards.boxes.coordinate_space import BoxSpace
from rewards.boxes.geometry import parse_boxes
from rewards.config.input_error import InputError
from rewards.config.json_lines import json_value, read_json
from rewards.reading.reading import read
from rewards.rules.rule_set import RuleSet, load_rule_set

MAX_NEW_TOKENS = {"closed": 8, "box": 32, "report": 96, "dialogue": 32}
"""By kind of task; of a dialogue, for each answer."""
COLUMNS = ("images", "prompt", "answer", "boxes", "facts", "rule_set", "task", "patient", "id")
CURRICULUM_COLUMNS = ("stage", "capability", "guidelines", "provenance")
LINE_COLUMNS = (*UNIT_COLUMNS, "box_images", "box_space", "processed_size")
PROTOCOL = "clinalign"
"""Answers are read and judged by clinalign's own rules, not by those of a published benchmark."""
LIBRARIES = ("clinalign", "torch", "transformers", "numpy", "pillow")
PICTURE_PIXELS = 320


@dataclass(frozen=True)
class Evaluation:
    """What ``evaluation.json`` holds. ``metrics``: by condition (``clean``, ``noise``, ...), then by name.

    ``unjudged``: how many rows no metric judges, by reason. ``model_sha256``: of the weights that answered (None: not
    known). ``data_card``: the counts, licence and hashes of the data set's card. ``rule_sets``: those of the rows.
    ``protocol``: by whose rules answers are read and judged. ``trained_on``: SHA-256 of the data that led to the model
    (None: not known).
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


def evaluate(
    model: Any,
    processor: Any,
    data: Path,
    *,
    out: Path,
    model_name: str | None = None,
    weights_sha256: str | None = None,
    limit: int | None = None,
    blind_controls: bool = True,
    reference: Path | None = None,
    rules: RuleSet | None = None,
    batch_size: int = 32,
    max_new_tokens: Mapping[str, int] | None = None,
    box_space: BoxSpace = "grid",
    num_resamples: int = 1000,
    seed: int = 0,
    progress: bool = False,
    probe: bool = False,
    probe_limit: int | None = None,
) -> Evaluation:
    """The model judged on prompt rows; ``evaluation.json``, ``answers.jsonl``, ``report.html`` go to ``out``.

    ``data``: an entry such as ``data/x/prompt/test``. ``weights_sha256``: by which the model is known
    (``weights_digest.model_sha256``); without it the evaluation cannot go into a release. ``limit``: that many
    rows, drawn at random.
    ``reference``: prompt or instruction rows of another split, whose habits the baselines take.
    ``box_space``: the units in which the model states boxes; the truth's are in the rows.
    ``probe``: also does the model look (``blindness.json``)? ``probe_limit``: on that many of the rows.
    Raises: InputError if the data are missing, empty, or not prompt rows, or no metric judges any of them.
    """
    digest = sha256(parquet(str(data)))
    truth = limited(read_rows(data), limit=limit, seed=seed)
    unjudged = unjudged_rows(truth, rules=rules, where=data)
    check_processing(processor, truth)
    rows = written_rows(truth, box_space, processor)
    probed = limited(rows, limit=probe_limit, seed=seed) if probe else []
    if probe:
        from alignment.evaluation.blindness import check_probed

        check_probed(probed)
    budget = {**MAX_NEW_TOKENS, **(max_new_tokens or {})}
    name = model_name or str(getattr(model.config, "name_or_path", "")) or "model"
    of_rank_0(lambda: check_out(out))
    kept = KeptAnswers(out, _depends_on(model, name, data, rows, {
        "batch_size": batch_size, "max_new_tokens": budget, "seed": seed, "box_space": box_space,
        "probe_limit": probe_limit,
    }))  # fmt: skip
    answer = partial(
        generate_answers, model, processor, rows,
        batch_size=batch_size, max_new_tokens=budget, seed=seed, progress=progress, kept=kept,
    )  # fmt: skip
    blinds: Sequence[Blind] = controls_for(rows) if blind_controls else ()
    answered: dict[str, Answered] = {"clean": (rows, answer()), **{b: (rows, answer(blind=b)) for b in blinds}}
    if reference is not None:
        answered |= baselines(truth, read_reference(reference), rules=rules)
    outcomes = {condition: score_answers(*pair, rules=rules) for condition, pair in answered.items()}
    evaluation = Evaluation(
        model=name,
        model_sha256=weights_sha256,
        data=str(data),
        data_sha256=digest,
        data_card=data_summary(parquet(str(data)), digest),
        num_rows=len(rows),
        num_patients=len({row["patient"] for row in rows}),
        box_space=box_space,
        seed=seed,
        max_new_tokens=budget,
        versions={library: version(library) for library in LIBRARIES},
        metrics={c: summarise(o, num_resamples=num_resamples, seed=seed) for c, o in outcomes.items()},
        unjudged=unjudged,
        rule_sets=sorted({row["rule_set"] for row in rows} - {""}),
        trained_on=trained_on(name),
    )
    if is_main_process():
        _write(evaluation, answered, outcomes["clean"], out, rules=rules)
    if probe:
        from alignment.evaluation.blindness import blindness

        with stands(lambda: f"{kept}; the same command goes on."):
            seen = blindness(model, processor, probed, batch_size=batch_size, seed=seed, kept=kept)
            if is_main_process():
                seen.write(out)
    kept.remove()  # last: from here on the evaluation counts as finished
    return evaluation


def _depends_on(model: Any, name: str, data: Path, rows: list[Row], settings: dict[str, Any]) -> dict[str, Any]:
    """All that answers follow from, as JSON."""
    origin = str(getattr(model.config, "name_or_path", ""))
    return {
        **settings,
        "model": [name, origin, getattr(model.config, "_commit_hash", None), str(model.dtype)],
        "weights": weights_stamp(name, origin),
        "data_sha256": sha256(parquet(str(data))),
        "rows": rows_digest(rows),
        "versions": {library: version(library) for library in LIBRARIES},
    }


def _write(
    evaluation: Evaluation,
    answered: Mapping[str, Answered],
    outcomes: Sequence[Outcome],
    out: Path,
    *,
    rules: RuleSet | None,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    evaluation.write(out)
    write_answers(answered, outcomes, out, rules=rules)
    write_report({evaluation.model: out}, out / "report.html")


def checked_file(data: Path) -> Path:
    """The Parquet file of a data entry whose rows can be evaluated, all of them checked.

    Raises: InputError if there are none, a column is missing, or a row holds what it cannot hold.
    """
    file = parquet(str(data))
    names = pq.read_schema(file).names
    if missing := [column for column in COLUMNS if column not in names]:
        raise InputError(f"{file}: not prompt rows: no column {', '.join(missing)} among {', '.join(names)}.")
    if not pq.read_metadata(file).num_rows:
        raise InputError(f"{file}: holds no rows to evaluate. Check the split's share in the spec.")
    check_rows(file, Check(("images", "prompt", "task"), blocks=True))
    return file


def read_rows(data: Path) -> list[Row]:
    """The prompt rows of a data entry (``data/x/prompt/test``), images still encoded (see ``pixels``).

    Raises: InputError as ``checked_file`` does.
    """
    file = checked_file(data)
    names = pq.read_schema(file).names
    more = [name for name in (*CURRICULUM_COLUMNS, *UNIT_COLUMNS, "box_images", "dialogue") if name in names]
    rows = pq.read_table(file, columns=[*COLUMNS, *more]).to_pylist()
    return with_units([_with_known_facts(row) for row in rows], file)


def written_rows(rows: list[Row], box_space: BoxSpace, processor: Any) -> list[Row]:
    """The rows with the units in which a model states boxes (columns ``box_space`` and ``processed_size``)."""
    if box_space == "grid":
        return rows
    sizes = ProcessedSizes(processor) if box_space == "processed" else None
    own = {"box_space": box_space}
    return [row | own | ({"processed_size": sizes.of(row["images"])} if sizes else {}) for row in rows]


def _with_known_facts(row: Row) -> Row:
    """The row; where it has no facts or no rule set, what stands for "not known"."""
    return row | {"facts": row["facts"] or UNKNOWN.to_json(), "rule_set": row["rule_set"] or ""}


def read_reference(data: Path) -> list[Row]:
    """Prompt rows as they are, or instruction rows with what their completions say: habits of the annotators too.

    Raises: InputError if the entry holds neither.
    """
    file = parquet(str(data))
    names = pq.read_schema(file).names
    if "completion" not in names:
        return read_rows(data)
    if lacking := [c for c in COLUMNS if c not in names and c not in ("images", "answer", "boxes")]:
        raise InputError(f"{file}: no column {', '.join(lacking)} among {', '.join(names)}; build the set anew.")
    check_rows(file, Check(("prompt", "completion", "task"), blocks=True))
    wanted = [c for c in (*COLUMNS, "completion") if c in names and c != "images"]  # habits need no image
    rows = pq.read_table(file, columns=wanted).to_pylist()
    return [_with_known_facts(row) | _as_taught(row) for row in rows]


def _as_taught(row: Row) -> Row:
    words = final_words(message_text(row["completion"]))
    return {"answer": words, "boxes": parse_boxes(words) if row["task"] == "box" else None}


def limited(rows: list[Row], *, limit: int | None, seed: int) -> list[Row]:
    """At most ``limit`` rows, drawn at random and left in their order."""
    if limit is None or limit >= len(rows):
        return rows
    if limit < 1:
        raise InputError(f"limit: got {limit}; an evaluation needs at least 1 row.")
    kept = np.random.default_rng(seed).choice(len(rows), size=limit, replace=False)
    return [rows[n] for n in sorted(kept)]


def generate_answers(
    model: Any,
    processor: Any,
    rows: Sequence[Row],
    *,
    batch_size: int = 32,
    max_new_tokens: Mapping[str, int] = MAX_NEW_TOKENS,
    blind: Blind | None = None,
    seed: int = 0,
    progress: bool = False,
    kept: KeptAnswers | None = None,
) -> list[Response]:
    """The greedy answer to each row (in a dialogue, the model's turns), in the order of the rows.

    One batch holds rows of one kind of task. Ranks share them out, and each is given all answers.

    ``blind``: each image replaced by ``noise`` of its size, or by another patient's with other facts
    (``shuffled``). ``kept``: where answers are kept as they come, and taken from.
    """
    from rich.progress import track

    asked = blinded(rows, blind, seed=seed)
    answers: list[Response] = [""] * len(rows)
    was_training = model.training
    model.eval()
    condition = blind or "clean"

    def answered(batch: tuple[str, list[int]]) -> list[Response]:
        kind, places = batch
        return _said(model, processor, [_decoded(asked[n]) for n in places], kind, max_new_tokens[kind])

    with stands(lambda: f"{kept or 'No answer is kept'}; the same command goes on."):
        missing: list[tuple[str, list[int]]] = []
        for kind, places in _batches(asked, batch_size):
            said = kept.of(condition, places) if kept else None
            if said is None:
                missing.append((kind, places))
            else:
                _enter(answers, places, said)
        told = {"description": f"answers ({condition})", "disable": not progress or not is_main_process()}
        for (_, places), said in track(over_ranks(missing, answered), total=len(missing), **told):
            if kept:
                kept.keep(condition, places, said)
            _enter(answers, places, said)
    model.train(was_training)
    return answers


def _enter(answers: list[Response], places: Sequence[int], said: Sequence[Response]) -> None:
    for place, answer in zip(places, said, strict=True):
        answers[place] = answer


def _said(model: Any, processor: Any, batch: list[Row], kind: str, max_new_tokens: int) -> list[Response]:
    if kind == "dialogue":
        return [*dialogues_said(model, processor, batch, max_answer_tokens=max_new_tokens)]
    said = generate(model, processor, batch, max_new_tokens=max_new_tokens, batch_size=len(batch))
    return [answer.strip() for (answer,) in said]


def _decoded(row: Row) -> Row:
    return row | {"images": [pixels(image).convert("RGB") for image in row["images"]]}


def _batches(rows: Sequence[Row], batch_size: int) -> Iterator[tuple[str, list[int]]]:
    alike: defaultdict[tuple[str, bool], list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        kind = (
            "report" if row.get("box_images") or row.get("capability") else _kind(row["task"])
        )  # boxes of several images, reasons
        alike[kind, bool(row["images"])].append(place)
    for (kind, _), places in alike.items():
        for start in range(0, len(places), batch_size):
            yield kind, places[start : start + batch_size]


def _kind(task: str) -> str:
    return task if task in ("box", "report", "dialogue") else "closed"


def write_answers(
    answered: Mapping[str, Answered], outcomes: Sequence[Outcome], out: Path, *, rules: RuleSet | None
) -> None:
    """``answers.jsonl``, a row a line: its truth and what was said under each condition; and the pictures."""
    said = {name: {row["id"]: text for row, text in zip(*pair, strict=True)} for name, pair in answered.items()}
    rows = answered["clean"][0]
    lines = [_answer_line(row, outcome, said, rules) for row, outcome in zip(rows, outcomes, strict=True)]
    with (out / "answers.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, sort_keys=True) + "\n" for line in lines)
    _write_pictures(rows, lines, out / "pictures")


def _answer_line(
    row: Row, outcome: Outcome, said: dict[str, dict[str, Response]], rules: RuleSet | None
) -> dict[str, Any]:
    clean, told = said["clean"][row["id"]], rules or row["rule_set"]
    return {
        **({"dialogue": row["dialogue"]} if row["task"] == "dialogue" else {}),
        **({name: row[name] for name in CURRICULUM_COLUMNS} if row.get("capability") else {}),
        **{name: row[name] for name in LINE_COLUMNS if row.get(name) is not None},
        "id": row["id"],
        "patient": row["patient"],
        "task": row["task"],
        "finding": outcome.finding,
        "question": message_text(row["prompt"]),
        "answer": row["answer"],
        "true_boxes": row["boxes"],
        "facts": json_value(row["facts"], f"row {row['id']}: 'facts'", "Build the set anew.", strict=False),
        "image": image_key(pixels(row["images"][0])) if row["images"] else None,
        "responses": {name: answers[row["id"]] for name, answers in said.items() if row["id"] in answers},
        "counts": outcome.counts,
        "unjudged": why_unjudged(row, rules),
        "boxes": outcome.boxes,
        "sentences": marked_sentences(clean, outcome, rules or load_rule_set(row["rule_set"])) if told else [],
    }


def marked_sentences(report: Response, outcome: Outcome, rules: RuleSet) -> list[tuple[str, bool]]:
    """The sentences of a report, each with whether it makes one of the outcome's wrong claims."""
    if outcome.task != "report" or not isinstance(report, str):
        return []
    sentences = [sentence for sentence in re.split(r"(?<=[.;])\s+|\n+", report) if sentence]
    return [(s, bool(set(read(s, rules).facts.present()) & set(outcome.wrong))) for s in sentences]


def _write_pictures(rows: Sequence[Row], lines: Sequence[dict[str, Any]], folder: Path) -> None:
    """Small copies of the images that the report shows: the same ones for every model on the same rows."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.png"):
        if re.fullmatch(r"[0-9a-f]{16}", old.stem):  # as ``image_key`` names them; others are not ours
            old.unlink()
    wanted = pictured(lines)
    for row, line in zip(rows, lines, strict=True):
        if line["image"] in wanted:
            wanted.discard(line["image"])
            picture = pixels(row["images"][0]).convert("RGB")
            picture.thumbnail((PICTURE_PIXELS, PICTURE_PIXELS))
            picture.save(folder / f"{line['image']}.png")


def pictured(lines: Sequence[dict[str, Any]]) -> set[str]:
    """Keys of the images to show: those with box and report first, one a patient while there are patients."""
    tasks: defaultdict[str, set[str]] = defaultdict(set)
    patients: dict[str, str] = {}
    for line in lines:
        if line["image"]:
            tasks[line["image"]].add(line["task"])
            patients[line["image"]] = line["patient"]
    ranked = sorted(tasks, key=lambda key: (-len(tasks[key] & {"box", "report"}), key))
    first = set({patients[key]: key for key in reversed(ranked)}.values())
    return set(sorted(ranked, key=lambda key: key not in first)[:NUM_PICTURES])


def _metrics_from(content: dict[str, dict[str, Any]]) -> dict[str, dict[str, Metric]]:
    return {c: {name: Metric(**metric) for name, metric in metrics.items()} for c, metrics in content.items()}
