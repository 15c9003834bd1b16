"""The rows that a recipe trains on: found once, and found anew where the file or what is asked of it has changed."""

import shutil
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignment.checks.read_recipe import TRAINER_IS_NEXT, read_recipe
from alignment.config.data_entries import rows_at, train_rows
from alignment.reward_functions.sampled_rows import sampled_rows
from rewards.config.input_error import InputError


def test_rows_are_found_once_for_all_that_asks_about_them(write_recipe, data, tmp_path, monkeypatch):
    read, asked = pq.read_table, Counter()
    train = tmp_path / "rows"  # a file that no earlier test has asked about
    shutil.copy(data / "prompt/align.parquet", train.with_suffix(".parquet"))

    def counting(*arguments, **options):
        asked[",".join(options.get("columns") or ["all"])] += 1
        return read(*arguments, **options)

    monkeypatch.setattr(pq, "read_table", counting)
    rewards = [{"name": name} for name in ("box_overlap", "finding_f1", "closed_answer", "length")]
    recipe = read_recipe(write_recipe("grpo", data={"train": str(train)}, rewards=rewards))
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


def test_of_a_file_only_what_is_asked_for_is_read(tmp_path, monkeypatch):
    file = tmp_path / "rows.parquet"
    table = pa.table({"id": [f"r{k}" for k in range(300)], "images": [[b"x" * 9]] * 300})
    pq.write_table(table, file, row_group_size=100)
    assert rows_at(file, [250, 7, 199, 70]) == [table.slice(k, 1).to_pylist()[0] for k in (250, 7, 199, 70)]
    assert rows_at(file, []) == []
    read, seen = pq.ParquetFile.iter_batches, []

    def noting(self, *arguments, **options):
        seen.append((options["row_groups"], options["columns"]))
        return read(self, *arguments, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", noting)
    assert rows_at(file, [299, 0], ["id"]) == [{"id": "r299"}, {"id": "r0"}]
    assert seen == [([0], ["id"]), ([2], ["id"])]


def test_an_audit_reads_the_pictures_of_the_rows_that_it_draws_and_no_others(data, monkeypatch):
    file, asked = data / "prompt/align.parquet", []

    def noting(file, indices, columns):
        asked.append((len(indices), columns))
        return rows_at(file, indices, columns)

    monkeypatch.setattr("alignment.reward_functions.sampled_rows.rows_at", noting)
    plain = sampled_rows(file, limit=6, seed=1)
    assert asked == []
    shown = sampled_rows(file, limit=6, seed=1, images=True)
    assert asked == [(len(plain), ["images"])]
    whole = {row["id"]: row["images"] for row in pq.read_table(file).to_pylist()}
    assert shown == [row | {"images": whole[row["id"]]} for row in plain]


def test_data_that_are_not_there_are_told_once(write_recipe):
    rewards = [{"name": name} for name in ("box_overlap", "finding_f1")]
    combination = {"domains": {"column": "task"}}
    path = write_recipe("grpo", data={"train": "gone"}, rewards=rewards, combination=combination, canaries={})
    with pytest.raises(InputError) as caught:
        read_recipe(path)
    told, next_look = str(caught.value).splitlines()
    assert "data.train: no file gone.parquet." in told
    assert TRAINER_IS_NEXT in next_look
