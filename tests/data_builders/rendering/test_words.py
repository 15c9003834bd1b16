"""The two laws of the loop: what is rendered reads back, and the truth earns more than any corruption of it."""

import random
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_builders.rendering.corrupt import corrupt, options
from data_builders.rendering.render import questions, report
from rewards.reading.reading import read
from rewards.reports.finding_f1 import finding_f1
from rewards.rules.facts import Facts, Finding
from rewards.rules.rule_set import load_rule_set, shipped

ALL_TASKS = ("presence", "side", "size", "count", "box", "report")


def findings_of(rule):
    """A strategy for one finding under its rule."""
    counts = st.integers(1, 30) if rule.counted else st.none()
    box = st.tuples(*[st.integers(0, 49)] * 2, *[st.integers(50, 100)] * 2).map(lambda b: tuple(map(float, b)))
    present = st.builds(
        Finding,
        polarity=st.just("present"),
        side=st.sampled_from(rule.sides) if rule.sides else st.none(),
        size=st.sampled_from(rule.sizes) if rule.sizes else st.none(),
        count=counts,
        boxes=st.lists(box, min_size=1, max_size=2).map(tuple),
    )
    absent = st.just(Finding(polarity="absent", count=0 if rule.counted else None))
    return st.one_of(present, absent)


@cache
def facts_of(name):
    rules = load_rule_set(name)
    parts = {finding: findings_of(rule) for finding, rule in rules.findings.items()}
    return st.fixed_dictionaries(parts).map(lambda f: Facts(rule_set=rules.id, findings=f))


WITH_FINDINGS = [name for name in shipped() if load_rule_set(name).findings]
CASES = st.one_of([st.tuples(st.just(load_rule_set(name)), facts_of(name)) for name in WITH_FINDINGS])
SEEDS = st.one_of(st.none(), st.integers(0, 99).map(random.Random))


@given(CASES, SEEDS)
def test_a_rendered_report_reads_back_to_its_facts(case, rng):
    rules, facts = case
    reading = read(report(facts, rules, rng=rng), rules)
    assert reading.facts == facts.without_boxes()
    assert not reading.unread
    assert not reading.conflicts


@given(CASES)
def test_a_box_answer_reads_back_to_its_finding_and_boxes(case):
    rules, facts = case
    for asked in questions(facts, rules, "box"):
        assert read(asked.answer, rules).facts.findings[asked.finding].boxes == asked.boxes


@given(CASES, st.integers(0, 10_000))
def test_the_truth_earns_more_than_a_corruption_of_it(case, seed):
    rules, facts = case
    wrong = corrupt(facts, rules, random.Random(seed))
    assert wrong is not None
    truth = facts.to_json()
    assert finding_f1(report(facts, rules), truth) == pytest.approx(1.0)
    assert finding_f1(report(wrong.facts, rules), truth) < 1.0


@given(CASES)
def test_no_corruption_is_accidentally_true_and_each_has_a_severity(case):
    rules, facts = case
    for kind, name, wrong in options(facts, rules):
        assert wrong != facts.findings[name].model_copy(update={"boxes": ()})
        assert 0 <= rules.severity(name, kind) <= 1


@given(CASES)
def test_every_question_has_an_answer_and_names_no_answer(case):
    rules, facts = case
    for task in ALL_TASKS:
        for asked in questions(facts, rules, task):
            assert asked.answer
            assert asked.answer not in asked.question.split()


def test_presence_is_asked_of_every_known_finding():
    rules = load_rule_set("chest_xray")
    facts = Facts(rule_set=rules.id, findings={"nodule": Finding(polarity="absent")})
    (asked,) = questions(facts, rules, "presence")
    assert (asked.question, asked.answer) == ("Is there a nodule?", "No")


def test_corrupt_keeps_to_the_kinds_it_is_given():
    rules = load_rule_set("chest_xray")
    facts = Facts(rule_set=rules.id, findings={"nodule": Finding(polarity="absent")})
    assert corrupt(facts, rules, random.Random(0), kinds=("missed",)) is None
    assert corrupt(facts, rules, random.Random(0), kinds=("invented",)).finding == "nodule"
