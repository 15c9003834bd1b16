"""The rows that a recipe trains on: found once, and found anew where the file or what is asked of it has changed."""

import shutil
from collections import Counter

import pyarrow.parquet as pq
import pytest

from alignment.checks.read_recipe import TRAINER_IS_NEXT, read_recipe
from alignment.config.data_entries import train_rows
from rewards.config.input_error import InputError


def test_rows_are_found_once_for_all_that_asks_about_them(write_recipe, monkeypatch):
    read, asked = pq.read_table, Counter()

    def counting(*arguments, **options):
        asked[",".join(options.get("columns") or ["all"])] += 1
        return read(*arguments, **options)

    monkeypatch.setattr(pq, "read_table", counting)
    rewards = [{"name": name} for name in ("box_overlap", "finding_f1", "closed_answer", "length")]
    recipe = read_recipe(write_recipe("grpo", rewards=rewards))
    assert asked["task"] == 1
    assert train_rows(recipe) is train_rows(recipe)
    assert train_rows(recipe).by_task.total() == len(train_rows(recipe).indices)
    assert asked["task"] == 1


def test_rows_are_found_anew_where_the_file_or_the_question_is_another(write_recipe, data, tmp_path):
    train = tmp_path / "own" / "rows"
    train.parent.mkdir()
    shutil.copy(data / "prompt/align.parquet", train.with_suffix(".parquet"))
    path = write_recipe("grpo", data={"train": str(train)}, rewards=[{"name": "box_overlap"}])
    recipe = read_recipe(path)
    before = train_rows(recipe)
    boxes = train_rows(read_recipe(path, ["data.tasks=[box]"]))
    assert set(boxes.of("task")) == {"box"}
    assert 0 < len(boxes.indices) < len(before.indices)
    assert [row["id"] for row in boxes.records(["id"])] == boxes.of("id")
    pq.write_table(pq.read_table(before.file).slice(0, 3), before.file)
    assert train_rows(recipe).indices == [0, 1, 2]


def test_data_that_are_not_there_are_told_once(write_recipe):
    rewards = [{"name": name} for name in ("box_overlap", "finding_f1")]
    combination = {"domains": {"column": "task"}}
    path = write_recipe("grpo", data={"train": "gone"}, rewards=rewards, combination=combination, canaries={})
    with pytest.raises(InputError) as caught:
        read_recipe(path)
    told, next_look = str(caught.value).splitlines()
    assert "data.train: no file gone.parquet." in told
    assert TRAINER_IS_NEXT in next_look
