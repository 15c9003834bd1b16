"""Orders of rows: those of TRL's and transformers' own samplers, and pure functions of seed and epoch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader
from trl.trainer.utils import RepeatSampler

from alignment.data.row_order import EpochSampler, by_length, redrawn, shuffled, unshuffled


def test_shuffled_rows_come_as_accelerates_sampler_has_them():
    from accelerate.data_loader import SeedableRandomSampler

    data = list(range(17))
    stock = SeedableRandomSampler(data, data_seed=5)
    epochs = [list(stock) for _ in range(3)]
    assert [shuffled(17, 5)(epoch) for epoch in range(3)] == epochs


@pytest.mark.parametrize("epoch", [0, 1, 4])
def test_grpo_rows_come_as_trls_sampler_has_them_in_every_epoch(epoch):
    stock = RepeatSampler(list(range(11)), mini_repeat_count=3, batch_size=2, repeat_count=4, seed=7)
    for _ in range(epoch):
        list(stock)
    ours = EpochSampler(redrawn(11, 7), chunk=2, copies=3, times=4)
    ours.epoch = epoch
    assert list(ours) == list(stock)
    assert len(ours) == len(stock)


@given(st.integers(1, 40), st.integers(0, 9), st.integers(0, 5))
def test_every_order_holds_every_row_once_and_keeps_nothing_between_calls(rows, seed, epoch):
    lengths = [(7 * k) % 13 for k in range(rows)]
    for order in (shuffled(rows, seed), redrawn(rows, seed), by_length(lengths, 2, seed), unshuffled(rows)):
        before = torch.random.get_rng_state()
        first = list(order(epoch))
        order(epoch + 1)
        assert list(order(epoch)) == first
        assert sorted(first) == list(range(rows))
        assert torch.equal(torch.random.get_rng_state(), before)


def test_the_longest_row_comes_first_when_grouped_by_length():
    lengths = [3, 9, 4, 11, 2, 5]
    assert lengths[by_length(lengths, 2, 1)(0)[0]] == 11


def test_a_later_epoch_is_skipped_into_without_walking_the_earlier_ones():
    sampler = EpochSampler(shuffled(10, 3))
    sampler.epoch = 2
    batches = list(BatchSampler(sampler, 4, drop_last=False))
    assert [k for batch in batches for k in batch] == shuffled(10, 3)(2)
    assert len(DataLoader(range(10), sampler=sampler, batch_size=4)) == 3


def test_what_fills_no_chunk_is_left_out_of_the_epoch():
    sampler = EpochSampler(unshuffled(5), chunk=2, copies=2, times=1)
    assert list(sampler) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert sampler.planned(0) == [0, 1, 2, 3]
