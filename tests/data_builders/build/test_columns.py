"""The columns that rows share: a place in every kind of row, in the types that readers take."""

import json

import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec
from data_builders.row_checks import check_rows
from data_builders.row_schema import schema_of
from rewards.row_types import KINDS, row_faults

SPEC = {
    "source": {"name": "phantom_chest", "patients": 8, "images_per_patient": 1, "size": 64},
    "seed": 3,
    "splits": {"sft": 0.5, "align": 0.5},
    "rows": {"instruction": ["sft"], "preference": ["align"], "prompt": ["align"]},
    "tasks": {"presence": 1, "box": 1, "report": 1},
    "box_grid": 100,
}
OF_EVERY_KIND = {"image_size", "attributes", "may_leave", "facts", "rule_set"}
OF_PROMPTS = {"target", "answer", "answers", "options", "boxes", "box_grid", "box_images", "regions"}
FILES = {"instruction": "sft", "preference": "align", "prompt": "align"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(BuildSpec.model_validate({**SPEC, "output": str(tmp_path_factory.mktemp("columns") / "data")}))


def rows_of(built, kind):
    return pq.read_table(built / kind / f"{FILES[kind]}.parquet").to_pylist()


@pytest.mark.parametrize(("kind", "more"), [("instruction", set()), ("preference", {"relevance", "weight"}),
                                            ("prompt", OF_PROMPTS)])  # fmt: skip
def test_every_kind_of_row_has_a_place_for_what_is_shared(built, kind, more):
    rows = rows_of(built, kind)
    assert rows[0].keys() >= OF_EVERY_KIND | more
    assert all(row["image_size"] == [[64, 64]] for row in rows)
    assert all(row["attributes"] is row["may_leave"] is None for row in rows)


def test_boxes_are_doubles_and_their_answers_are_printed_without_a_point(built):
    boxed = [row for row in rows_of(built, "prompt") if row["boxes"]]
    assert boxed
    for row in boxed:
        assert all(isinstance(v, float) and v == int(v) for box in row["boxes"] for v in box)
        assert row["answer"].endswith(json.dumps([[int(v) for v in b] for b in row["boxes"]], separators=(",", ":")))


def test_what_is_shared_is_checked_wherever_rows_are_read():
    for kind in FILES:
        assert {*schema_of(kind).names} - {"images", "rejected_images"} <= {*KINDS}


FILLED = {
    "attributes": '{"sex": "F", "age": 61, "view": null}',
    "may_leave": True,
    "answers": ["Yes", "It is"],
    "options": ["Yes", "No"],
    "box_images": [1],
    "regions": '{"heart": [[10, 20, 60.5, 80]]}',
    "boxes": [[0.5, 1.25, 10.0, 20.0]],
}


def test_filled_columns_are_stored_and_read_as_they_were_given(built, tmp_path):
    import pyarrow as pa

    row = {**rows_of(built, "prompt")[0], "answer": "Yes", **FILLED}
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([row], schema=schema_of("prompt")), file)
    check_rows(file)
    assert pq.read_table(file).to_pylist() == [row]
    assert {name: Dataset.from_parquet(str(file))[0][name] for name in FILLED} == FILLED


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"may_leave": "yes"}, "'may_leave': got str 'yes'; expected true or false or null."),
        ({"may_leave": 1}, "'may_leave': got int 1"),
        ({"attributes": {"sex": "F"}}, "'attributes': got dict"),
        ({"attributes": "F"}, "'attributes': not JSON"),
        ({"attributes": '["F"]'}, "'attributes': got list ['F']; expected texts, numbers"),
        ({"attributes": '{"sites": ["A"]}'}, "'attributes': 'sites' is list ['A']; expected texts"),
        ({"regions": '{"heart": [1, 2, 3, 4]}'}, "'regions': 'heart' is list [1, 2, 3, 4]; expected a list of boxes"),
        ({"regions": '{"heart": [[9, 2, 3, 4]]}'}, "'regions': 'heart' is list [[9, 2, 3, 4]]"),
        ({"answer": "Yes", "answers": ["No", "Yes"]}, "'answers': opens with 'No', and 'answer' is 'Yes'"),
        ({"answer": "Yes", "answers": []}, "'answers': is empty, and 'answer' is 'Yes'"),
    ],
)
def test_what_a_column_cannot_hold_is_one_fault(columns, told):
    [fault] = row_faults(columns)
    assert fault.startswith(told)


def test_what_a_column_can_hold_is_none():
    assert list(row_faults({"answer": "Yes", **FILLED})) == []
    assert list(row_faults(dict.fromkeys(FILLED))) == []
