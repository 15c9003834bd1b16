"""The ledger: what it proves, and how it is cut back."""

import json

import pytest

from alignment.ledger import Ledger, Plan, proof
from rewards.strict_yaml import InputError


def written(run, pages, planned, plan):
    """A ledger of (epoch, rows of each micro-batch) a step, for each rank."""
    for rank, steps in enumerate(pages):
        ledger = Ledger(run / "ledger", rank)
        for step, (epoch, batches) in enumerate(steps, start=1):
            for batch in batches:
                ledger.saw(batch)
                ledger.add_loss(0.5)
            ledger.close_step(step, epoch)
    ledger.plan(plan)
    for epoch, rows in enumerate(planned):
        ledger.plan_epoch(epoch, rows)
    return proof(run)


def test_every_row_once_in_two_epochs_is_proved(tmp_path):
    steps = [(0, ["ab"]), (0, ["c"]), (1, ["ca"]), (1, ["b"])]
    assert written(tmp_path, [steps], ["abc", "cab"], Plan(1)) == {
        "steps": 4, "processes": 1, "steps_missing_or_twice": 0,
        "rows_seen": 6, "rows_skipped": 0, "rows_repeated": 0, "filled_up": 0,
    }  # fmt: skip


def test_a_replayed_batch_shows_as_repeated_and_what_it_displaced_as_skipped(tmp_path):
    found = written(tmp_path, [[(0, ["ab"]), (0, ["ab"])]], ["abcd"], Plan(1))
    assert (found["rows_skipped"], found["rows_repeated"]) == (2, 2)


def test_an_unfinished_epoch_lacks_nothing(tmp_path):
    found = written(tmp_path, [[(0, ["ab"]), (0, ["c"])]], ["abcdef"], Plan(1))
    assert (found["rows_skipped"], found["rows_repeated"]) == (0, 0)


def test_two_processes_share_the_rows_and_fill_up_the_last_batch(tmp_path):
    ranks = [[(0, ["ab", "ef"])], [(0, ["cd", "ga"])]]
    found = written(tmp_path, ranks, ["abcdefg"], Plan(2))
    assert (found["rows_seen"], found["rows_skipped"], found["rows_repeated"], found["filled_up"]) == (8, 0, 0, 1)


def test_grpo_sees_the_rows_of_a_generation_batch_in_any_order_but_as_often_as_planned(tmp_path):
    plan = Plan(1, chunk=2, per_row=4)
    good = [(0, ["abab"]), (0, ["bbaa"]), (0, ["cd"])]
    assert written(tmp_path / "good", [good], ["abcd"], plan)["rows_repeated"] == 0
    bad = [(0, ["abab"]), (0, ["bbba"]), (0, ["ca"])]
    found = written(tmp_path / "bad", [bad], ["abcd"], plan)
    assert (found["rows_skipped"], found["rows_repeated"]) == (1, 2)


def test_a_missing_line_and_one_too_many_are_counted(tmp_path):
    steps = [(0, ["a"]), (0, ["b"]), (0, ["c"])]
    written(tmp_path, [steps], ["abc"], Plan(1))
    file = tmp_path / "ledger/rank0.jsonl"
    first, second, third = file.read_text().splitlines(keepends=True)
    file.write_text(first + third)
    assert proof(tmp_path)["steps_missing_or_twice"] == 1
    file.write_text(first + second + second + third)
    assert proof(tmp_path)["steps_missing_or_twice"] == 1


def test_cutting_back_drops_later_steps_and_a_half_written_line(tmp_path):
    written(tmp_path, [[(0, ["a"]), (0, ["b"]), (0, ["c"])]], ["abc"], Plan(1))
    file = tmp_path / "ledger/rank0.jsonl"
    with file.open("a") as opened:
        opened.write('{"step": 4, "ep')
    assert Ledger(tmp_path / "ledger", 0).cut_back(1) == 3
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1]


def test_an_epoch_in_another_order_is_refused(tmp_path):
    ledger = Ledger(tmp_path / "ledger", 0)
    ledger.plan_epoch(0, ["a", "b"])
    ledger.plan_epoch(0, ["a", "b"])
    with pytest.raises(InputError, match="begun with other rows or another order"):
        ledger.plan_epoch(0, ["b", "a"])


def test_a_run_without_a_ledger_is_said(tmp_path):
    with pytest.raises(InputError, match="holds no ledger"):
        proof(tmp_path)
