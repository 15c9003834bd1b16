"""Resident memory: what counts as held, and what counts as growth."""

import mmap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.resuming.resident_memory import BLOCKS, STATUS, growth, memory, resident_mib

MIB = 2**20


def steps(held):
    return [{"step": k, "held_mib": mib, "rss_mib": mib + 50} for k, mib in enumerate(held, start=1)]


@pytest.mark.skipif(not STATUS.is_file(), reason="only Linux tells mapped files apart")
def test_pages_of_a_mapped_file_are_resident_but_not_held(tmp_path):
    file = tmp_path / "data"
    file.write_bytes(b"x" * (64 * MIB))
    before = resident_mib()
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) > 0
        after = resident_mib()
    assert after["rss_mib"] - before["rss_mib"] > 60
    assert after["held_mib"] - before["held_mib"] < 8


def test_what_a_process_allocates_is_held():
    before = resident_mib()
    kept = b"x" * (64 * MIB)
    after = resident_mib()
    assert len(kept) == 64 * MIB
    assert after["held_mib"] - before["held_mib"] > 60


@given(st.floats(-5, 5), st.floats(0, 1e4))
def test_growth_is_the_slope_after_the_warm_up(slope, start):
    found = growth(steps([9e5] * 50 + [start + slope * step for step in range(51, 101)]))
    assert found is not None
    assert found.per_1000 == pytest.approx(1000 * slope, abs=0.02)
    assert found.low - 0.02 <= 1000 * slope <= found.high + 0.02  # no nan where nothing moves


def test_noise_about_a_level_is_no_growth_but_a_leak_of_ten_kilobytes_a_step_is_seen():
    noise = np.random.default_rng(0).normal(0, 1, 1000)
    level, leak = growth(steps(500 + noise)), growth(steps(500 + noise + np.arange(1000) / 100))
    assert level is not None
    assert leak is not None
    assert level.low < 0 < level.high
    assert leak.low > 5


def test_an_allocator_that_takes_and_gives_back_for_a_hundred_steps_at_a_time_is_no_growth():
    jumps = 500 + 10 * np.random.default_rng(1).integers(0, 2, 10).repeat(100)
    found = growth(steps(jumps))
    assert found is not None
    assert found.low < 0 < found.high


def test_growth_is_that_of_the_rank_that_grows_most_and_size_that_of_rank_0():
    found = memory([steps([100.0] * 40), steps([100.0 + k for k in range(40)])])
    assert found["held_mib_growth_per_1000_steps"] == pytest.approx(1000)
    assert (found["held_mib_at_the_end"], found["rss_mib_at_the_end"]) == (100.0, 150.0)


def test_too_few_steps_show_no_growth():
    assert growth(steps([1.0] * (2 * BLOCKS - 2))) is None
    assert growth(steps([1.0] * 2 * BLOCKS)) is not None
