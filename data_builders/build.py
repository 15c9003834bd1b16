"""From a source to a built data set: split, word, write, count. The same spec gives the same bytes.

``OUT/KIND/SPLIT.parquet`` in TRL's columns and ours, ``card.json``, ``gallery.html``. Rows are written as they come, so
memory does not grow with the data set. Left out: streaming from object stores, and more than one worker.
"""

import hashlib
import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import track

from data_builders.build_spec import BuildSpec
from data_builders.corrupt import corrupt
from data_builders.images import png_bytes
from data_builders.render import QuestionAnswer, box_answer, questions, report
from data_builders.schema import (
    Quarantined,
    RowKind,
    Sample,
    assistant_turn,
    facts_on_grid,
    row_always,
    user_turn,
)
from data_builders.splits import check_disjoint, split_of
from rewards.facts import Box, Facts
from rewards.rule_set import RuleSet, load_rule_set
from rewards.strict_yaml import InputError

MESSAGES = pa.list_(
    pa.struct(
        [
            ("role", pa.string()),
            ("content", pa.list_(pa.struct([("type", pa.string()), ("text", pa.string())]))),
        ]
    )
)
ALWAYS = [
    (n, pa.string()) for n in ("id", "patient", "study", "source", "split", "task", "facts", "rule_set", "provenance")
]
IMAGES = ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())])))
OWN: dict[RowKind, list[tuple[str, pa.DataType]]] = {
    "instruction": [("prompt", MESSAGES), ("completion", MESSAGES)],
    "preference": [
        ("prompt", MESSAGES),
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
        ("weight", pa.float64()),
        ("kind", pa.string()),
    ],
    "prompt": [("prompt", MESSAGES), ("answer", pa.string()), ("boxes", pa.list_(pa.list_(pa.int64())))],
}
LICENCES = {
    "phantom_chest": "drawn by clinalign; no restriction",
    "lidc_ct": "LIDC-IDRI, CC BY 3.0, doi 10.7937/K9/TCIA.2015.LO9QL9SX; read from installed packages",
    "bccd": "BCCD_Dataset, MIT",
}
ROWS_A_GROUP = 512
Row = dict[str, Any]


def build(spec: BuildSpec) -> Path:
    """Builds the data set into ``spec.output``, replacing what was there, and returns the folder.

    Raises: InputError if the source yields nothing, or more than ``max_quarantined`` of it cannot be used.
    """
    out = Path(spec.output)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        _build_into(scratch, spec)
        if out.exists():
            shutil.rmtree(out)
        scratch.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return out


def _build_into(folder: Path, spec: BuildSpec) -> None:
    from data_builders.gallery import write_gallery

    quarantined: list[Quarantined] = []
    counts: Counter[tuple[str, str, str]] = Counter()
    placed: list[tuple[str, str]] = []
    num_samples = 0
    with _Writers(folder) as writers:
        for item in track(
            spec.source.samples(),
            description=f"building {spec.source.name}",
            transient=True,
            console=_console(),
        ):
            if isinstance(item, Quarantined):
                quarantined.append(item)
                continue
            num_samples += 1
            split = split_of(item.patient, spec.splits, key=str(spec.seed))
            placed.append((item.patient, split))
            for kind, row in rows_of(item, spec, split):
                writers.write(kind, split, row)
                counts[kind, split, row["task"]] += 1
    check_disjoint(placed)
    _check_yield(spec, num_samples, quarantined, counts)
    card = _card(spec, folder, counts, quarantined, placed)
    (folder / "card.json").write_text(json.dumps(card, indent=2, sort_keys=True), encoding="utf-8")
    write_gallery(folder)


def _console() -> Any:
    from rich.console import Console

    return Console(stderr=True)


def _check_yield(spec: BuildSpec, num_samples: int, quarantined: list[Quarantined], counts: Counter[Any]) -> None:
    if not num_samples or not counts:
        raise InputError(f"source {spec.source.name}: the data set is empty ({len(quarantined)} samples quarantined).")
    share = len(quarantined) / (num_samples + len(quarantined))
    if share > spec.max_quarantined:
        first = "; ".join(f"{q.id}: {q.reason}" for q in quarantined[:3])
        raise InputError(
            f"source {spec.source.name}: {len(quarantined)} records ({share:.1%}) cannot be used, more than "
            f"max_quarantined {spec.max_quarantined:.1%}. First: {first}. Mend them, or raise max_quarantined."
        )


def rows_of(sample: Sample, spec: BuildSpec, split: str) -> Iterator[tuple[RowKind, Row]]:
    """Every row of one sample, each kind that the spec asks for in its split."""
    rules = load_rule_set(sample.facts.rule_set)
    width, height = sample.image.size
    facts = facts_on_grid(sample.facts, width=width, height=height, grid=spec.box_grid)
    images = [{"bytes": png_bytes(sample.image), "path": f"{sample.id}.png"}]
    for kind, splits in spec.rows.items():
        if split in splits:
            rng = random.Random(f"{spec.seed}/{kind}/{sample.id}")
            for task, own in _own_columns(kind, facts, rules, spec, split, rng):
                yield kind, _row(sample, spec, split, kind, task, facts, images, own)


def _row(sample: Sample, spec: BuildSpec, split: str, kind: str, task: str, facts: Facts, images: Any, own: Row) -> Row:
    provenance = {**sample.provenance, **own.pop("provenance", {})}
    row_id = f"{sample.id}-{kind}-{own.pop('suffix')}"
    always = row_always(sample, split=split, source=spec.source.name, task=task, row_id=row_id, facts=facts)
    return {**always, "provenance": json.dumps(provenance, sort_keys=True), "images": images, **own}


def _own_columns(
    kind: RowKind, facts: Facts, rules: RuleSet, spec: BuildSpec, split: str, rng: random.Random
) -> Iterator[tuple[str, Row]]:
    if kind == "preference":
        yield from _preferences(facts, rules, spec, rng)
        return
    flawed = spec.flaws is not None and kind == "instruction" and split in spec.flaws.splits
    for number, asked in enumerate(_asked(facts, rules, spec, kind, split, rng)):
        suffix = f"{asked.task}-{number}"
        if kind == "instruction":
            answer, provenance = _with_flaws(asked, facts, rules, spec, rng) if flawed else (asked.answer, {})
            completion = assistant_turn(_styled(answer, spec))
            yield (
                asked.task,
                {
                    "suffix": suffix,
                    "prompt": user_turn(asked.question),
                    "completion": completion,
                    "provenance": provenance,
                },
            )
        else:
            boxes = None if asked.boxes is None else [[int(v) for v in box] for box in asked.boxes]
            yield (
                asked.task,
                {
                    "suffix": suffix,
                    "prompt": user_turn(asked.question),
                    "answer": asked.answer,
                    "boxes": boxes,
                },
            )


def _asked(
    facts: Facts, rules: RuleSet, spec: BuildSpec, kind: RowKind, split: str, rng: random.Random
) -> Iterator[QuestionAnswer]:
    """The questions of one image. Presence questions are drawn so that yes and no are about as frequent."""
    wording = rng if spec.wording == "varied" else None
    for task, number in spec.tasks_of(kind, split).items():
        possible = [q for q in questions(facts, rules, task, rng=wording) if len(q.boxes or ()) <= spec.max_boxes]
        if number == "all":
            yield from possible
        elif task == "presence":
            yield from _balanced(possible, number, rng)
        else:
            yield from rng.sample(possible, min(number, len(possible)))


def _balanced(possible: list[QuestionAnswer], number: int, rng: random.Random) -> list[QuestionAnswer]:
    by_answer = {said: [q for q in possible if q.answer == said] for said in ("Yes", "No")}
    drawn: list[QuestionAnswer] = []
    for _ in range(min(number, len(possible))):
        pool = by_answer[rng.choice(["Yes", "No"])] or by_answer["Yes"] or by_answer["No"]
        drawn.append(pool.pop(rng.randrange(len(pool))))
    return drawn


def _styled(answer: str, spec: BuildSpec) -> str:
    return f"<answer>{answer}</answer>" if spec.answer_style == "tagged" else answer


def _with_flaws(
    asked: QuestionAnswer, facts: Facts, rules: RuleSet, spec: BuildSpec, rng: random.Random
) -> tuple[str, dict[str, str]]:
    """The answer as a weak annotator leaves it, and the name of the flaw; the truth stays in ``facts``."""
    assert spec.flaws is not None
    if asked.task == "report" and rng.random() < spec.flaws.invented_findings:
        wrong = corrupt(facts, rules, rng, kinds=("invented",))
        return (report(wrong.facts, rules), {"flaw": f"invented {wrong.finding}"}) if wrong else (asked.answer, {})
    if asked.task == "box" and asked.finding and spec.flaws.loose_boxes > 1:
        finding = facts.findings[asked.finding]
        loose = tuple(_loose(box, spec.flaws.loose_boxes, spec.box_grid) for box in finding.boxes)
        answer = box_answer(finding.model_copy(update={"boxes": loose}), rules.findings[asked.finding])
        return answer, {"flaw": f"boxes {spec.flaws.loose_boxes:g} times too large"}
    return asked.answer, {}


def _loose(box: Box, factor: float, grid: int) -> Box:
    """The box, ``factor`` times as wide and high about its centre, inside the grid."""
    (x1, y1, x2, y2), k = box, (factor - 1) / 2
    wide, high = k * (x2 - x1), k * (y2 - y1)
    return (
        max(0, round(x1 - wide)),
        max(0, round(y1 - high)),
        min(grid, round(x2 + wide)),
        min(grid, round(y2 + high)),
    )


def _preferences(facts: Facts, rules: RuleSet, spec: BuildSpec, rng: random.Random) -> Iterator[tuple[str, Row]]:
    truth = report(facts, rules)
    for number in range(spec.corruptions_per_image):
        wrong = corrupt(facts, rules, rng)
        if wrong is not None:
            yield (
                "report",
                {
                    "suffix": f"{wrong.kind}-{number}",
                    "prompt": user_turn(rules.wording.ask_report[0]),
                    "chosen": assistant_turn(_styled(truth, spec)),
                    "rejected": assistant_turn(_styled(report(wrong.facts, rules), spec)),
                    "weight": wrong.severity,
                    "kind": "hallucination",
                    "provenance": {"corrupted": f"{wrong.kind} {wrong.finding}"},
                },
            )


class _Writers:
    """One Parquet file for each kind and split, opened at its first row."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[tuple[RowKind, str], pq.ParquetWriter] = {}
        self.waiting: dict[tuple[RowKind, str], list[Row]] = {}

    def __enter__(self) -> "_Writers":
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self.waiting):
            self._flush(key)
        for file in self.files.values():
            file.close()

    def write(self, kind: RowKind, split: str, row: Row) -> None:
        """Adds a row; a full group goes to disk."""
        rows = self.waiting.setdefault((kind, split), [])
        rows.append(row)
        if len(rows) >= ROWS_A_GROUP:
            self._flush((kind, split))

    def _flush(self, key: tuple[RowKind, str]) -> None:
        kind, split = key
        schema = schema_of(kind)
        if key not in self.files:
            path = self.folder / kind / f"{split}.parquet"
            path.parent.mkdir(exist_ok=True)
            self.files[key] = pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=True)
        self.files[key].write_table(pa.Table.from_pylist(self.waiting[key], schema=schema))
        self.waiting[key] = []


def schema_of(kind: RowKind) -> pa.Schema:
    """The Arrow schema of a row kind, with the note by which ``datasets`` decodes the images."""
    fields = [pa.field(name, type_) for name, type_ in [*ALWAYS, IMAGES, *OWN[kind]]]
    features = {field.name: _feature(field.type) for field in fields} | {
        "images": {"feature": {"_type": "Image"}, "_type": "List"}
    }
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _feature(kind: pa.DataType) -> Any:
    """An Arrow type in the terms of ``datasets.Features``."""
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    names = {pa.string(): "string", pa.float64(): "float64", pa.int64(): "int64", pa.binary(): "binary"}
    return {"dtype": names[kind], "_type": "Value"}


def _card(
    spec: BuildSpec,
    folder: Path,
    counts: Counter[tuple[str, str, str]],
    quarantined: list[Quarantined],
    placed: list[tuple[str, str]],
) -> dict[str, Any]:
    table: dict[str, dict[str, dict[str, int]]] = {}
    for (kind, split, task), number in sorted(counts.items()):
        table.setdefault(kind, {}).setdefault(split, {})[task] = number
    patients = Counter(split for _, split in set(placed))
    files = sorted(folder.glob("*/*.parquet"))
    return {
        "counts": table,
        "patients": dict(patients),
        "quarantined": {"count": len(quarantined), "records": [vars(q) for q in quarantined]},
        "licence": LICENCES[spec.source.name],
        "seed": spec.seed,
        "rule_sets": sorted(_rule_sets(files)),
        "sha256": {str(f.relative_to(folder)): _sha256(f) for f in files},
        "spec": spec.model_dump(mode="json"),
    }


def _rule_sets(files: list[Path]) -> set[str]:
    return {name for f in files for name in pq.read_table(f, columns=["rule_set"])["rule_set"].unique().to_pylist()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
