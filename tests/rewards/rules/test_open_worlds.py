"""What the truth does not know: claimed it is wrong, denied it is nothing. Every figure is worked by hand beside it."""

import pytest

from rewards.config.input_error import InputError
from rewards.loading import load_reward
from rewards.reading.reading import read
from rewards.reports.factuality import components as factuality_components
from rewards.reports.factuality import factuality
from rewards.reports.finding_f1 import components, finding_f1
from rewards.rules.compare import claims_nothing, compare
from rewards.rules.facts import Facts, Finding
from rewards.rules.rule_set import load_rule_set

PRESENT, ABSENT = Finding(polarity="present"), Finding(polarity="absent")
POSSIBLE = Finding(polarity="uncertain")
REPORT = load_rule_set("chest_report")
NORMAL = "No acute cardiopulmonary process."


def facts(rules="chest_report@1", **findings):
    return Facts(rule_set=rules, findings=findings)


def paid(response, truth):
    """By finding_f1 and by factuality."""
    told = truth.to_json()
    return finding_f1(response, told), factuality(response, told, "", "report")


def test_a_claim_that_the_truth_does_not_know_is_a_hallucination_and_a_denial_is_nothing():
    found = compare(facts(nodule=PRESENT), facts(nodule=PRESENT, mass=PRESENT, edema=ABSENT))
    assert (found.claims, found.hallucinations, found.unsupported) == (("nodule", "mass"), ("mass",), ("mass",))
    assert (found.found, found.omissions) == (("nodule",), ())


def test_where_it_is_ignored_it_is_listed_and_no_claim():
    found = compare(facts(nodule=PRESENT), facts(mass=PRESENT), unsupported="ignore")
    assert (found.claims, found.hallucinations, found.unsupported) == ((), (), ("mass",))


def test_the_rule_set_of_the_truth_decides_where_nothing_is_said():
    told = compare(facts("lung_ct@1", mass=PRESENT), facts("lung_ct@1", heart=PRESENT))
    assert (told.claims, told.unsupported) == ((), ("heart",))


def test_what_the_truth_doubts_is_neither_wrong_nor_unsupported():
    found = compare(facts(nodule=POSSIBLE), facts(nodule=PRESENT))
    assert (found.claims, found.hallucinations, found.unsupported) == ((), (), ())


def test_the_truth_with_every_unmentioned_finding_scores_far_below_the_honest_report():
    honest = "There is a small nodule (left)."
    truth = read(honest, REPORT).facts
    others = [rule.name for name, rule in REPORT.findings.items() if name != "nodule"]
    spam = " ".join([honest, *(f"There is {other}." for other in others)])
    assert len(read(spam, REPORT).facts.present()) == len(REPORT.findings)
    assert paid(honest, truth) == (1.0, 1.0)
    # P 1/32, R 1: F1 = 2/33; factuality: 2/33 less 0.5 x 31, at the floor of 0
    assert len(others) == 31
    assert paid(spam, truth) == (pytest.approx(2 / 33), 0.0)


@pytest.mark.parametrize(
    ("said", "f1", "fact"),
    [
        ("Nodule. Effusion.", 1.0, 1.0),
        # f1: P 2/3, R 1. factuality: 2 x 2 / (3 + 2) = 0.8, less 0.5 x 1/2
        ("Nodule. Effusion. Mass.", 0.8, 0.55),
        # called possible it is claimed, and no contradiction
        ("Nodule. Effusion. Possible mass.", 0.8, 0.8),
        # said and taken back in one report: claimed and contradicted
        ("Nodule. Effusion. Mass. No mass.", 0.8, 0.55),
        # a denial changes nothing
        ("Nodule. Effusion. No mass. No edema.", 1.0, 1.0),
        # beside an omission: f1: P 1/2, R 1/2; factuality: 2 x 1 / (2 + 2), less 0.5 x 1/2
        ("Nodule. Mass.", 0.5, 0.25),
    ],
)
def test_what_is_not_known_is_paid_as_worked_by_hand(said, f1, fact):
    assert paid(said, facts(nodule=PRESENT, effusion=PRESENT)) == (pytest.approx(f1), pytest.approx(fact))


def test_the_knob_outweighs_the_rule_set_both_ways():
    told, said = facts(nodule=PRESENT).to_json(), "Nodule. Mass."
    assert finding_f1(said, told, unsupported="ignore") == 1.0
    assert factuality(said, told, "", "report", unsupported="ignore") == 1.0
    told, said = facts("lung_ct@1", mass=PRESENT).to_json(), "There is a mass. There is a heart."
    assert (finding_f1(said, told), factuality(said, told, "", "report")) == (1.0, 1.0)
    assert finding_f1(said, told, unsupported="wrong") == pytest.approx(2 / 3)
    # 2 x 1 / (2 + 1), less 0.5 x 1/1
    assert factuality(said, told, "", "report", unsupported="wrong") == pytest.approx(2 / 3 - 0.5)


def test_a_recipe_sets_the_knob_and_a_wrong_word_is_refused():
    assert load_reward("finding_f1", unsupported="ignore")("Nodule. Mass.", facts=facts(nodule=PRESENT).to_json()) == 1
    with pytest.raises(InputError, match="knob 'unsupported'"):
        load_reward("factuality", unsupported="wrnog")


def test_the_components_tell_how_many_claims_were_not_known():
    told = facts(nodule=PRESENT).to_json()
    parts = components("Nodule. Mass. Edema.", told)
    assert (parts["claims"], parts["hallucinations"], parts["unsupported"]) == (3, 2, 2)
    assert parts["precision"] == pytest.approx(1 / 3)
    assert factuality_components("Nodule. Mass.", told, "", "report") == {
        "precision": 0.5,
        "recall": 1.0,
        "contradicted": 1.0,
    }


def test_a_normal_study_pays_its_own_report_and_no_invention_and_no_silence():
    truth = read(NORMAL, REPORT).facts
    assert paid(NORMAL, truth) == (1.0, 1.0)
    # all eight denied in words of their own earn the same
    denied = " ".join(f"No {REPORT.findings[name].name}." for name in truth.findings)
    assert paid(denied, truth) == (1.0, 1.0)
    assert paid("", truth) == paid("The weather is fine.", truth) == (0.0, 0.0)
    # known 8 x 0.25 = 2. One invention of what is not known: P 2/3, R 1; 2 x 2 / (3 + 2) less 0.5 x 1/2
    assert paid(f"{NORMAL} There is a mass.", truth) == (pytest.approx(0.8), pytest.approx(0.55))


@pytest.mark.parametrize(
    ("truth", "said", "want"),
    [
        (facts(), "", 0.0),
        (facts(), "The weather is fine.", 0.0),
        (facts(), "No effusion.", 1.0),
        (facts(), NORMAL, 1.0),
        (facts(), "There is a mass.", 0.0),
        (facts(), "No effusion. There is a mass.", 0.0),
        (facts(), "Possible mass. No effusion.", 0.0),
        (facts(nodule=POSSIBLE), "Possible nodule.", 1.0),
        (facts(nodule=POSSIBLE), "", 0.0),
    ],
)
def test_where_nothing_is_known_only_a_report_that_claims_nothing_earns(truth, said, want):
    assert paid(said, truth) == (want, want)


def test_absent_findings_of_no_weight_leave_nothing_to_earn_by_either():
    told = facts(effusion=ABSENT).to_json()
    for reward in (finding_f1, lambda *a, **k: factuality(*a, "", "report", **k)):
        assert reward("No effusion.", told, absent_weight=0.0) == 1.0
        assert reward("There is an effusion.", told, absent_weight=0.0) == 0.0
        assert reward("", told, absent_weight=0.0) == 0.0


def test_a_text_without_a_word_on_findings_claims_nothing_and_does_not_say_so():
    assert claims_nothing(facts(), facts(effusion=ABSENT))
    assert not claims_nothing(facts(), facts())
    assert not claims_nothing(facts(nodule=POSSIBLE), facts(effusion=ABSENT))


def test_a_report_that_contradicts_itself_is_as_true_as_itself():
    said = "There is an effusion. No effusion. There is a nodule (left)."
    assert paid(said, read(said, REPORT).facts) == (1.0, 1.0)
