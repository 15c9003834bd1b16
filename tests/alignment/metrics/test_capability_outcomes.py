import json
from typing import Any

import numpy as np
import pytest

from alignment.metrics.capability import judged
from alignment.metrics.confusion import INVALID, Confused, capability_metrics, capability_tables, confusion_of
from alignment.metrics.intervals import differences, summarise
from alignment.metrics.mcnemar import mcnemar
from alignment.metrics.outcomes import Outcome, score_answers
from data_builders.schema import user_turn
from rewards.rules.facts import Facts, Finding

STAGES = ("healthy", "early AMD", "intermediate AMD", "late dry AMD", "inactive late wet AMD", "active late wet AMD")
STAGE, REFERRAL = "stage, retina_amd@1", "referral, retina_referral@2"
SIGN_OF = {
    "early AMD": "drusen",
    "intermediate AMD": "serous_ped",
    "late dry AMD": "crora",
    "inactive late wet AMD": "shrm",
    "active late wet AMD": "subretinal_fluid",
}


def facts_of(stage: str) -> str:
    from rewards.rules.rule_set import load_rule_set

    found = dict.fromkeys(load_rule_set("retina_amd@1").findings, Finding(polarity="absent"))
    if stage != "healthy":
        found[SIGN_OF[stage]] = Finding(polarity="present", size="small" if stage == "early AMD" else None)
        implied = {"drusen": "rpe_elevation", "serous_ped": "ped", "crora": "hypertransmission"}
        for name in {implied.get(SIGN_OF[stage])} - {None}:
            found[name] = Finding(polarity="present", size="small" if name == "rpe_elevation" else None)
        for sign, more in (
            ("serous_ped", "rpe_elevation"),
            ("crora", "rpe_atrophy"),
            ("subretinal_fluid", "retinal_fluid"),
        ):
            if SIGN_OF[stage] == sign:
                found[more] = Finding(polarity="present")
    return Facts(rule_set="retina_amd@1", findings=found).to_json()


def row_of(
    stage: str = "early AMD", *, kind: str = "level", about: str = "stage", answer: str = "", n: int = 0, **more
) -> dict[str, Any]:
    return {
        "id": f"r{n}", "patient": f"p{n % 7}", "task": "staging", "capability": "staging", "answer": answer,
        "guidelines": ["retina_amd@1", "retina_referral@2"], "rule_set": "retina_amd@1", "facts": facts_of(stage),
        "provenance": json.dumps({"kind": kind, "about": about}), "prompt": user_turn("Which?"), "images": [],
        "boxes": None, "stage": "specialism", **more,
    }  # fmt: skip


def cells(table: dict[tuple[str, str], int], group: str = STAGE) -> list[dict[str, float]]:
    """One row of counts for each answer of a confusion."""
    return [{f"said[{group} | {t} | {s}]": 1.0} for (t, s), n in table.items() for _ in range(n)]


def values(counts: list[dict[str, float]]) -> dict[str, float]:
    outcomes = [Outcome(f"r{n}", f"p{n % 5}", "staging", None, c) for n, c in enumerate(counts)]
    return {name: metric.value for name, metric in summarise(outcomes, num_resamples=50).items()}


@pytest.mark.parametrize("stage", STAGES)
def test_the_true_stage_comes_from_the_facts_and_not_from_the_reference(stage):
    closed = judged(row_of(stage, answer="rubbish"), f"This is {stage}.")
    assert closed is not None
    assert (closed.group, closed.truth, closed.answer) == (STAGE, stage, stage)


def test_referral_names_the_policy_that_it_is_judged_by():
    row = row_of("early AMD", about="referral")
    new = judged(row, "Routine referral.")
    old = judged({**row, "guidelines": ["retina_amd@1", "retina_referral@1"]}, "Routine referral.")
    assert new is not None
    assert old is not None
    assert (new.group, new.truth) == (REFERRAL, "routine referral")
    assert (old.group, old.truth) == ("referral, retina_referral@1", "no referral")


def test_an_answer_that_chooses_nothing_is_invalid_with_its_reason():
    closed = judged(row_of(), "Early or intermediate.")
    assert closed is not None
    assert (closed.answer, closed.reason) == (None, "ambiguous")
    assert closed.counts == {f"said[{STAGE} | early AMD | {INVALID}]": 1.0}


@pytest.mark.parametrize(
    ("words", "said"), [("Yes.", "yes"), ("No. There is none.", "no"), ("It seems so", None), ("", None)]
)
def test_yes_and_no_are_read_from_where_they_decide(words, said):
    closed = judged(row_of(kind="presence", about="drusen", answer="Yes."), words)
    assert closed is not None
    assert (closed.group, closed.truth, closed.answer) == ("staging, yes or no", "yes", said)


def test_a_level_that_the_facts_leave_open_is_not_judged():
    unsized = Facts(rule_set="retina_amd@1", findings={"drusen": Finding(polarity="present")}).to_json()
    assert judged(row_of(facts=unsized), "Early AMD.") is None


def test_an_open_answer_is_judged_by_the_findings_that_its_reference_states():
    reference = "The scan shows drusen. There is no evidence of subretinal fluid."
    row = row_of(kind="describe", about="findings", answer=reference, task="report_writing")
    right, wrong = score_answers([row, row], [reference, "The scan shows subretinal fluid."])
    assert (right.counts["found"], right.counts["hallucinations"]) == (1.0, 0.0)
    assert (wrong.counts["omissions"], wrong.counts["hallucinations"]) == (1.0, 1.0)
    assert wrong.wrong == ("subretinal_fluid",)


def test_what_a_reference_leaves_out_is_judged_only_where_the_facts_do_not_know_it():
    facts = Facts(
        rule_set="retina_amd@1",
        findings={
            "drusen": Finding(polarity="present"),
            "shrm": Finding(polarity="present"),
            "fibrosis": Finding(polarity="absent"),
        },
    ).to_json()
    row = row_of(kind="describe", about="findings", answer="The scan shows drusen.", task="report_writing", facts=facts)
    said = "The scan shows drusen. The scan shows SHRM. The scan shows fibrosis. The scan shows retinal thinning."
    (outcome,) = score_answers([row], [said])
    # the SHRM is there, though it was not written down; fibrosis is denied, and thinning is not known
    assert outcome.wrong == ("fibrosis", "retinal_thinning")
    assert (outcome.counts["claims"], outcome.counts["true_findings"]) == (3.0, 1.0)
    assert "claims[shrm]" not in outcome.counts
    assert outcome.counts["claims[retinal_thinning]"] == 1.0


def test_open_answers_have_micro_and_macro_f1_over_findings():
    """Drusen: found 2 of 2, claimed 2 -> 1. Fluid: claimed once, not there -> 0. Macro 1/2; micro 2 * 2 / (3 + 2)."""
    reference = "The scan shows drusen. There is no evidence of subretinal fluid."
    row = row_of(kind="describe", about="findings", answer=reference, task="report_writing")
    said = [reference, "The scan shows drusen. The scan shows subretinal fluid."]
    found = summarise(score_answers([row, row | {"id": "other"}], said), num_resamples=20)
    assert found["macro_finding_f1"].value == pytest.approx(0.5)
    assert found["finding_f1"].value == pytest.approx(4 / 5)
    assert (found["finding_f1[drusen]"].value, found["finding_f1[subretinal_fluid]"].value) == (1.0, 0.0)


def test_micro_f1_over_all_classes_without_invalid_answers_is_accuracy():
    found = values(cells({("healthy", "healthy"): 6, ("early AMD", "early AMD"): 3, ("early AMD", "healthy"): 1}))
    assert found[f"micro_f1[{STAGE}]"] == pytest.approx(0.9)


def test_an_invalid_answer_lowers_recall_alone():
    """8 right, 2 invalid: TP 8, FP 0, FN 2, so F1 = 16 / 18."""
    found = values(cells({("healthy", "healthy"): 8, ("healthy", INVALID): 2}))
    assert found[f"micro_f1[{STAGE}]"] == pytest.approx(16 / 18)
    assert found[f"invalid_rate[{STAGE}]"] == pytest.approx(0.2)


def test_macro_f1_is_the_mean_over_classes_that_occur():
    """healthy: TP 6, FP 1, FN 0 -> 12/13; early: TP 3, FP 0, FN 1 -> 6/7; the others do not occur."""
    found = values(cells({("healthy", "healthy"): 6, ("early AMD", "early AMD"): 3, ("early AMD", "healthy"): 1}))
    assert found[f"macro_f1[{STAGE}]"] == pytest.approx((12 / 13 + 6 / 7) / 2)
    assert found[f"class_f1[{STAGE}: healthy]"] == pytest.approx(12 / 13)
    assert f"class_f1[{STAGE}: late dry AMD]" not in found


def test_a_constant_answer_has_the_known_values():
    """Opticians in RetinaVLM: always the next two weeks. 2 of 6 right, kappa 0, nobody referred too late."""
    levels = ("no referral", "routine referral", "urgent referral")
    found = values(cells({(level, "urgent referral"): 2 for level in levels}, REFERRAL))
    assert found[f"micro_f1[{REFERRAL}]"] == pytest.approx(1 / 3)
    assert found[f"macro_f1[{REFERRAL}]"] == pytest.approx(0.5 / 3)
    assert found[f"weighted_kappa[{REFERRAL}]"] == pytest.approx(0.0)
    assert found[f"under_referral[{REFERRAL}]"] == 0.0
    assert found[f"over_referral[{REFERRAL}]"] == 1.0


def test_weighted_kappa_by_hand():
    """Observed cost 1 (one neighbour), by chance (2*1*1 + 2*... ) as below: 1 - 1 / 2 for this table."""
    table = {
        ("healthy", "healthy"): 1,
        ("early AMD", "early AMD"): 1,
        ("early AMD", "healthy"): 1,
        ("healthy", "early AMD"): 0,
    }
    truth, said = {"healthy": 1, "early AMD": 2}, {"healthy": 2, "early AMD": 1}
    by_chance = (truth["healthy"] * said["early AMD"] + truth["early AMD"] * said["healthy"]) / 3
    found = values(cells({key: n for key, n in table.items() if n}))
    assert found[f"weighted_kappa[{STAGE}]"] == pytest.approx(1 - 1 / by_chance)


def test_an_error_far_off_costs_kappa_more_than_a_near_one():
    base = {(stage, stage): 5 for stage in STAGES}
    near = values(cells({**base, ("healthy", "early AMD"): 3}))[f"weighted_kappa[{STAGE}]"]
    far = values(cells({**base, ("healthy", "active late wet AMD"): 3}))[f"weighted_kappa[{STAGE}]"]
    assert far < near < 1.0


def test_under_referral_counts_the_lower_level_among_those_who_need_one():
    counts = cells({("urgent referral", "routine referral"): 1, ("routine referral", "routine referral"): 2,
                    ("no referral", "urgent referral"): 1, ("urgent referral", INVALID): 1}, REFERRAL)  # fmt: skip
    found = values(counts)
    assert found[f"under_referral[{REFERRAL}]"] == pytest.approx(1 / 4)
    assert found[f"over_referral[{REFERRAL}]"] == pytest.approx(1 / 3)


def test_yes_or_no_has_micro_f1_over_yes_and_macro_f1_over_both():
    counts = cells({("yes", "yes"): 3, ("no", "yes"): 1, ("no", "no"): 4}, "biomarkers, yes or no")
    found = values(counts)
    assert found["micro_f1[biomarkers, yes or no]"] == pytest.approx(6 / 7)
    assert found["macro_f1[biomarkers, yes or no]"] == pytest.approx((6 / 7 + 8 / 9) / 2)


def test_the_interval_is_by_patient_and_the_difference_is_paired():
    rows = [row_of(stage, n=n) for n, stage in enumerate(STAGES * 5)]
    right = score_answers(rows, [f"{stage}." for stage in STAGES * 5])
    worse = score_answers(rows, ["Healthy."] * len(rows))
    metric = summarise(worse, num_resamples=200)[f"micro_f1[{STAGE}]"]
    assert metric.low is not None
    assert metric.high is not None
    assert metric.num_patients == 7
    assert metric.value == pytest.approx(1 / 6)
    assert metric.low < metric.value < metric.high
    change = differences(worse, right, num_resamples=200)[f"micro_f1[{STAGE}]"]
    assert change.value == pytest.approx(5 / 6)
    assert change.low is not None
    assert change.low > 0.5


def test_mcnemar_is_the_exact_binomial_of_the_rows_that_differ():
    before = cells({("healthy", "early AMD"): 6, ("healthy", "healthy"): 4})
    after = cells({("healthy", "healthy"): 9, ("healthy", INVALID): 1})
    found = mcnemar(before, after)[STAGE]
    assert (found.only_before, found.only_after) == (1, 6)
    assert found.p == pytest.approx(2 * (1 + 7) / 2**7)
    same = mcnemar(before, before)[STAGE]
    assert (same.only_before, same.only_after, same.p) == (0, 0, 1.0)


def test_the_confusion_has_an_invalid_column_and_levels_in_their_order():
    counts = cells({("early AMD", "healthy"): 2, ("healthy", INVALID): 1, ("active late wet AMD", "early AMD"): 1})
    assert confusion_of(counts)[STAGE]["healthy"] == {INVALID: 1}
    (table,) = capability_tables({"sft": [{"counts": c} for c in counts]})
    assert (table["stage"], table["node"]) == ("sft", STAGE)
    assert table["said"] == ["healthy", "early AMD", "active late wet AMD", INVALID]


def test_groups_of_other_counts_make_no_metric():
    assert capability_metrics([{"claims": 1.0}]) == {}


def test_a_table_without_counts_has_no_value():
    metric = Confused("micro_f1", STAGE, STAGES, STAGES)
    assert np.isnan(metric.value(np.zeros((1, 6, 7)))).all()
