"""The rows of a step on other ranks than those that the run was begun with, and which numbers cannot have them."""

import json

import pytest

from alignment.checks.read_recipe import read_recipe
from alignment.resuming.checkpoints import MANIFEST, seal
from alignment.resuming.rank_layout import Layout, begun_with, on_ranks
from rewards.config.input_error import InputError


@pytest.mark.parametrize(
    ("before", "ranks", "size", "accumulation"),
    [
        (Layout(4, 1, 2), 1, 4, 2),  # fewer ranks take more turns
        (Layout(4, 2, 2), 4, 4, 1),  # more take fewer
        (Layout(4, 1, 2), 4, 2, 1),  # and where there is but one turn, fewer rows at a time
        (Layout(4, 3, 2), 4, 2, 3),
        (Layout(6, 1, 2), 3, 2, 2),  # 12 rows: 4 a rank, by a divisor of 6
        (Layout(3, 1, 2), 6, 1, 1),
    ],
)
def test_a_step_takes_the_same_rows_on_other_ranks(before, ranks, size, accumulation):
    now = before.on(ranks)
    assert (now.size, now.accumulation, now.ranks) == (size, accumulation, ranks)
    assert now.rows() == before.rows()


def test_a_step_that_other_ranks_cannot_share_has_no_layout():
    assert Layout(4, 1, 2).on(3) is None
    assert Layout(4, 1, 2).on(16) is None


def test_a_generation_keeps_its_rows_too():
    now = Layout(2, 1, 2, generation=3).on(1)
    assert (now.size, now.accumulation, now.generation) == (2, 2, 6)
    now = Layout(2, 1, 2, generation=3).on(4)
    assert now.size * now.ranks * now.generation == 12


def test_the_recipe_is_changed_in_memory_and_only_where_it_must(write_recipe):
    recipe = read_recipe(write_recipe(trainer={"per_device_train_batch_size": 4, "save_strategy": "steps"}))
    assert on_ranks(recipe, None, 3) is recipe
    assert on_ranks(recipe, 2, 2) is recipe
    changed = on_ranks(recipe, 2, 1)
    assert changed.trainer == recipe.trainer | {"gradient_accumulation_steps": 2}
    assert "gradient_accumulation_steps" not in recipe.trainer


@pytest.mark.parametrize(
    ("settings", "turns"),
    [({}, None), ({"steps_per_generation": 3}, 6), ({"generation_batch_size": 24}, None)],
)
def test_grpo_generates_as_many_rows_at_once_as_it_did(write_recipe, settings, turns):
    recipe = read_recipe(write_recipe("grpo", trainer=settings))
    assert on_ranks(recipe, 2, 1).trainer.get("steps_per_generation") == turns


def test_numbers_that_do_not_fit_are_refused_with_those_that_do(write_recipe):
    recipe = read_recipe(write_recipe(trainer={"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3}))
    told = r"takes 12 rows \(2 x 2 processes x 3 accumulated\), which 5 cannot share alike. Start it with 1, 2, 3, 4, 6"
    with pytest.raises(InputError, match=told):
        on_ranks(recipe, 2, 5)


def test_batches_by_tokens_are_counted_whole(write_recipe):
    settings = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    recipe = read_recipe(write_recipe(trainer=settings, data={"batch_tokens": 4000}))
    assert on_ranks(recipe, 2, 4).trainer == recipe.trainer | {"gradient_accumulation_steps": 1}
    told = r"takes 4 batches \(1 x 2 processes x 2 accumulated\), which 8 cannot share alike. Start it with 1, 2, 4,"
    with pytest.raises(InputError, match=told):
        on_ranks(recipe, 2, 8)


def test_rows_that_are_dropped_by_batch_are_refused(write_recipe):
    recipe = read_recipe(write_recipe(trainer={"dataloader_drop_last": True}))
    with pytest.raises(InputError, match=r"dataloader_drop_last.* Start it with 2"):
        on_ranks(recipe, 2, 1)


def test_what_a_run_was_begun_with_is_read_from_its_newest_seal(tmp_path):
    assert begun_with(tmp_path / "checkpoints") is None
    for step in (2, 10, 11):
        (tmp_path / f"checkpoint-{step}").mkdir()
    seal(tmp_path / "checkpoint-2", step=2)
    assert begun_with(tmp_path) == 1
    seal(tmp_path / "checkpoint-10", step=10, begun_with=4)
    assert begun_with(tmp_path) == 4
    (tmp_path / "checkpoint-11" / MANIFEST).write_text("[")  # is not whole, and its number not known
    assert begun_with(tmp_path) == 4


def test_a_seal_of_before_counts_the_processes_that_wrote_it(tmp_path):
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "checkpoint-2" / MANIFEST).write_text(json.dumps({"step": 2, "processes": 2, "files": {}}))
    assert begun_with(tmp_path) == 2
