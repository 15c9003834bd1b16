"""From a source to a built data set: split, word, write, count. The same spec gives the same bytes.

``OUT/KIND/SPLIT.parquet`` in TRL's columns and ours, ``card.json``, ``gallery.html``. Rows are written as they
come, so memory does not grow with the data set. Left out: streaming from object stores, and more than one worker.
"""

# pyarrow comes without types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

import json
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_builders.build_spec import BuildSpec
from data_builders.card import Tally, card_of
from data_builders.corrupt import corrupt
from data_builders.curriculum_rows import open_curriculum
from data_builders.dialogue_rows import DialogueRows, annotator_of
from data_builders.dialogues import Paraphraser, dialogue_fault
from data_builders.gallery import write_gallery
from data_builders.hallucination_checks import fault_of_rejected
from data_builders.images import ImageError, decoded, png_bytes
from data_builders.noised_pairs import NoisedPairs
from data_builders.paraphrases import LlmParaphraser
from data_builders.preference_set import finished
from data_builders.render import QuestionAnswer, absent_boxes, box_answer, questions, report
from data_builders.schema import (
    Quarantined,
    RowKind,
    Sample,
    Written,
    assistant_turn,
    facts_on_grid,
    row_always,
    user_turn,
)
from data_builders.splits import split_of
from data_builders.strata import placements, write_placements
from data_builders.written_rows import fault_of_written, own_split, written_rows
from rewards.boxes import is_valid
from rewards.facts import Box, Facts
from rewards.llm_spec import LocalBackend
from rewards.rule_set import RuleSet, load_rule_set
from rewards.strict_yaml import InputError

BLOCK = pa.struct([("type", pa.string()), ("text", pa.string())])
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.list_(BLOCK))]))
ALWAYS = ("id", "patient", "study", "source", "split", "task", "facts", "rule_set", "provenance")
IMAGES = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
STAGED = {"stage": pa.string(), "capability": pa.string(), "guidelines": pa.list_(pa.string())}
"""What rows of a curriculum have beside: their stage in it, not that of a disease."""
OWN: dict[RowKind, dict[str, pa.DataType]] = {
    "instruction": {"prompt": MESSAGES, "completion": MESSAGES, "dialogue": pa.string()},
    "preference": {
        "rejected_images": IMAGES,
        "prompt": MESSAGES,
        "chosen": MESSAGES,
        "rejected": MESSAGES,
        "weight": pa.float64(),
        "kind": pa.string(),
    },
    "prompt": {
        "prompt": MESSAGES,
        "answer": pa.string(),
        "boxes": pa.list_(pa.list_(pa.int64())),
        "dialogue": pa.string(),
    },
}
ROWS_A_GROUP = 512
BYTES_A_GROUP = 2**26
HALF_A_PIXEL = 0.5
"""By how much a scaled box may stand out of its image."""
Row = dict[str, Any]
Records = Iterable[Sample | Written | Quarantined]


def build(
    spec: BuildSpec,
    *,
    progress: Callable[[Records], Records] | None = None,
    paraphrase: Paraphraser | None = None,
    local: LocalBackend | None = None,
) -> Path:
    """Builds the data set into ``spec.output``, replacing the one that was there, and returns the folder.

    Until all is written, the old data set stays as it is. ``progress`` wraps the source's records; by default a
    bar is drawn on standard error. ``paraphrase`` rewords the answers of dialogues; what changes an answer's meaning
    is refused and counted in the card; by default it is the spec's. ``local`` makes the backend of a local language
    model, for dialogues and curricula.

    Raises: InputError if the source yields nothing, more than ``max_quarantined`` of it cannot be used, or the
    output folder holds something else than a built data set.
    """
    out = Path(spec.output)
    _check_replaceable(out)
    if paraphrase is None and spec.dialogues and spec.dialogues.paraphrase:
        paraphrase = LlmParaphraser.of(spec.dialogues.paraphrase, local=local)
    out.parent.mkdir(parents=True, exist_ok=True)
    records = (progress or _bar(f"building {spec.source.name}"))(spec.source.samples())
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        fresh = Path(scratch) / out.name
        fresh.mkdir()
        curriculum = spec.curriculum and open_curriculum(spec.curriculum, seed=spec.seed, output=str(out), local=local)
        _build_into(fresh, spec, records, paraphrase, Tally(curriculum=curriculum, assign=placements(spec, out)))
        if out.exists():
            out.rename(Path(scratch) / "replaced")
        fresh.rename(out)
    return out


def _check_replaceable(out: Path) -> None:
    if out.name in ("", ".."):
        raise InputError(f"output: '{out}' names no folder of its own; write one such as data/phantom_chest.")
    if out.exists() and not out.is_dir():
        raise InputError(f"output: {out} is a file; name a folder.")
    if out.is_dir() and any(out.iterdir()) and not (out / "card.json").is_file():
        raise InputError(
            f"output: {out} holds files but no card.json, so it is not a built data set and is not replaced. "
            "Name another folder, or empty this one."
        )


def _bar(description: str) -> Callable[[Records], Records]:
    from rich.console import Console
    from rich.progress import track

    return lambda records: track(records, description=description, transient=True, console=Console(stderr=True))


def _build_into(folder: Path, spec: BuildSpec, records: Records, paraphrase: Paraphraser | None, tally: Tally) -> None:
    seen = set[str]()
    with _Writers(folder, staged=spec.curriculum is not None) as writers:
        for item in records:
            reason = item.reason if isinstance(item, Quarantined) else _fault(item, seen, spec)
            seen.add(item.id)
            if not isinstance(item, Quarantined) and reason is None:
                _write_sample(item, spec, writers, tally, paraphrase)
            else:
                tally.quarantined.append(Quarantined(id=item.id, reason=reason or ""))
    tally.check(spec)
    preference = finished(folder, spec, tally)
    card = card_of(spec, folder, tally, preference)
    (folder / "card.json").write_text(json.dumps(card, indent=2, sort_keys=True), encoding="utf-8")
    write_placements(spec, tally.assign, folder)
    write_gallery(folder)


def _fault(sample: Sample | Written, seen: set[str], spec: BuildSpec) -> str | None:
    """Why a sample cannot be used, whatever its source has checked; None if it can."""
    if sample.id in seen:
        return "another record has this id"
    if isinstance(sample, Written):
        return fault_of_written(sample)
    try:
        for image in sample.images:
            decoded(image)
    except ImageError as fault:
        return str(fault)
    rules = load_rule_set(sample.facts.rule_set)
    fault = _fault_of_facts(sample.facts, rules, sample.image.size)
    return dialogue_fault(sample.facts, rules) if fault is None and spec.dialogues else fault


def _fault_of_facts(facts: Facts, rules: RuleSet, size: tuple[int, int]) -> str | None:
    if not facts.findings and not facts.values:
        return "nothing is known of it"
    for name, finding in facts.findings.items():
        if name not in rules.findings:
            return f"finding '{name}' is not in rule set {rules.id}"
        for box in finding.boxes:
            if not is_valid(box):
                return f"box {[*box]} of '{name}' has no area"
            if min(box) < -HALF_A_PIXEL or any(
                v > side + HALF_A_PIXEL for v, side in zip(box, (*size, *size), strict=True)
            ):
                return f"box {[*box]} of '{name}' is not inside the image of {size[0]} x {size[1]} pixels"
    return None


def _write_sample(
    sample: Sample | Written, spec: BuildSpec, writers: "_Writers", tally: Tally, paraphrase: Paraphraser | None
) -> None:
    split = split_of(sample.patient, spec.splits, key=str(spec.seed), assign=tally.assign)
    tally.num_samples += 1
    if isinstance(sample, Written):
        split = own_split(sample, spec) or split
        tally.asked[*sample.names, sample.question] += 1
        rows = written_rows(sample, spec, split)
    else:
        tally.rule_sets.add(sample.facts.rule_set)
        rows = rows_of(sample, spec, split, tally, paraphrase)
    tally.placed[sample.patient, split] += 0
    for kind, row in rows:
        writers.write(kind, split, row)
        tally.rows[kind, split, row["task"]] += 1
        tally.placed[sample.patient, split] += 1


def rows_of(
    sample: Sample, spec: BuildSpec, split: str, tally: Tally, paraphrase: Paraphraser | None = None
) -> Iterator[tuple[RowKind, Row]]:
    """Every row of one sample, each kind that the spec asks for in its split."""
    rules = load_rule_set(sample.facts.rule_set)
    width, height = sample.image.size
    facts = facts_on_grid(sample.facts, width=width, height=height, grid=spec.box_grid)
    kinds: list[RowKind] = [kind for kind, splits in spec.rows.items() if split in splits]
    images = _stored(sample) if kinds else []
    for kind in kinds:
        rng = random.Random(f"{spec.seed}/{kind}/{sample.id}")
        page = _Page(kind, split, spec, rules, facts, rng, tally, sample, paraphrase)
        pairs = NoisedPairs(sample, spec, rules, facts, tally.noise) if spec.lesion_noise else ()
        for task, suffix, own in chain(page.preferences(), pairs) if kind == "preference" else page.answers():
            provenance = json.dumps({**sample.provenance, **own.pop("provenance", {})}, sort_keys=True)
            row_id = f"{sample.id}-{kind}-{suffix}"
            always = row_always(sample, split=split, source=spec.source.name, task=task, row_id=row_id, facts=facts)
            yield kind, {**always, "provenance": provenance, "images": images, **own}


def _stored(sample: Sample) -> list[dict[str, Any]]:
    names = [sample.id, *(f"{sample.id}-{k}" for k in range(2, len(sample.images) + 1))]
    return [{"bytes": png_bytes(i), "path": f"{name}.png"} for name, i in zip(names, sample.images, strict=True)]


@dataclass(frozen=True)
class _Page:
    """The words of one image in one kind of row, and all that they depend on."""

    kind: RowKind
    split: str
    spec: BuildSpec
    rules: RuleSet
    facts: Facts
    rng: random.Random
    tally: Tally
    sample: Sample
    paraphrase: Paraphraser | None

    def answers(self) -> Iterator[tuple[str, str, Row]]:
        """Task, suffix of the id, and own columns of each instruction or prompt row."""
        for number, asked in enumerate(self._asked()):
            prompt = user_turn(asked.question, num_images=len(self.sample.images))
            own = self._completed(asked) if self.kind == "instruction" else _truth(asked)
            yield asked.task, f"{asked.task}-{number}", {"prompt": prompt, **own}
        yield from self._dialogues()
        yield from self._curriculum()

    def _curriculum(self) -> Iterator[tuple[str, str, Row]]:
        for item in (
            self.tally.curriculum.items(self.sample, self.facts, self.kind, self.split) if self.tally.curriculum else ()
        ):
            prompt, said = user_turn(item.question, num_images=len(self.sample.images)), self._styled(item.answer)
            own = {"completion": assistant_turn(said)} if self.kind == "instruction" else {"answer": item.answer}
            yield item.task, item.suffix, {"prompt": prompt, **own, **item.columns}

    def _dialogues(self) -> Iterator[tuple[str, str, Row]]:
        if self.spec.dialogues is None:
            return
        turns = (1, *(self.sample.image_turns or (1,) * len(self.sample.more_images)))
        weak = annotator_of(self.spec.flaws, self.split)
        rows = DialogueRows(self.spec.dialogues, self.facts, self.rules, turns, self.paraphrase, self.tally, weak)
        for suffix, own in rows.of(
            self.kind, self.split, key=f"{self.spec.seed}/dialogue/{self.kind}/{self.sample.id}"
        ):
            yield "dialogue", f"dialogue-{suffix}", own

    def preferences(self) -> Iterator[tuple[str, str, Row]]:
        """Task, suffix of the id, and own columns of each pair: the true report and a corrupted one."""
        made: list[Facts] = []
        for number in range(self.spec.corruptions_per_image):
            wrong = corrupt(self.facts, self.rules, self.rng)
            if wrong is None or wrong.facts in made:
                continue
            made.append(wrong.facts)
            question, chosen, rejected = self._reports(wrong.facts)
            if fault := fault_of_rejected(chosen, rejected, truth=self.facts):
                self.tally.refused[fault] += 1
                continue
            yield "report", f"{wrong.kind}-{number}", {
                "prompt": user_turn(question, num_images=len(self.sample.images)),
                "chosen": assistant_turn(self._styled(chosen)),
                "rejected": assistant_turn(self._styled(rejected)),
                "weight": wrong.severity,
                "kind": "hallucination",
                "provenance": {"corrupted": f"{wrong.kind} {wrong.finding}"},
            }  # fmt: skip

    def _reports(self, wrong: Facts) -> tuple[str, str, str]:
        """The question, the true report and the wrong one, alike in all wording that their facts share."""
        if self.spec.wording == "first":
            return self.rules.wording.ask_report[0], report(self.facts, self.rules), report(wrong, self.rules)
        question, seed = self.rng.choice(self.rules.wording.ask_report), self.rng.getrandbits(64)
        chosen, rejected = (report(f, self.rules, rng=random.Random(seed)) for f in (self.facts, wrong))
        return question, chosen, rejected

    def _asked(self) -> Iterator[QuestionAnswer]:
        """The questions of this image. Yes and no are about as frequent where presence questions are drawn."""
        for task, number in self.spec.tasks_of(self.kind, self.split).items():
            answerable = questions(self.facts, self.rules, task, rng=self._wording)
            if task == "box" and self.spec.box_absent:
                answerable += absent_boxes(self.facts, self.rules, rng=self._wording)
            possible = [asked for asked in answerable if self._may_be_asked(asked)]
            if number == "all":
                yield from possible
            elif task == "presence":
                yield from _balanced(possible, number, self.rng)
            else:
                yield from self.rng.sample(possible, min(number, len(possible)))

    @property
    def _wording(self) -> random.Random | None:
        return self.rng if self.spec.wording == "varied" else None

    def _may_be_asked(self, asked: QuestionAnswer) -> bool:
        too_many = len(asked.boxes or ()) > self.spec.max_boxes
        if too_many:
            self.tally.not_asked[f"{asked.finding}: more than {self.spec.max_boxes} boxes in one answer"] += 1
        return not too_many

    def _completed(self, asked: QuestionAnswer) -> Row:
        answer, provenance = self._with_flaws(asked)
        return {"completion": assistant_turn(self._styled(answer)), "provenance": provenance}

    def _styled(self, answer: str) -> str:
        return f"<answer>{answer}</answer>" if self.spec.answer_style == "tagged" else answer

    def _with_flaws(self, asked: QuestionAnswer) -> tuple[str, dict[str, str]]:
        """The answer as a weak annotator leaves it, and the flaw's name; ``facts`` keep the truth."""
        flaws = self.spec.flaws
        if flaws is None or self.split not in flaws.splits:
            return asked.answer, {}
        if asked.task == "report" and self.rng.random() < flaws.invented_findings:
            return self._with_invention(asked.answer)
        if asked.task == "box" and asked.finding and asked.boxes and flaws.loose_boxes > 1:
            return self._with_loose_boxes(asked.finding, flaws.loose_boxes)
        return asked.answer, {}

    def _with_invention(self, true_report: str) -> tuple[str, dict[str, str]]:
        wrong = corrupt(self.facts, self.rules, self.rng, kinds=("invented",))
        if wrong is None:
            return true_report, {}
        return report(wrong.facts, self.rules, rng=self._wording), {"flaw": f"invented {wrong.finding}"}

    def _with_loose_boxes(self, name: str, factor: float) -> tuple[str, dict[str, str]]:
        finding = self.facts.findings[name]
        loose = tuple(_loose(box, factor, self.spec.box_grid) for box in finding.boxes)
        answer = box_answer(finding.model_copy(update={"boxes": loose}), self.rules.findings[name])
        return answer, {"flaw": f"boxes {factor:g} times too large"}


def _truth(asked: QuestionAnswer) -> Row:
    boxes = None if asked.boxes is None else [[int(v) for v in box] for box in asked.boxes]
    return {"answer": asked.answer, "boxes": boxes}


def _balanced(possible: list[QuestionAnswer], number: int, rng: random.Random) -> list[QuestionAnswer]:
    by_answer = {said: [q for q in possible if q.answer == said] for said in ("Yes", "No")}
    drawn: list[QuestionAnswer] = []
    for _ in range(min(number, len(possible))):
        pool = by_answer[rng.choice(["Yes", "No"])] or by_answer["Yes"] or by_answer["No"]
        drawn.append(pool.pop(rng.randrange(len(pool))))
    return drawn


def _loose(box: Box, factor: float, grid: int) -> Box:
    """The box, ``factor`` times as wide and high about its centre, inside the grid."""
    (x1, y1, x2, y2), k = box, (factor - 1) / 2
    wide, high = k * (x2 - x1), k * (y2 - y1)
    left, top = max(0, round(x1 - wide)), max(0, round(y1 - high))
    return left, top, min(grid, round(x2 + wide)), min(grid, round(y2 + high))


class _Writers:
    """One Parquet file for each kind and split, opened at its first row. Rows of one image stay together."""

    def __init__(self, folder: Path, *, staged: bool = False) -> None:
        self.folder, self.staged = folder, staged
        self.files: dict[tuple[RowKind, str], pq.ParquetWriter] = {}
        self.waiting: dict[tuple[RowKind, str], list[Row]] = {}

    def __enter__(self) -> "_Writers":
        return self

    def __exit__(self, fault: object, *_: object) -> None:
        for key in self.waiting if fault is None else ():
            self._flush(key)
        for file in self.files.values():
            file.close()

    def write(self, kind: RowKind, split: str, row: Row) -> None:
        """Adds a row; a full group goes to disk."""
        rows = self.waiting.setdefault((kind, split), [])
        rows.append(row)
        # Rows of one image are alike in size, so the last one stands for all.
        pictures = [*row["images"], *(row.get("rejected_images") or [])]
        num_bytes = len(rows) * sum(len(image["bytes"]) for image in pictures)
        if len(rows) >= ROWS_A_GROUP or num_bytes >= BYTES_A_GROUP:
            self._flush((kind, split))

    def _flush(self, key: tuple[RowKind, str]) -> None:
        kind, split = key
        if not self.waiting[key]:
            return
        schema = schema_of(kind, staged=self.staged)
        if key not in self.files:
            path = self.folder / kind / f"{split}.parquet"
            path.parent.mkdir(exist_ok=True)
            self.files[key] = pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=True)
        self.files[key].write_table(pa.Table.from_pylist(self.waiting[key], schema=schema))
        self.waiting[key] = []


def schema_of(kind: RowKind, *, staged: bool = False) -> pa.Schema:
    """The Arrow schema of a row kind, with the note by which ``datasets`` decodes the images.

    ``staged``: with the columns of a curriculum.
    """
    columns = {**{name: pa.string() for name in ALWAYS}, "images": IMAGES, **OWN[kind], **(STAGED if staged else {})}
    features = {name: _feature(column) for name, column in columns.items()}
    features |= {k: {"feature": {"_type": "Image"}, "_type": "List"} for k, v in columns.items() if v == IMAGES}
    return pa.schema(list(columns.items()), metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _feature(kind: pa.DataType) -> Any:
    """An Arrow type in the terms of ``datasets.Features``."""
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    names = {pa.string(): "string", pa.float64(): "float64", pa.int64(): "int64", pa.binary(): "binary"}
    return {"dtype": names[kind], "_type": "Value"}
