"""Laws of facts that know only part: a report is worth 1 by its own facts, inventing costs, denying is free."""

import random
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_builders.rendering.corrupt import corrupt
from data_builders.rendering.render import report, sentence
from rewards.reading.reading import read
from rewards.reports.factuality import factuality
from rewards.reports.finding_f1 import finding_f1
from rewards.rules.facts import Facts, Finding
from rewards.rules.rule_set import load_rule_set, shipped
from tests.data_builders.rendering.test_words import findings_of

WITH_FINDINGS = [name for name in shipped() if load_rule_set(name).findings]
"""Also those that ignore what is not known: the knob is set here."""


@cache
def some_facts(name):
    """Facts that know some findings of a rule set, and doubt some."""
    rules = load_rule_set(name)
    possible = st.just(Finding(polarity="uncertain"))
    parts = {finding: st.one_of(findings_of(rule), possible) for finding, rule in rules.findings.items()}
    return st.fixed_dictionaries({}, optional=parts).map(lambda f: Facts(rule_set=rules.id, findings=f).without_boxes())


CASES = st.one_of([st.tuples(st.just(load_rule_set(name)), some_facts(name)) for name in WITH_FINDINGS])


def paid(text, truth):
    told, reference = truth.to_json(), report(truth, load_rule_set(truth.rule_set))
    return (
        finding_f1(text, told, unsupported="wrong"),
        factuality(text, told, reference, "report", unsupported="wrong"),
    )


@given(CASES)
def test_the_true_report_is_worth_one_whatever_the_truth_knows(case):
    rules, facts = case
    if facts.findings:
        assert paid(report(facts, rules), facts) == (pytest.approx(1.0), pytest.approx(1.0))


@given(CASES)
def test_nothing_is_earned_by_saying_nothing(case):
    _, facts = case
    assert paid("", facts) == paid("The weather is fine.", facts) == (0.0, 0.0)


@given(CASES, st.data())
def test_a_claim_of_what_is_not_known_costs_and_its_denial_does_not(case, data):
    rules, facts = case
    unknown = [name for name in rules.findings if name not in facts.findings]
    if not unknown or not facts.findings:
        return
    name = data.draw(st.sampled_from(unknown))
    rule, honest = rules.findings[name], report(facts, rules)
    invented = f"{honest} {sentence(Finding(polarity='present'), rule, rules)}"
    denied = f"{honest} {sentence(Finding(polarity='absent'), rule, rules)}"
    assert all(more < honest_one for more, honest_one in zip(paid(invented, facts), paid(honest, facts), strict=True))
    assert paid(denied, facts) == (pytest.approx(1.0), pytest.approx(1.0))


@given(CASES, st.integers(0, 10_000))
def test_a_corrupted_report_is_worth_less_whatever_the_truth_knows(case, seed):
    rules, facts = case
    wrong = corrupt(facts, rules, random.Random(seed))
    if wrong is not None:
        honest, false = paid(report(facts, rules), facts), paid(report(wrong.facts, rules), facts)
        assert false[0] < honest[0]
        assert false[1] < honest[1]


PROSE = [
    "No acute cardiopulmonary process.",
    "Normal chest.",
    "IMPRESSION: No acute disease. FINDINGS: Stable cardiomegaly with a small left effusion.",
    "Small left effusion. No acute process otherwise.",
    "Possible pneumonia. Lungs otherwise clear.",
    "There is a 12 mm nodule in the left upper lobe and bibasilar atelectasis. No pneumothorax.",
    "Effusion on the left. No effusion.",
]


@pytest.mark.parametrize("text", PROSE)
def test_a_written_report_is_worth_one_by_the_facts_that_are_read_from_it(text):
    truth = read(text, load_rule_set("chest_report")).facts
    told = truth.to_json()
    assert (finding_f1(text, told), factuality(text, told, text, "report")) == (1.0, 1.0)
    for name, rule in load_rule_set("chest_report").findings.items():
        if name not in truth.findings:
            more = f"{text} There is {rule.name}."
            assert finding_f1(more, told) < 1.0 > factuality(more, told, text, "report")
