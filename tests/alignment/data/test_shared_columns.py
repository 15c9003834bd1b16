"""What rows may have beside: read where it is there, printed as ever; a reward that could judge nothing is refused."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignment.checks.read_recipe import read_recipe
from alignment.cli.filters import score_lines
from alignment.cli.inspection import inspect_row
from alignment.config.box_units import UNIT_COLUMNS
from alignment.data.prompt_rows import COLUMNS, CURRICULUM_COLUMNS, SHARED_COLUMNS, read_rows
from alignment.evaluation.answer_files import write_answers
from alignment.metrics.evaluated_row import EvaluatedRow
from alignment.metrics.outcomes import score_answers
from data_builders.row_schema import schema_of
from rewards.boxes.coordinate_space import Units, outside
from rewards.config.input_error import InputError

FILLED = {
    "attributes": '{"sex": "F"}',
    "may_leave": True,
    "answers": None,
    "options": None,
    "regions": '{"heart": [[10, 20, 60, 80]]}',
}


@pytest.fixture
def changed(data, tmp_path):
    """A function that writes the prompt rows of the shared set with other columns."""

    def write(**columns):
        rows = pq.read_table(data / "prompt/align.parquet").to_pylist()
        out = tmp_path / "prompt/align.parquet"
        out.parent.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist([row | columns for row in rows], schema=schema_of("prompt")), out)
        return out.with_suffix("")

    return write


def test_evaluation_reads_what_a_row_has(changed):
    [row, *_] = read_rows(changed(**FILLED))
    assert row.keys() >= {*SHARED_COLUMNS}
    assert {name: row[name] for name in FILLED} == FILLED


def test_a_reward_that_reads_a_column_without_any_value_is_refused(write_recipe, changed):
    path = write_recipe("grpo", rewards=[{"name": "choice_answer"}], data={"train": str(changed())})
    told = "rewards[0]: 'choice_answer' reads column 'options', which is null in every row"
    with pytest.raises(InputError) as fault:
        read_recipe(path, [])
    assert [line for line in str(fault.value).splitlines() if told in line]


def test_a_reward_whose_column_some_row_fills_is_taken(write_recipe, changed):
    rewards = [{"name": "choice_answer", "tasks": ["presence"]}, {"name": "box_overlap"}]
    path = write_recipe("grpo", rewards=rewards, data={"train": str(changed())})
    rows = pq.read_table(changed().with_suffix(".parquet")).to_pylist()
    first = next(k for k, row in enumerate(rows) if row["task"] == "presence")
    rows[first]["options"] = ["Yes", "No"]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema_of("prompt")), changed().with_suffix(".parquet"))
    read_recipe(path, [])


def test_true_boxes_are_printed_as_they_are_written(data, tmp_path):
    rows = [row for row in read_rows(data / "prompt/test") if row["boxes"]]
    answers = [row["answer"] for row in rows]
    write_answers({"clean": (rows, answers)}, score_answers(rows, answers), tmp_path, rules=None)
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert len(lines) == len(rows) > 0
    for line, row in zip(lines, rows, strict=True):
        written = row["answer"][row["answer"].index("[") :].replace(",", ", ")
        assert f'"true_boxes": {written}' in line
        assert json.loads(line)["counts"]["iou"] == len(row["boxes"])


def test_inspect_prints_boxes_as_their_answer_does(data, tmp_path):
    rows = pq.read_table(data / "prompt/align.parquet").to_pylist()
    index = next(k for k, row in enumerate(rows) if row["boxes"])
    shown = inspect_row(str(data / "prompt/align"), index, "", tmp_path / "x.png")
    assert json.dumps(shown["boxes"], separators=(",", ":")) in shown["answer"]


def test_a_fault_names_whole_numbers_as_such():
    assert "[0, 0, 10.5, 640]" in (outside((0.0, 0.0, 10.5, 640.0), Units(box_grid=100)) or "")


def test_score_takes_attributes_and_regions_as_objects_and_as_text():
    line = {"response": "[[0,0,5,5]]", "boxes": [[0.0, 0.0, 5.0, 5.0]], "box_grid": 10}
    told = line | {"attributes": {"sex": "F"}, "regions": {"heart": [[0, 0, 5, 5]]}, "may_leave": False}
    with_all, without = (json.loads(next(score_lines("box_overlap", [], [json.dumps(row)]))) for row in (told, line))
    assert with_all["score"] == without["score"] == 1.0


def test_the_type_of_an_evaluated_row_names_every_column_that_is_read():
    assert EvaluatedRow.__required_keys__ == {*COLUMNS}
    more = {*CURRICULUM_COLUMNS, *UNIT_COLUMNS, *SHARED_COLUMNS}
    assert EvaluatedRow.__optional_keys__ - more == {"completion", "box_space", "processed_size"}
    assert more <= EvaluatedRow.__optional_keys__
