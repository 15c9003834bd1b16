from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_builders.splits.stratified import Unit, stratified, unit_of, units_of
from rewards.config.input_error import InputError

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def units(number: int, strata: str = "abc") -> list[Unit]:
    return [Unit(f"patient {n}", strata[n % len(strata)]) for n in range(number)]


@given(st.permutations(units(40)))
def test_the_order_of_the_units_is_of_no_account(shuffled):
    assert stratified(shuffled, SHARES, key="k") == stratified(units(40), SHARES, key="k")


@given(st.integers(0, 60), st.integers(0, 60), st.text(max_size=5))
def test_nobody_moves_when_units_are_added(before, more, key):
    old = stratified(units(before), SHARES, key=key)
    new = stratified(units(before + more), SHARES, key=key, kept=old)
    assert all(new[name] == split for name, split in old.items())
    assert len(new) == before + more


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=120), st.text(max_size=5))
def test_every_stratum_has_its_shares_as_nearly_as_whole_units_allow(strata, key):
    placed = stratified([Unit(f"u{n}", s) for n, s in enumerate(strata)], SHARES, key=key)
    for stratum, total in Counter(strata).items():
        for split, share in SHARES.items():
            held = sum(placed[f"u{n}"] == split for n, s in enumerate(strata) if s == stratum)
            assert abs(held - share * total) < 1.0 + 1e-9


def test_another_key_gives_other_splits():
    assert stratified(units(40), SHARES, key="one") != stratified(units(40), SHARES, key="other")


def test_a_newcomer_goes_where_its_stratum_is_behind():
    kept = {f"patient {n}": "train" for n in range(10)}
    newcomers = [*(Unit(f"patient {n}", "a") for n in range(10)), Unit("patient new", "a")]
    assert stratified(newcomers, {"train": 0.5, "test": 0.5}, key="k", kept=kept)["patient new"] == "test"


def test_the_unit_is_the_patient_then_the_eye_then_the_study_then_the_row():
    row = {"id": "r", "patient": "p", "eye": "e", "study": "s"}
    assert [unit_of(row), unit_of(row | {"patient": ""}), unit_of(row | {"patient": None, "eye": ""})] == [
        "patient p", "eye e", "study s",
    ]  # fmt: skip
    assert unit_of({"id": "r"}) == "row r"


def test_a_patient_is_of_its_most_severe_stage():
    rows = [{"id": str(n), "patient": "p", "stage": stage} for n, stage in enumerate(["late", "early", None])]
    assert units_of(rows, stratum="stage", order=["early", "late"]) == [Unit("patient p", "late")]
    assert units_of(rows[2:], stratum="stage") == [Unit("patient p", "")]


def test_a_unit_in_two_strata_and_a_split_without_a_share_are_refused():
    with pytest.raises(InputError, match=r"patient 0 is in strata 'a' and 'b'"):
        stratified([Unit("patient 0", "a"), Unit("patient 0", "b")], SHARES, key="k")
    with pytest.raises(InputError, match=r"'dev' holds units from before, but has no share"):
        stratified(units(2), SHARES, key="k", kept={"patient 0": "dev"})
