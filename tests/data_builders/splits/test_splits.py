from hypothesis import given
from hypothesis import strategies as st

from data_builders.splits.splits import check_disjoint, split_of

SHARES = {"train": 0.6, "validation": 0.1, "test": 0.3}


@given(st.text(), st.text())
def test_every_patient_has_a_split(patient, key):
    assert split_of(patient, SHARES, key=key) in SHARES


def test_another_key_makes_other_splits():
    patients = [str(k) for k in range(200)]
    one, two = ([split_of(p, SHARES, key=key) for p in patients] for key in ("1", "2"))
    assert one != two


def test_a_known_patient_stays_where_releases_before_put_it():
    """Recorded: a change here moves patients between splits of data sets that people have built."""
    recorded = ["test", "train", "train", "train", "test", "train"]
    assert [split_of(f"p{k}", SHARES, key="0") for k in range(6)] == recorded


def test_more_of_the_first_split_takes_nobody_out_of_it():
    patients = [str(k) for k in range(300)]
    before = {p for p in patients if split_of(p, {"train": 0.5, "test": 0.5}, key="k") == "train"}
    after = {p for p in patients if split_of(p, {"train": 0.7, "test": 0.3}, key="k") == "train"}
    assert before < after


def test_a_split_without_a_share_gets_nobody():
    empty_last = {"train": 1.0 - 1e-12, "test": 0.0}
    assert {split_of(str(k), empty_last, key="k") for k in range(300)} == {"train"}


def test_a_pinned_patient_goes_where_it_is_pinned_and_moves_nobody_else():
    patients = [str(k) for k in range(100)]
    free = {p: split_of(p, SHARES, key="k") for p in patients}
    pinned = {p: split_of(p, SHARES, key="k", assign={"7": "validation"}) for p in patients}
    assert pinned == {**free, "7": "validation"}


def test_disjoint_rows_pass():
    check_disjoint([("p1", "train"), ("p1", "train"), ("p2", "test")])
    check_disjoint([])
