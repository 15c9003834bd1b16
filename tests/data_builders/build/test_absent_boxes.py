"""Boxes asked for of findings that are not there."""

import pyarrow.parquet as pq
import pytest

from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec
from data_builders.rendering.render import absent_boxes
from rewards.boxes.geometry import parse_boxes
from rewards.rules.facts import Facts, Finding
from rewards.rules.rule_set import load_rule_set

SPEC = {
    "source": {"name": "phantom_chest", "patients": 6, "images_per_patient": 1, "size": 64},
    "splits": {"sft": 1.0},
    "rows": {"instruction": ["sft"], "prompt": ["sft"]},
    "tasks": {"box": "all"},
    "flaws": {"splits": ["sft"], "loose_boxes": 1.35},
}


@pytest.mark.parametrize("asked", [True, False])
def test_absent_findings_are_asked_for_only_where_the_spec_says_so(tmp_path, asked):
    spec = {**SPEC, "output": str(tmp_path / "x"), "box_absent": asked}
    rows = pq.read_table(build(BuildSpec.model_validate(spec)) / "prompt/sft.parquet").to_pylist()
    empty = [row for row in rows if row["boxes"] == []]
    assert bool(empty) is asked
    assert all(parse_boxes(row["answer"]) == [] for row in empty)
    present = [row for row in rows if row["boxes"]]
    assert len(rows) == len(present) + len(empty)


def test_an_empty_answer_carries_no_flaw(tmp_path):
    spec = {**SPEC, "output": str(tmp_path / "x"), "box_absent": True}
    rows = pq.read_table(build(BuildSpec.model_validate(spec)) / "instruction/sft.parquet").to_pylist()
    said = {row["id"]: row["completion"][0]["content"][0]["text"] for row in rows}
    assert all(("flaw" in row["provenance"]) == (parse_boxes(said[row["id"]]) != []) for row in rows)


def test_the_question_does_not_tell_whether_it_is_there():
    rules = load_rule_set("chest_xray")
    facts = Facts(
        rule_set=rules.id, findings={"nodule": Finding(polarity="absent"), "effusion": Finding(polarity="uncertain")}
    )
    [asked] = absent_boxes(facts, rules)
    assert (asked.finding, asked.answer, asked.boxes) == ("nodule", "nodule []", ())
    assert "nodule" in asked.question
