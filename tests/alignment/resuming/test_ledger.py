"""The ledger: what it proves, and how it is cut back."""

import json

import pytest

from alignment.resuming.ledger import Ledger, Plan, Stretch, proof
from rewards.config.input_error import InputError


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


def test_a_run_that_went_on_under_other_numbers_of_processes_is_proved_by_the_steps_of_each(tmp_path):
    two = [[(0, ["ab"]), (0, ["ef"])], [(0, ["cd"]), (0, ["gh"])]]
    written(tmp_path, two, ["abcdefghijkl"], Plan(2))
    ledger = Ledger(tmp_path / "ledger", 0)
    for batch in ("ij", "kl"):  # one process, which takes the step's rows in two turns
        ledger.saw(batch)
    ledger.close_step(3, 0)
    ledger.plan(Plan(1, before=[Stretch(2, 2)]))
    found = proof(tmp_path)
    assert (found["steps"], found["processes"], found["steps_missing_or_twice"]) == (3, 1, 0)
    assert (found["rows_seen"], found["rows_skipped"], found["rows_repeated"]) == (12, 0, 0)
    assert (found["inexact_resumes"], found["rows_made_anew"]) == (1, 0)
    ledger.plan(Plan(1))  # without being told of the two
    assert proof(tmp_path)["steps_missing_or_twice"] == 2


def test_a_generation_batch_that_others_made_anew_is_told_and_not_proved(tmp_path):
    plan = Plan(1, chunk=2, per_row=2, before=[Stretch(1, 1)])
    rows = [(0, ["aa"]), (0, ["ab"]), (0, ["cc"]), (0, ["dd"])]
    found = written(tmp_path, [rows], ["abcd"], plan)
    assert (found["rows_made_anew"], found["rows_skipped"], found["rows_repeated"]) == (2, 0, 0)
    at_its_end = Plan(1, chunk=2, per_row=2, before=[Stretch(2, 1)])
    found = written(tmp_path / "end", [rows], ["abcd"], at_its_end)
    assert (found["rows_made_anew"], found["rows_skipped"], found["rows_repeated"]) == (0, 1, 1)


@pytest.mark.parametrize(
    ("before", "now", "ranks", "step", "want"),
    [
        ([], 2, 1, 4, [(4, 2)]),
        ([], 2, 2, 4, []),
        ([], 2, 1, 0, []),  # from its start: nothing of the two is left
        ([(4, 2)], 1, 1, 8, [(4, 2)]),
        ([(4, 2)], 1, 2, 8, [(4, 2), (8, 1)]),
        ([(4, 2)], 1, 2, 4, []),  # killed before it had a checkpoint of the one
        ([(4, 2)], 1, 4, 4, [(4, 2)]),
        ([(4, 2), (8, 1)], 4, 4, 6, [(4, 2), (6, 1)]),  # the checkpoint at 8 was damaged
    ],
)
def test_where_a_run_went_on_under_others_follows_from_its_checkpoint(before, now, ranks, step, want):
    plan = Plan(now, before=[Stretch(s, p) for s, p in before])
    assert plan.goes_on_under(ranks, step) == [Stretch(*part) for part in want]


@pytest.mark.parametrize("content", ["{}", '{"processes": "two"}', '{"processes": 1, "before": [{"step": 4}]}'])
def test_a_plan_that_is_none_is_said(tmp_path, content):
    written(tmp_path, [[(0, ["a"])]], ["a"], Plan(1))
    (tmp_path / "ledger/plan.json").write_text(content)
    with pytest.raises(InputError, match=r"plan\.json: is no plan of a ledger"):
        proof(tmp_path)


def test_pages_of_ranks_that_there_are_no_longer_are_cut_back_too(tmp_path):
    written(tmp_path, [[(0, ["a"]), (0, ["b"])]] * 3, ["ab"], Plan(3))
    Ledger(tmp_path / "ledger", 0).cut_back_others(1, 2)
    lines = [(tmp_path / f"ledger/rank{rank}.jsonl").read_text().count("\n") for rank in range(3)]
    assert lines == [2, 2, 1]  # each rank cuts its own
    Ledger(tmp_path / "ledger", 0).cut_back_others(0, 2)
    assert not (tmp_path / "ledger/rank2.jsonl").exists()


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
