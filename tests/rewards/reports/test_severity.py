"""Severities by hand from ``chest_xray``: finding x kind (missed 0.5, size 0.3, count 0.3, else 1.0)."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_builders.rendering.corrupt import options
from data_builders.rendering.render import report
from rewards.reports.severity import errors_of, severity_of
from rewards.rules.compare import Comparison
from rewards.rules.facts import Facts, Finding
from rewards.rules.rule_set import load_rule_set

CHEST = load_rule_set("chest_xray")
TRUTH = Facts(
    rule_set="chest_xray@1",
    findings={
        "nodule": Finding(polarity="present", side="left", size="small"),
        "effusion": Finding(polarity="present", side="right", size="large"),
        "pneumothorax": Finding(polarity="absent"),
        "cardiomegaly": Finding(polarity="absent"),
        "consolidation": Finding(polarity="uncertain"),
    },
)
NODULE, EFFUSION = "There is a small nodule on the left.", "There is a large effusion on the right."


@pytest.mark.parametrize(
    ("response", "errors", "want"),
    [
        (f"{NODULE} {EFFUSION}", [], None),
        (f"{NODULE} {EFFUSION} There is cardiomegaly.", [("cardiomegaly", "invented")], 0.5),
        # the gravest counts, wherever it stands, and not the sum: max(0.5, 1.0)
        (
            f"{NODULE} {EFFUSION} There is cardiomegaly. There is a large pneumothorax on the left.",
            [("cardiomegaly", "invented"), ("pneumothorax", "invented")],
            1.0,
        ),
        (f"{NODULE} No effusion.", [("effusion", "missed")], 0.7 * 0.5),
        (f"{EFFUSION}", [("nodule", "missed")], 0.9 * 0.5),
        # max(cardiomegaly invented 0.5, nodule missed 0.45)
        (f"{EFFUSION} There is cardiomegaly.", [("cardiomegaly", "invented"), ("nodule", "missed")], 0.5),
        (f"There is a small nodule on the right. {EFFUSION}", [("nodule", "side")], 0.9),
        (f"There is a large nodule on the left. {EFFUSION}", [("nodule", "size")], 0.9 * 0.3),
        (
            f"There is a large nodule on the right. {EFFUSION}",
            [("nodule", "side"), ("nodule", "size")],
            0.9,
        ),
        # what the truth is uncertain about is not judged
        (f"{NODULE} {EFFUSION} There is a consolidation on the left.", [], None),
    ],
)
def test_the_gravest_error_counts(response, errors, want):
    from rewards.reading.reading import read

    assert errors_of(TRUTH, read(response, CHEST).facts) == errors
    assert severity_of(TRUTH, response) == (None if want is None else pytest.approx(want))


@pytest.mark.skipif(not hasattr(Comparison, "unsupported"), reason="compare does not judge such claims yet")
def test_a_claim_of_which_the_truth_knows_nothing_is_invented():
    report_of_one = Facts(rule_set="chest_xray@1", findings={"nodule": Finding(polarity="present", side="left")})
    assert severity_of(report_of_one, f"{NODULE} There is a large effusion on the left.") == 0.7


def test_a_wrong_count_is_an_error_of_its_own():
    smear = load_rule_set("blood_smear")
    name = next(name for name, rule in smear.findings.items() if rule.counted)
    truth = Facts(rule_set=smear.id, findings={name: Finding(polarity="present", count=4)})
    claimed = Facts(rule_set=smear.id, findings={name: Finding(polarity="present", count=3)})
    assert errors_of(truth, claimed) == [(name, "count")]
    assert errors_of(truth, truth) == []


STATES = st.sampled_from(
    [
        Finding(polarity="absent"),
        *(Finding(polarity="present", side=s, size=z) for s in ("left", "right") for z in ("small", "large")),
    ]
)
FACTS = st.fixed_dictionaries(
    {name: STATES for name in ("nodule", "consolidation", "effusion", "pneumothorax")}
    | {"cardiomegaly": st.sampled_from([Finding(polarity="absent"), Finding(polarity="present")])}
).map(lambda findings: Facts(rule_set="chest_xray@1", findings=findings))


@given(FACTS, st.randoms(use_true_random=False))
def test_a_corruption_is_read_back_as_the_one_error_that_it_is(truth, rng):
    """The severity of ``corrupt`` and that of its report read back are one."""
    kind, name, wrong = rng.choice(options(truth, CHEST))
    said = truth.model_copy(update={"findings": {**truth.findings, name: wrong}})
    assert errors_of(truth, said) == [(name, kind)]
    assert severity_of(truth, report(said, CHEST)) == CHEST.severity(name, kind)
    assert severity_of(truth, report(truth, CHEST, rng=random.Random(0))) is None
