import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_builders.rendering.corrupt import corrupt, options
from data_builders.rendering.render import report
from rewards.reports.finding_f1 import finding_f1
from rewards.rules.facts import Facts, Finding
from rewards.rules.rule_set import load_rule_set

CHEST, SMEAR = load_rule_set("chest_xray"), load_rule_set("blood_smear")
NODULE = Finding(polarity="present", side="left", size="small", boxes=((1, 2, 3, 4),))
ABSENT = Finding(polarity="absent")


def wrongs(finding, *, name="nodule", rules=CHEST):
    return [o for o in options(Facts(rule_set=rules.id, findings={name: finding}), rules) if o[1] == name]


def test_a_present_finding_can_be_missed_or_put_on_the_other_side_or_in_the_other_size():
    assert [(kind, wrong.polarity, wrong.side, wrong.size) for kind, _, wrong in wrongs(NODULE)] == [
        ("missed", "absent", None, None),
        ("side", "present", "right", "small"),
        ("size", "present", "left", "large"),
    ]


def test_an_absent_finding_can_be_invented_on_any_side_in_any_size():
    invented = [(kind, wrong.side, wrong.size) for kind, _, wrong in wrongs(ABSENT)]
    assert invented == [("invented", a, b) for a in ("left", "right") for b in ("small", "large")]


def test_a_count_is_misstated_nearby_and_stays_a_count():
    counts = [
        w.count
        for kind, _, w in wrongs(Finding(polarity="present", count=2), name="platelets", rules=SMEAR)
        if kind == "count"
    ]
    assert counts == [1, 3, 4]


def test_nothing_is_claimed_of_what_is_uncertain_and_nothing_is_made_of_empty_facts():
    assert wrongs(Finding(polarity="uncertain", side="left")) == []
    assert options(Facts(rule_set=CHEST.id), CHEST) == []


def test_what_is_not_known_is_invented_where_nothing_is_denied_and_never_denied():
    open_world = Facts(rule_set=CHEST.id, findings={"nodule": NODULE})
    others = [(kind, name) for kind, name, _ in options(open_world, CHEST) if name != "nodule"]
    assert {kind for kind, _ in others} == {"invented"}
    assert {name for _, name in others} == CHEST.findings.keys() - {"nodule"}
    denied = Facts(rule_set=CHEST.id, findings={"nodule": NODULE, "effusion": ABSENT})
    assert {name for kind, name, _ in options(denied, CHEST) if kind == "invented"} == {"effusion"}


def test_what_is_not_known_is_not_invented_where_the_rule_set_ignores_it():
    ignoring = CHEST.model_copy(update={"unsupported": "ignore"})
    open_world = Facts(rule_set=CHEST.id, findings={"nodule": NODULE})
    assert {name for _, name, _ in options(open_world, ignoring)} == {"nodule"}


@given(st.integers(0, 10_000))
def test_the_true_report_earns_more_also_where_its_facts_know_little(seed):
    facts = Facts(rule_set=CHEST.id, findings={"nodule": NODULE})
    wrong = corrupt(facts, CHEST, random.Random(seed))
    true, false = (finding_f1(report(f, CHEST, rng=random.Random(seed)), facts.to_json()) for f in (facts, wrong.facts))
    assert true == 1.0 > false


def test_a_side_that_the_truth_does_not_state_is_not_misstated():
    assert [kind for kind, _, _ in wrongs(Finding(polarity="present"))] == ["missed"]


def test_an_error_that_the_words_would_not_show_is_not_made():
    wordless = CHEST.wording.model_copy(update={"present": ["There is {name}."]})
    rules = CHEST.model_copy(update={"wording": wordless})
    assert [kind for kind, _, _ in wrongs(NODULE, rules=rules)] == ["missed"]


def test_no_wrong_version_keeps_the_true_boxes():
    assert [wrong.boxes for _, _, wrong in wrongs(NODULE)] == [(), (), ()]


@pytest.mark.parametrize(
    ("finding", "kind", "severity"), [(ABSENT, "invented", 0.9), (NODULE, "missed", 0.45), (NODULE, "size", 0.27)]
)
def test_severity_is_that_of_the_finding_times_that_of_the_error(finding, kind, severity):
    wrong = corrupt(Facts(rule_set=CHEST.id, findings={"nodule": finding}), CHEST, random.Random(0), kinds=(kind,))
    assert wrong is not None
    assert (wrong.kind, wrong.finding) == (kind, "nodule")
    assert wrong.severity == pytest.approx(severity)


def test_one_finding_is_wrong_and_all_others_stay():
    facts = Facts(rule_set=CHEST.id, findings={"nodule": NODULE, "effusion": ABSENT, "cardiomegaly": ABSENT})
    for seed in range(30):
        wrong = corrupt(facts, CHEST, random.Random(seed))
        assert wrong is not None
        assert {n for n in facts.findings if facts.findings[n] != wrong.facts.findings[n]} == {wrong.finding}


def test_the_same_generator_makes_the_same_error():
    facts = Facts(rule_set=CHEST.id, findings={"nodule": NODULE, "effusion": ABSENT})
    assert corrupt(facts, CHEST, random.Random(5)) == corrupt(facts, CHEST, random.Random(5))


def test_kinds_of_error_are_about_as_frequent_whatever_room_each_has():
    facts = Facts(rule_set=CHEST.id, findings={"nodule": NODULE, "effusion": ABSENT, "pneumothorax": ABSENT})
    kinds = Counter(corrupt(facts, CHEST, random.Random(seed)).kind for seed in range(400))
    assert set(kinds) == {"missed", "invented", "side", "size"}
    assert min(kinds.values()) > 70


@given(st.integers(0, 10_000))
def test_the_true_report_earns_more_in_any_wording(seed):
    facts = Facts(rule_set=CHEST.id, findings={"nodule": NODULE, "effusion": ABSENT, "cardiomegaly": ABSENT})
    wrong = corrupt(facts, CHEST, random.Random(seed))
    true, false = (finding_f1(report(f, CHEST, rng=random.Random(seed)), facts.to_json()) for f in (facts, wrong.facts))
    assert true > false
