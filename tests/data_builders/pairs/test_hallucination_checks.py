import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_builders.pairs.hallucination_checks import (
    LengthLimit,
    brevity_report,
    fault_of_rejected,
    is_true,
    length_balanced,
    same_polarity,
)
from data_builders.rendering.corrupt import corrupt
from data_builders.rendering.render import report
from rewards.rules.facts import Facts, Finding
from rewards.rules.rule_set import load_rule_set

CHEST = load_rule_set("chest_xray")
TRUTH = Facts(
    rule_set=CHEST.id,
    findings={
        "nodule": Finding(polarity="present", side="left", size="small"),
        "effusion": Finding(polarity="absent"),
        "cardiomegaly": Finding(polarity="absent"),
    },
)


@pytest.mark.parametrize(
    ("chosen", "rejected", "want"),
    [
        ("Yes", "No", None),
        ("Yes", " yes. ", "equal to the truth"),
        ("Yes", "", "empty"),
        ("Yes", " ... ", "empty"),
        ("MRI", "This is not an MRI but a CT", "contains the truth"),
        ("CT", "An MRI with contrast", None),
        ("Yes", "Yes, there is some fluid", "contains the truth"),
        ("No", "There are no regions, so none", "contains the truth"),
        ("No", "None", "true by accident"),
        ("Lung", "The liver, which contradicts the image", "speaks of its own making"),
        ("Lung", "The wrong answer is liver", "speaks of its own making"),
        ("Lung", "As an AI language model I see the liver", "speaks of its own making"),
        ("Lung", "Brain", None),
        ("Lung", "This image was taken of the brain and it shows no lesion at all", "of a far other length"),
        ("a b c d e f g h i j k l", "x", "of a far other length"),
    ],
)
def test_an_answer_is_refused_for_what_is_wrong_with_it(chosen, rejected, want):
    assert fault_of_rejected(chosen, rejected) == want


def test_any_length_is_accepted_without_a_limit():
    assert fault_of_rejected("Lung", "x " * 100, limit=None) is None
    assert fault_of_rejected("Lung", "x " * 100, limit=LengthLimit(factor=200)) is None


@pytest.mark.parametrize(
    ("response", "true"),
    [
        ("There is a small nodule on the left. No effusion.", True),
        ("Small nodule on the left.", True),
        ("There is a nodule.", True),
        ("No effusion.", True),
        ("There is a small nodule on the right.", False),
        ("There is a large nodule on the left.", False),
        ("No nodule.", False),
        ("There is a small nodule on the left. There is a large effusion.", False),
        ("qwerty", False),
    ],
)
def test_truth_is_read_by_the_facts(response, true):
    assert is_true(response, TRUTH) is true


WRITTEN = Facts(rule_set="chest_report@1", findings={"nodule": Finding(polarity="present", side="left")})


@pytest.mark.parametrize("name", [name for name in load_rule_set("chest_report").findings if name != "nodule"])
@pytest.mark.parametrize("true_part", ["", "There is a nodule on the left. "])
def test_a_finding_that_a_report_does_not_mention_is_a_fit_invention(name, true_part):
    chosen, invented = "A nodule is seen on the left.", load_rule_set("chest_report").findings[name].name
    assert fault_of_rejected(chosen, f"{true_part}There is {invented}.", truth=WRITTEN) is None


def test_the_whole_truth_with_an_invention_beside_it_is_fit_where_the_facts_tell_it():
    chosen = "There is a nodule on the left."
    assert fault_of_rejected(chosen, f"{chosen} There is a mass.", truth=WRITTEN) is None
    assert fault_of_rejected(chosen, f"{chosen} There is a mass.") == "contains the truth"
    assert fault_of_rejected(chosen, f"{chosen} No mass.", truth=WRITTEN) == "contains the truth"
    assert fault_of_rejected(chosen, f"{chosen} The sky is blue.", truth=WRITTEN) == "contains the truth"


@pytest.mark.parametrize(
    "said", ["Nodule on the left.", "No mass.", "Possible mass.", "Nodule on the left. No effusion."]
)
def test_what_is_known_or_only_denied_or_doubted_is_no_invention(said):
    assert is_true(said, WRITTEN)


def test_what_the_truth_doubts_may_be_true():
    doubtful = WRITTEN.model_copy(update={"findings": {"nodule": Finding(polarity="uncertain")}})
    assert is_true("There is a nodule.", doubtful)
    assert not is_true("There is a mass.", doubtful)


def test_what_is_not_known_may_be_true_where_the_rule_set_ignores_it():
    slice_of_ct = Facts(rule_set="lung_ct@1", findings={"mass": Finding(polarity="present")})
    assert is_true("There is a mass. There is a heart.", slice_of_ct)


def test_a_response_true_by_the_facts_is_refused_in_other_words():
    chosen = report(TRUTH, CHEST)
    assert fault_of_rejected(chosen, "A small nodule is seen on the left.", truth=TRUTH) == "true by accident"
    assert fault_of_rejected(chosen, "A small nodule is seen on the right.", truth=TRUTH) is None


@given(st.integers(0, 100_000))
def test_no_corruption_is_ever_true_by_accident_or_refused(seed):
    wrong = corrupt(TRUTH, CHEST, random.Random(seed))
    chosen, rejected = (report(f, CHEST, rng=random.Random(seed)) for f in (TRUTH, wrong.facts))
    assert not is_true(rejected, TRUTH)
    assert fault_of_rejected(chosen, rejected, truth=TRUTH) is None


@given(st.integers(0, 100_000))
def test_every_wording_of_the_truth_is_true(seed):
    assert is_true(report(TRUTH, CHEST, rng=random.Random(seed)), TRUTH)


@pytest.mark.parametrize(
    ("chosen", "rejected", "same"),
    [
        ("Yes", "Yes, it is", True),
        ("No", "Not at all", True),
        ("Yes", "No", False),
        ("Left", "Yes", False),
        ("Yes", "", False),
    ],
)
def test_polarity_is_that_of_the_first_word(chosen, rejected, same):
    assert same_polarity(chosen, rejected) is same


def test_one_word_against_many_is_a_perfect_shortcut():
    figures = brevity_report(["Yes"] * 4, ["No there is none of it"] * 4)
    assert figures["shortcut_accuracy"] == 1.0
    assert (figures["chosen_words"], figures["rejected_words"]) == (1, 6)


def test_length_tells_nothing_where_it_goes_both_ways_or_is_equal():
    assert brevity_report(["a", "a b"], ["a b", "a"])["shortcut_accuracy"] == 0.5
    assert brevity_report(["a b"], ["c d"])["shortcut_accuracy"] == 0.5
    assert brevity_report([], []) == {"pairs": 0}


WORDS = st.integers(1, 6).map(lambda n: "w " * n)


@given(st.lists(st.tuples(WORDS, WORDS), max_size=30))
def test_balanced_pairs_have_no_shortcut(pairs):
    ids = [str(k) for k in range(len(pairs))]
    chosen, rejected = [a for a, _ in pairs], [b for _, b in pairs]
    kept = length_balanced(ids, chosen, rejected)
    assert kept == sorted(set(kept))
    if kept:
        figures = brevity_report([chosen[k] for k in kept], [rejected[k] for k in kept])
        assert figures["shortcut_accuracy"] == pytest.approx(0.5)


def test_balancing_keeps_all_it_can_and_the_same_rows_each_time():
    chosen, rejected = ["a"] * 5 + ["a b c"] * 2 + ["a"], ["a b"] * 5 + ["b"] * 2 + ["c"]
    ids = [f"row{k}" for k in range(8)]
    kept = length_balanced(ids, chosen, rejected)
    assert len(kept) == 5
    assert {5, 6, 7} <= set(kept)
    assert length_balanced(ids, chosen, rejected) == kept
