import io
import json
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from alignment.cli.app import app
from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec
from data_builders.splits.leakage import audit_splits, quarantine
from rewards.config.input_error import InputError

WORDS = "heart size normal lungs are clear without focal consolidation pleural effusion or pneumothorax bones intact"


def png(seed: int, *, size: int = 48) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


def row(n: int, split: str, **own: Any) -> dict[str, Any]:
    return {
        "id": f"r{n}", "patient": f"p{n}", "study": f"s{n}", "source": "table", "split": split, "task": "report",
        "provenance": "{}", "images": [{"bytes": png(n), "path": None}],
        "answer": f"report {n} {WORDS} number {n}", **own,
    }  # fmt: skip


def written(folder, rows: list[dict[str, Any]]):
    for split in {r["split"] for r in rows}:
        file = folder / "prompt" / f"{split}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist([r for r in rows if r["split"] == split]), file)
    return folder


def clean() -> list[dict[str, Any]]:
    return [row(n, "train" if n < 8 else "test") for n in range(12)]


def kinds(folder) -> dict[str, int]:
    leaks = audit_splits(folder).leaks
    return {kind: sum(leak.kind == kind for leak in leaks) for kind in {leak.kind for leak in leaks}}


def test_a_clean_data_set_passes(tmp_path):
    audit = audit_splits(written(tmp_path, clean()))
    audit.check(tmp_path)
    assert (audit.leaks, audit.num_rows, audit.num_pictures) == ([], 12, 12)


@pytest.mark.parametrize(
    ("own", "kind"),
    [
        ({"patient": "p0"}, "patient"),
        ({"study": "s0"}, "study"),
        ({"id": "r0"}, "row"),
        ({"images": [{"bytes": png(0), "path": None}]}, "image"),
        ({"images": [{"bytes": png(0, size=96), "path": None}]}, "near_image"),
        ({"answer": f"Report 0, {WORDS.upper()}. Number 0!"}, "report"),
    ],
)
def test_each_planted_leak_is_named(tmp_path, own, kind):
    folder = written(tmp_path, [*clean(), row(20, "test", **own)])
    assert kinds(folder) == {kind: 1}
    with pytest.raises(InputError, match=kind.replace("_", "-")) as refused:
        audit_splits(folder).check(folder)
    assert "is in test and train (2 rows); 1 such" in str(refused.value)


def test_what_repeats_within_a_split_is_no_leak(tmp_path):
    assert kinds(written(tmp_path, [*clean(), {**row(0, "train"), "id": "again"}])) == {}


def test_short_answers_and_words_of_templates_may_be_equal(tmp_path):
    long = f"the same {WORDS}"
    same = [row(n, split, answer="No.") for n, split in ((30, "train"), (31, "test"))]
    templated = [
        row(n, split, answer=long, provenance=json.dumps({"generator": "templates"}))
        for n, split in ((32, "train"), (33, "test"))
    ]
    drawn = [row(n, split, answer=long, source="phantom_oct") for n, split in ((34, "train"), (35, "test"))]
    assert kinds(written(tmp_path, [*clean(), *same, *templated, *drawn])) == {}


def test_quarantine_takes_the_training_rows_out_and_keeps_them_beside(tmp_path):
    folder = written(tmp_path, [*clean(), row(20, "test", patient="p0"), row(21, "test", study="s3")])
    assert quarantine(folder, audit_splits(folder).leaks) == 2
    assert audit_splits(folder).leaks == []
    assert pq.read_table(folder / "prompt" / "train.parquet")["id"].to_pylist() == [f"r{n}" for n in (1, 2, 4, 5, 6, 7)]
    assert pq.read_metadata(folder / "prompt" / "test.parquet").num_rows == 6
    kept = pq.read_table(folder / "quarantine" / "prompt" / "train.parquet")["id"].to_pylist()
    assert kept == ["r0", "r3"]
    reasons = (folder / "quarantine" / "reasons.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in reasons] == ["r0", "r3"]


def test_a_second_quarantine_keeps_what_the_first_took_out(tmp_path):
    folder = written(tmp_path, [*clean(), row(20, "test", patient="p0")])
    quarantine(folder, audit_splits(folder).leaks)
    train = pq.read_table(folder / "prompt" / "train.parquet").to_pylist()
    written(tmp_path, [*train, row(40, "train", patient="p20"), row(41, "test", patient="p20")])
    assert quarantine(folder, audit_splits(folder).leaks) == 1
    kept = pq.read_table(folder / "quarantine" / "prompt" / "train.parquet")["id"].to_pylist()
    assert kept == ["r0", "r40"]


def test_nothing_is_quarantined_where_nothing_leaks(tmp_path):
    folder = written(tmp_path, clean())
    assert quarantine(folder, []) == 0
    assert not (folder / "quarantine").exists()


def test_an_unreadable_picture_is_compared_by_its_bytes(tmp_path):
    broken = [{"bytes": b"no picture", "path": None}]
    folder = written(tmp_path, [*clean(), row(20, "test", images=broken), row(21, "train", images=broken)])
    assert kinds(folder) == {"image": 1}


def test_a_picture_that_is_only_named_is_told(tmp_path):
    rows = [*clean(), row(12, "test", images=[{"bytes": None, "path": "scans/a.png"}])]
    with pytest.raises(InputError, match=r"row r12: its image 'scans/a\.png' is named and not held"):
        audit_splits(written(tmp_path, rows))


def test_a_built_data_set_passes(tmp_path):
    spec = {
        "source": {"name": "phantom_oct", "patients": 6, "size": 64}, "output": str(tmp_path / "oct"),
        "splits": {"sft": 0.5, "test": 0.5}, "rows": {"instruction": ["sft"], "prompt": ["test"]}, "tasks": {},
        "curriculum": "phantom_oct",
    }  # fmt: skip
    folder = build(BuildSpec.model_validate(spec), progress=lambda records: records)
    audit_splits(folder).check(folder)


def test_the_command_fails_with_a_sentence_and_passes_once_quarantined(tmp_path):
    folder = written(tmp_path, [*clean(), row(20, "test", patient="p0")])
    failed = CliRunner().invoke(app, ["audit-splits", str(folder)])
    assert failed.exit_code == 2
    assert "patient p0 is in test and train" in failed.stderr
    assert CliRunner().invoke(app, ["audit-splits", str(folder), "--quarantine"]).exit_code == 0
    assert CliRunner().invoke(app, ["audit-splits", str(folder)]).exit_code == 0


@pytest.mark.parametrize("made", ["missing", "empty", "other"])
def test_what_is_no_data_set_is_refused(tmp_path, made):
    if made == "other":
        pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"no such folder|no rows in any|these are not the rows"):
        audit_splits(tmp_path / "none" if made == "missing" else tmp_path)


@pytest.mark.slow
def test_a_hundred_thousand_rows_take_less_than_a_minute_of_work(tmp_path):
    pictures, one = [png(n) for n in range(20_000)], row(0, "train")
    rows = [
        {**one, "split": "train" if n % 20_000 < 15_000 else "test", "id": f"r{n}", "patient": f"p{n % 20_000}",
         "study": f"s{n % 20_000}", "answer": f"{WORDS} {n}", "images": [{"bytes": pictures[n % 20_000], "path": None}]}
        for n in range(100_000)
    ]  # fmt: skip
    folder = written(tmp_path, rows)
    start = time.process_time()
    assert audit_splits(folder).leaks == []
    assert time.process_time() - start < 60
