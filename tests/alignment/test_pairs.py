from alignment.pairs import worst_of
from alignment.recipe import Sampling
from rewards.facts import Facts, Finding

TRUTH = Facts(
    rule_set="chest_xray@1",
    findings={
        "nodule": Finding(polarity="present", side="left", size="small"),
        "effusion": Finding(polarity="absent"),
    },
)
RIGHT = "There is a small nodule on the left. No effusion."
OMITS = "No nodule. No effusion."
INVENTS = "There is a small nodule on the left. There is a large effusion on the left."


def test_the_invention_is_taken_over_the_omission():
    assert worst_of(TRUTH, [RIGHT, OMITS, INVENTS], Sampling()) == (INVENTS, 1.5)


def test_an_omission_weighs_less():
    assert worst_of(TRUTH, [RIGHT, OMITS], Sampling()) == (OMITS, 0.75)


def test_right_and_unreadable_reports_make_no_pair():
    assert worst_of(TRUTH, [RIGHT, "", "qwerty"], Sampling()) is None


def test_the_wrong_side_is_an_invention():
    swapped = "There is a small nodule on the right. No effusion."
    assert worst_of(TRUTH, [swapped], Sampling()) == (swapped, 1.5)
