"""Answers judged on prompt rows, whoever gave them: outcomes, metrics with intervals, and the files of an evaluation.

A file of answers (``{id, response}`` a line) of another program is judged by the same metrics as a model's.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from alignment.config.data_entries import parquet
from alignment.config.generation_section import GenerationSection
from alignment.data.prompt_rows import limited, read_rows
from alignment.distributed.processes import is_main_process
from alignment.evaluation.answer_files import write_answers
from alignment.evaluation.controls import Answered, Response
from alignment.evaluation.evaluation_file import Evaluation
from alignment.evaluation.kept_answers import check_out
from alignment.evaluation.report import write_report
from alignment.metrics.evaluated_row import EvaluatedRow
from alignment.metrics.intervals import summarise
from alignment.metrics.outcomes import score_answers
from alignment.metrics.unjudged import unjudged_rows
from alignment.provenance.data_summary import data_summary
from alignment.provenance.lineage import trained_on
from data_builders.digest import sha256
from rewards.boxes.coordinate_space import BoxSpace
from rewards.config.input_error import InputError, nearest, nearest_file
from rewards.config.json_lines import json_lines
from rewards.config.strict_yaml import regular
from rewards.row_types import column_fault, response_fault
from rewards.rules.kept_files import files_of, keep
from rewards.rules.rule_set import RuleSet

LIBRARIES = ("clinalign", "torch", "transformers", "numpy", "pillow")
SHOWN = 3
BUILT = "-prompt"
"""What the id of a prompt row has behind that of the record that it was built of, where that asks one question."""


@dataclass(frozen=True)
class JudgedRows:
    """The rows that are judged. ``sha256``: of the file; ``unjudged``: how many no metric judges, by reason."""

    data: Path
    sha256: str
    stored: list[EvaluatedRow]
    unjudged: dict[str, int]


def judged_rows(data: Path, *, limit: int | None, seed: int, rules: RuleSet | None = None) -> JudgedRows:
    """The rows of a data entry that are judged: all, or ``limit`` drawn at random.

    Raises: InputError if the data are missing, empty, or not prompt rows, or no metric judges any of them.
    """
    digest = sha256(parquet(str(data)))
    stored = limited(read_rows(data), limit=limit, seed=seed)
    return JudgedRows(data, digest, stored, unjudged_rows(stored, rules=rules, where=data))


@dataclass(frozen=True)
class AnsweredBy:
    """By whom and how rows were answered; of a file of answers nothing is known but its name."""

    model: str
    box_space: BoxSpace
    seed: int
    model_sha256: str | None = None
    generation: GenerationSection | None = None


def judge(
    rows: JudgedRows,
    answered: Mapping[str, Answered],
    by: AnsweredBy,
    *,
    out: Path,
    num_resamples: int = 1000,
    rules: RuleSet | None = None,
) -> Evaluation:
    """The evaluation of answers under each condition (``clean``, ...); rank 0 writes its files to ``out``."""
    how = by.generation
    ruling = files_of(name for row in rows.stored for name in (row["rule_set"], *(row.get("guidelines") or ())))
    outcomes = {condition: score_answers(*pair, rules=rules) for condition, pair in answered.items()}
    evaluation = Evaluation(
        model=by.model,
        model_sha256=by.model_sha256,
        data=str(rows.data),
        data_sha256=rows.sha256,
        data_card=data_summary(parquet(str(rows.data)), rows.sha256),
        num_rows=len(rows.stored),
        num_patients=len({row["patient"] for row in rows.stored}),
        box_space=by.box_space,
        seed=by.seed,
        max_new_tokens={str(kind): bound for kind, bound in how.bounds().items()} if how else {},
        generation=how.model_dump(include={"dtype", "temperature", "seed"}) if how else {},
        versions={library: version(library) for library in LIBRARIES},
        metrics={c: summarise(o, num_resamples=num_resamples, seed=by.seed) for c, o in outcomes.items()},
        unjudged=rows.unjudged,
        rule_sets=sorted({row["rule_set"] for row in rows.stored} - {""}),
        trained_on=trained_on(by.model),
        rules={name: file.sha256 for name, file in ruling.items()},
    )
    if is_main_process():
        out.mkdir(parents=True, exist_ok=True)
        keep(out, ruling)
        evaluation.write(out)
        write_answers(answered, outcomes["clean"], out, rules=rules)
        write_report({evaluation.model: out}, out / "report.html")
    return evaluation


def is_answers(name: str) -> bool:
    """Whether this names a file of answers, rather than a model."""
    return Path(name).suffix in (".jsonl", ".json")


def judge_answers(
    file: Path, data: Path, *, out: Path, limit: int | None = None, box_space: BoxSpace = "grid", seed: int = 0
) -> Evaluation:
    """The evaluation of a file of answers on prompt rows, as of a model's; no image is replaced, since none was shown.

    Raises: InputError if a line is no answer, an id is unknown or stands twice, or a row has no answer.
    """
    if box_space == "processed":
        raise InputError("--box-space processed: of a file of answers it is not known how images were processed.")
    check_out(out)
    if (out / "evaluation.json").is_file() and (before := Evaluation.read(out).model) != str(file):
        raise InputError(f"{out}: holds the evaluation of {before}. Name another --out.")
    rows = judged_rows(data, limit=limit, seed=seed)
    known = [str(row["id"]) for row in (read_rows(data) if limit else rows.stored)]
    given = _by_rows(_read_answers(file), set(known))
    _check_ids(file, data, list(given), known)
    _check_ids_of_rows(file, data, [str(row["id"]) for row in rows.stored], given)
    written: list[EvaluatedRow] = [{**row, "box_space": box_space} for row in rows.stored]
    answers = [_fitting(file, row, given[str(row["id"])]) for row in rows.stored]
    return judge(rows, {"clean": (written, answers)}, AnsweredBy(str(file), box_space, seed), out=out)


def _read_answers(file: Path) -> dict[str, Response]:
    """The answers by id, in the order of the file."""
    cure = 'Write a line for each row, such as {"id": "r1", "response": "Yes"}.'
    if not regular(file).is_file():
        raise InputError(f"{file}: no such file.{nearest_file(file)} {cure}")
    found: dict[str, Response] = {}
    with file.open("rb") as lines:
        for number, line in json_lines(lines, location=f"{file}:", cure=cure):
            fault = next((f"no '{name}'" for name in ("id", "response") if line.get(name) is None), None)
            fault = fault or column_fault("id", line["id"]) or response_fault(line["response"], turns=True)
            if fault:
                raise InputError(f"{file}:{number}: {fault.removesuffix('.')}. {cure}")
            if str(line["id"]) in found:
                raise InputError(f"{file}:{number}: '{line['id']}' has an answer already. Keep one line for each id.")
            found[str(line["id"])] = line["response"]
    return found


def _by_rows(given: dict[str, Response], known: Collection[str]) -> dict[str, Response]:
    """The answers by the ids of rows; a user's own id stands for that of the one question built of its record.

    >>> _by_rows({"q1": "Yes"}, {"q1-prompt", "q2-prompt"})
    {'q1-prompt': 'Yes'}
    """
    built = {name: f"{name}{BUILT}" for name in given if name not in known and f"{name}{BUILT}" not in given}
    return {built[name] if built.get(name) in known else name: answer for name, answer in given.items()}


def _check_ids(file: Path, data: Path, given: list[str], known: list[str]) -> None:
    """Raises InputError if two rows share an id, or an answer is to none of them."""
    if len(set(known)) < len(known):
        twice = next(name for name, number in Counter(known).items() if number > 1)
        raise InputError(f"{data}: the id '{twice}' stands more than once, so answers cannot be told apart. Mend it.")
    if unknown := sorted(set(given) - set(known)):
        hint = nearest(unknown[0], known)
        raise InputError(f"{file}: {len(unknown)} answers to no row of {data}, such as '{unknown[0]}'.{hint}")


def _check_ids_of_rows(file: Path, data: Path, wanted: list[str], given: Mapping[str, Response]) -> None:
    """Raises InputError if a row has no answer: left out, it would not count as wrong."""
    if missing := [name for name in wanted if name not in given]:
        named = ", ".join(missing[:SHOWN])
        raise InputError(
            f"{file}: no answer to {len(missing)} of {len(wanted)} rows of {data}, such as {named}. Answer each; an "
            'empty one is {"id": ..., "response": ""}.'
        )


def _fitting(file: Path, row: EvaluatedRow, response: Response) -> Response:
    """The response, if it is of the kind that its row asks for."""
    if isinstance(response, str) == (row["task"] != "dialogue"):
        return response
    wanted = "a list of texts, one a turn" if row["task"] == "dialogue" else "one text"
    raise InputError(f"{file}: answer to '{row['id']}' ({row['task']}): expected {wanted}. Mend this line.")
