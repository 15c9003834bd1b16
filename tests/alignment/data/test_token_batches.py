"""Batches by tokens: within the budget, every row once, the largest first, alike on all processes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.checks.read_recipe import read_recipe
from alignment.data.row_order import shuffled
from alignment.data.token_batches import TokenBatches, batches_within, cost, longest_first
from alignment.resuming.ledger import proof
from alignment.training.run import run
from rewards.config.input_error import InputError

LENGTHS = st.lists(st.integers(1, 50), min_size=4, max_size=60)


def made(lengths, budget, **more):
    settings = {"ids": [str(k) for k in range(len(lengths))], "processes": 1, "rank": 0, "seed": 3, **more}
    return TokenBatches(lengths, budget, **settings)


@given(LENGTHS, st.integers(50, 200))
def test_batches_stay_within_the_budget_and_hold_every_row_once(lengths, budget):
    batches = batches_within(lengths, budget)
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    costs = [cost(batch, lengths) for batch in batches]
    assert max(costs) <= budget
    assert costs == sorted(costs, reverse=True)


@given(LENGTHS, st.integers(0, 4))
def test_processes_share_the_rows_in_equally_many_batches(lengths, epoch):
    ranks = [made(lengths, 100, processes=2, rank=rank) for rank in range(2)]
    for rank in ranks:
        rank.epoch = epoch
    shares = [list(rank) for rank in ranks]
    assert len(shares[0]) == len(shares[1]) == len(ranks[0])
    assert sorted(p for share in shares for batch in share for p in batch) == list(range(len(lengths)))
    assert sorted(ranks[0].planned(epoch)) == list(range(len(lengths)))


@given(LENGTHS)
def test_the_largest_batch_of_the_run_is_its_first(lengths):
    batches = made(lengths, 120)
    epochs = []
    for epoch in range(3):
        batches.epoch = epoch
        epochs += [cost(batch, lengths) for batch in batches]
    assert epochs[0] == max(epochs)


def test_epochs_differ_in_order_and_a_seed_repeats(tmp_path):
    lengths = list(range(1, 30))
    one, other = made(lengths, 40), made(lengths, 40)
    assert one.rounds_of(1) == other.rounds_of(1) != one.rounds_of(2)


@pytest.mark.parametrize("now", [1, 2, 4])
def test_batches_made_for_other_processes_are_dealt_out_whole_and_in_their_order(now):
    lengths = list(range(22, 38))
    before = [made(lengths, 60, processes=2, rank=rank) for rank in range(2)]
    assert sum(map(len, before)) == 12  # of one row or two
    turns = [list(batches) for batches in zip(*before, strict=True)]
    ranks = [made(lengths, 60, processes=now, rank=rank, begun_with=2) for rank in range(now)]
    assert [len(batches) for batches in ranks] == [2 * len(turns) // now] * now
    dealt = [batch for batches in zip(*ranks, strict=True) for batch in batches]
    assert dealt == [batch for batches in turns for batch in batches]
    assert ranks[0].planned(1) == before[0].planned(1)


def test_batches_that_cannot_be_dealt_out_alike_are_refused():
    with pytest.raises(InputError, match=r"made for 1 processes, and 5 cannot share them alike. Start it with 1"):
        made([60, 60, 60], 60, processes=5, begun_with=1)


def test_a_row_beyond_the_budget_is_refused_by_id():
    with pytest.raises(InputError, match=r"60 is less than one row takes: c \(61\)"):
        made([1, 2, 61], 60, ids=["a", "b", "c"])


def test_too_few_rows_for_the_processes_are_refused():
    with pytest.raises(InputError, match="fewer rows than the processes need"):
        made([1], 60, processes=2)


@given(LENGTHS, st.integers(1, 8))
def test_no_batch_of_as_many_rows_is_larger_than_the_first(lengths, count):
    order = longest_first(shuffled(len(lengths), 1), lengths, count)
    assert sum(lengths[k] for k in order(0)[:count]) == sum(sorted(lengths, reverse=True)[:count])
    assert sorted(order(0)) == list(range(len(lengths)))
    assert order(1) == shuffled(len(lengths), 1)(1)


def test_rows_all_alike_come_as_they_would_have():
    assert longest_first(shuffled(9, 4), [5] * 9, 3)(0) == shuffled(9, 4)(0)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_a_run_keeps_to_the_budget_and_sees_every_row_once_an_epoch(write_recipe, tmp_path, method):
    data = {"batch_tokens": 400, "limit": 20}
    folder = run(read_recipe(write_recipe(method, data=data, trainer={"max_steps": -1, "num_train_epochs": 2})))
    found = proof(folder)
    assert found["rows_seen"] == 40
    assert (found["rows_skipped"], found["rows_repeated"], found["filled_up"]) == (0, 0, 0)
    sizes = {
        len(batch)
        for line in (folder / "ledger/rank0.jsonl").read_text().splitlines()
        for batch in json.loads(line)["rows"]
    }
    assert len(sizes) > 1


def test_a_budget_is_refused_under_grpo(write_recipe):
    with pytest.raises(InputError, match="batch_tokens: not under grpo"):
        read_recipe(write_recipe("grpo", data={"batch_tokens": 100}))
