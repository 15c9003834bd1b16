"""Golden figures: every expected number is worked out by hand in the comment beside it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.metrics.intervals import differences, summarise
from alignment.metrics.outcomes import matched_ious, question_finding, score_answers
from alignment.metrics.ratios import LOWER_IS_BETTER, RATIOS, ratios_in
from alignment.metrics.unjudged import BY_EQUALITY, why_unjudged
from data_builders.schema import user_turn
from rewards.answers.final_answer import final_words
from rewards.rules.facts import Facts, Finding
from rewards.rules.rule_set import load_rule_set

PRESENT, ABSENT = Finding(polarity="present"), Finding(polarity="absent")
LEFT_NODULE = Finding(polarity="present", side="left", size="small")


def row(task, question, *, patient="p1", answer=None, boxes=None, **findings):
    facts = Facts(rule_set="chest_xray@1", findings=findings).to_json()
    return {
        "id": f"{patient}-{question}", "patient": patient, "task": task, "prompt": user_turn(question),
        "answer": answer, "boxes": boxes, "facts": facts, "rule_set": "chest_xray@1",
    }  # fmt: skip


def values(rows, answers):
    return {name: metric.value for name, metric in summarise(score_answers(rows, answers)).items()}


def test_closed_answers_are_folded_and_read_from_tags():
    rows = [row("side", "On which side is the nodule?", answer="Left", patient=str(n)) for n in range(5)]
    answers = ["left", "LEFT.", "<think>x</think><answer>left</answer>", "the left", "<answer>left"]
    # 3 of 5: "the left" is not the answer, an open tag is no answer
    assert values(rows, answers) == pytest.approx({"closed_accuracy": 0.6, "side_accuracy": 0.6})


def test_balanced_accuracy_gives_a_constant_yes_one_half():
    rows = [row("presence", "Is there a nodule?", answer=a, patient=str(n)) for n, a in enumerate(["Yes"] * 9 + ["No"])]
    found = values(rows, ["Yes"] * 10)
    # closed 9/10; balanced (9/9 + 0/1) / 2; the same of the only finding
    assert found == pytest.approx(
        {"closed_accuracy": 0.9, "closed_accuracy_read": 0.9, "closed_unread": 0.0, "macro_balanced_accuracy": 0.5}
        | {f"{name}{of}": value for of in ("", "[nodule]")
           for name, value in (("balanced_accuracy", 0.5), ("sensitivity", 1.0), ("specificity", 0.0))}
    )  # fmt: skip


def presence(finding, truths):
    words = {"nodule": "nodule", "effusion": "pleural effusion"}[finding]
    return [row("presence", f"Is there a {words}?", answer=a, patient=str(n)) for n, a in enumerate(truths)]


def test_a_finding_that_is_always_denied_shows_beside_the_pooled_figure():
    """Nodule (4 yes, 4 no) all right; effusion (1 yes, 7 no) always denied."""
    rows = [*presence("nodule", ["Yes"] * 4 + ["No"] * 4), *presence("effusion", ["Yes"] + ["No"] * 7)]
    found = values(rows, ["Yes"] * 4 + ["No"] * 12)
    # pooled: yes 4 of 5, no 11 of 11: (0.8 + 1) / 2
    assert found["balanced_accuracy"] == pytest.approx(0.9)
    assert (found["sensitivity"], found["specificity"]) == pytest.approx((0.8, 1.0))
    # of the effusion: yes 0 of 1, no 7 of 7: (0 + 1) / 2
    assert found["sensitivity[effusion]"] == 0.0
    assert found["specificity[effusion]"] == 1.0
    assert found["balanced_accuracy[effusion]"] == pytest.approx(0.5)
    assert found["balanced_accuracy[nodule]"] == 1.0
    assert found["macro_balanced_accuracy"] == pytest.approx((1.0 + 0.5) / 2)


def test_a_finding_without_both_answers_is_left_out_of_the_macro_mean():
    rows = [*presence("nodule", ["Yes", "No"]), *presence("effusion", ["No", "No"])]
    found = values(rows, ["Yes", "Yes", "Yes", "Yes"])
    # nodule (1/1 + 0/1) / 2; the effusion is never there, so that its sensitivity is unknown
    assert found["macro_balanced_accuracy"] == pytest.approx(0.5)
    assert found["specificity[effusion]"] == 0.0
    assert "balanced_accuracy[effusion]" not in found


def test_a_macro_mean_of_findings_of_one_patient_each_has_an_interval():
    rows = [one | {"patient": patient} for patient, finding in (("a", "nodule"), ("b", "effusion"))
            for one in presence(finding, ["Yes", "No"])]  # fmt: skip
    metric = summarise(score_answers(rows, ["Yes", "No", "No", "No"]))["macro_balanced_accuracy"]
    # resamples of (a, a), (a, b), (b, b): 1, 3/4, 1/2
    assert (metric.low, metric.value, metric.high) == (0.5, 0.75, 1.0)
    assert (metric.num_rows, metric.num_patients) == (4, 2)


def test_a_metric_that_no_resample_has_gets_no_interval():
    rows = [row("presence", "Is there a nodule?", answer=a, patient=a) for a in ("Yes", "No")]
    # the one resample of seed 3 draws the second patient twice, so that no yes is left in it
    metric = summarise(score_answers(rows, ["Yes", "No"]), num_resamples=1, seed=3)["balanced_accuracy"]
    assert (metric.value, metric.low, metric.high) == (1.0, None, None)


def test_a_reports_findings_are_told_one_by_one():
    rows = [row("report", "Write the report.", patient=p, nodule=PRESENT, effusion=PRESENT) for p in "ab"]
    found = values(rows, ["There is a nodule. No effusion.", "There is a nodule. There is an effusion."])
    assert found["finding_recall"] == pytest.approx(3 / 4)
    assert found["finding_recall[nodule]"] == 1.0
    assert found["finding_recall[effusion]"] == pytest.approx(1 / 2)
    # effusion: 2 * 1 / (1 claim + 2 true)
    assert found["finding_f1[effusion]"] == pytest.approx(2 / 3)
    assert found["macro_finding_f1"] == pytest.approx((1 + 2 / 3) / 2)


def test_balanced_accuracy_needs_both_answers_in_the_truth():
    rows = [row("presence", "Is there a nodule?", answer="Yes")]
    assert "balanced_accuracy" not in values(rows, ["Yes"])


def test_report_figures_are_ratios_of_sums():
    rows = [
        row(
            "report",
            "Write the report.",
            patient="a",
            nodule=LEFT_NODULE,
            effusion=ABSENT,
            cardiomegaly=PRESENT,
        ),
        row(
            "report",
            "Write the report.",
            patient="b",
            nodule=LEFT_NODULE,
            effusion=ABSENT,
            cardiomegaly=ABSENT,
        ),
    ]
    answers = [
        "There is a small nodule on the left. There is an effusion on the right. No cardiomegaly.",
        "There is a small nodule on the right. No effusion.",
    ]
    found = values(rows, answers)
    # claims: a nodule, effusion; b nodule = 3. False: effusion (denied), b's nodule (wrong side) = 2.
    assert found["claims_per_report"] == pytest.approx(3 / 2)
    assert found["hallucination_rate"] == pytest.approx(2 / 3)
    assert found["hallucinated_reports"] == pytest.approx(2 / 2)
    assert found["finding_precision"] == pytest.approx(1 / 3)
    # true findings: a nodule, cardiomegaly; b nodule = 3. Found: a's nodule.
    assert found["finding_recall"] == pytest.approx(1 / 3)
    # 2 * (1/3 * 1/3) / (1/3 + 1/3)
    assert found["finding_f1"] == pytest.approx(1 / 3)
    assert found["report_parse_failure"] == 0.0


def test_claims_that_the_facts_do_not_know_are_hallucinations_with_a_rate_of_their_own():
    said = "Small nodule on the left. Effusion on the left. There is cardiomegaly. No pneumothorax."
    found = values([row("report", "Write the report.", nodule=LEFT_NODULE, effusion=ABSENT)], [said])
    # 3 claims: the nodule is right, the effusion is denied, cardiomegaly is not known; the denial counts for nothing
    assert {name: found[name] for name in ("hallucination_rate", "unsupported_rate", "finding_precision")} == (
        pytest.approx({"hallucination_rate": 2 / 3, "unsupported_rate": 1 / 3, "finding_precision": 1 / 3})
    )
    assert (found["claims_per_report"], found["omission_rate"], found["finding_recall"]) == (3.0, 0.0, 1.0)
    (outcome,) = score_answers([row("report", "Write the report.", nodule=LEFT_NODULE)], [said])
    assert outcome.wrong == ("effusion", "cardiomegaly")


def test_a_true_report_with_every_unmentioned_finding_is_mostly_hallucinated():
    others = "There is consolidation. There is an effusion. There is a pneumothorax. There is cardiomegaly."
    found = values([row("report", "Write the report.", nodule=LEFT_NODULE)], [f"Small nodule on the left. {others}"])
    assert (found["hallucination_rate"], found["unsupported_rate"], found["hallucinated_reports"]) == (0.8, 0.8, 1.0)


def test_a_rule_set_that_ignores_what_is_not_known_counts_it_only_as_unsupported():
    rules = load_rule_set("chest_xray").model_copy(update={"unsupported": "ignore"})
    rows = [row("report", "Write the report.", nodule=LEFT_NODULE)]
    outcomes = score_answers(rows, ["Small nodule on the left. There is an effusion."], rules=rules)
    found = {name: metric.value for name, metric in summarise(outcomes).items()}
    # 1 claim is judged, and right; of the 2 that are made, 1 is not known
    assert (found["hallucination_rate"], found["claims_per_report"], found["unsupported_rate"]) == (0.0, 1.0, 0.5)
    assert outcomes[0].wrong == ()


def test_what_the_facts_doubt_is_neither_hallucinated_nor_unsupported():
    rows = [row("report", "Write the report.", nodule=Finding(polarity="uncertain"), effusion=PRESENT)]
    found = values(rows, ["There is a nodule. There is an effusion."])
    assert (found["claims_per_report"], found["hallucination_rate"], found["unsupported_rate"]) == (1.0, 0.0, 0.0)


def test_hallucinations_and_omissions_are_weighed_by_severity():
    # severities: nodule 0.9, consolidation 0.8, effusion 0.7, pneumothorax 1.0, cardiomegaly 0.5; missed counts half
    rows = [
        row("report", "Write the report.", patient="a", nodule=LEFT_NODULE, effusion=ABSENT, pneumothorax=PRESENT),
        row("report", "Write the report.", patient="b", consolidation=PRESENT, effusion=PRESENT),
    ]
    answers = [
        # the nodule on the wrong side 0.9 (side), the effusion invented 0.7, cardiomegaly not known 0.5; 3 claims
        "Small nodule on the right. There is an effusion. There is cardiomegaly.",
        # consolidation right; the effusion left out; 1 claim
        "There is consolidation.",
    ]
    found = values(rows, answers)
    # (0.9 + 0.7 + 0.5) / 4 claims; one of 4 (the nodule) is at 0.8 or more
    assert found["severity_hallucination_rate"] == pytest.approx(2.1 / 4)
    assert found["severe_hallucination_rate"] == pytest.approx(1 / 4)
    # pneumothorax 1.0 x 0.5 and effusion 0.7 x 0.5, of 4 true findings; the misplaced nodule is no omission
    assert found["severity_omission_rate"] == pytest.approx((0.5 + 0.35) / 4)
    assert (found["hallucination_rate"], found["omission_rate"]) == (0.75, 0.5)


def test_an_error_of_severity_0_8_is_severe_and_one_of_0_7_is_not():
    truth = row("report", "Write the report.", consolidation=ABSENT, effusion=ABSENT)
    assert values([truth], ["There is consolidation."])["severe_hallucination_rate"] == 1.0
    assert values([truth], ["There is an effusion."])["severe_hallucination_rate"] == 0.0


def test_a_normal_study_is_claimed_normal_by_a_normal_phrase():
    rows = [row("report", "Write the report.", consolidation=ABSENT, effusion=ABSENT, pneumothorax=ABSENT)]
    (outcome,) = score_answers(rows, ["No acute cardiopulmonary process."])
    assert (outcome.counts["unparsed_report"], outcome.counts["claims"], outcome.wrong) == (0.0, 0.0, ())


def test_rates_of_error_are_better_when_lower():
    rates = {name for name in RATIOS if name.endswith(("hallucination_rate", "omission_rate", "unsupported_rate"))}
    assert len(rates) == 6
    assert rates <= LOWER_IS_BETTER


def test_a_denied_or_unmentioned_finding_is_omitted():
    rows = [row("report", "Write the report.", nodule=LEFT_NODULE, cardiomegaly=PRESENT, effusion=PRESENT)]
    found = values(rows, ["No nodule. There is cardiomegaly."])
    # nodule denied, effusion left out: 2 of 3
    assert found["omission_rate"] == pytest.approx(2 / 3)


def test_a_report_of_nothing_readable_fails_to_parse_and_claims_nothing():
    rows = [row("report", "Write the report.", patient=str(n), nodule=LEFT_NODULE) for n in range(4)]
    found = values(rows, ["", "Lorem ipsum.", "There is a nodule. Lorem ipsum.", "There is a nodule."])
    assert found["report_parse_failure"] == pytest.approx(3 / 4)
    assert found["claims_per_report"] == pytest.approx(2 / 4)


def test_hallucination_rate_is_left_out_where_nothing_is_claimed():
    found = values([row("report", "Write the report.", nodule=ABSENT)], ["No nodule."])
    assert "hallucination_rate" not in found
    assert found["claims_per_report"] == 0.0


def test_boxes_are_matched_optimally_and_misses_count_zero():
    truth = [[0, 0, 10, 10], [20, 0, 30, 10]]
    rows = [row("box", "Where is the nodule?", boxes=truth)]
    # Greedy in order would waste the first truth. Best: (20,0,30,10) -> 1.0 and (0,0,10,5) -> 0.5: mean 0.75
    found = values(rows, ["[[20,0,30,10],[0,0,10,5],[50,50,60,60]]"])
    assert found["mean_iou"] == pytest.approx(0.75)
    assert found["mean_iou[nodule]"] == pytest.approx(0.75)
    # 2 hits at IoU >= 0.5, 3 boxes said, 2 true: 2 * 2 / (3 + 2)
    assert found["f1_at_50"] == pytest.approx(0.8)
    assert found["boxes_per_answer"] == 3.0


def test_an_unreadable_box_counts_as_iou_zero():
    rows = [row("box", "Where is the nodule?", boxes=[[0, 0, 10, 10]], patient=p) for p in "ab"]
    found = values(rows, ["[[0,0,10,10]]", "upper left"])
    assert found["mean_iou"] == pytest.approx(0.5)
    assert found["box_parse_failure"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": "side", "answer": None}, "side without an answer"),
        ({"task": "closed", "answer": " "}, "closed without an answer"),
        ({"task": "open", "answer": None, "rule_set": ""}, "open without an answer"),
        ({"task": "box", "boxes": None}, "box without true boxes"),
        ({"task": "referring", "boxes": None, "box_images": [1]}, "box without true boxes"),
        ({"task": "report", "answer": None, "rule_set": "", "facts": '{"rule_set":""}'}, "report without facts"),
        ({"task": "report", "answer": None, "rule_set": "", "facts": None}, "report without facts"),
        ({"task": "haiku", "answer": "Mist."}, "no metric for task 'haiku'"),
        ({"task": "haiku", "answer": "Mist.", "rule_set": ""}, "no metric for task 'haiku'"),
    ],
)
def test_a_row_without_truth_is_not_judged_and_says_why(changes, reason):
    asked = row("side", "On which side is the nodule?", answer="Left") | changes
    assert why_unjudged(asked) == reason
    assert values([asked], ["left"]) == {}


def test_a_report_of_which_nothing_is_known_is_judged_where_unsupported_claims_are_wrong():
    asked = row("report", "Report?")
    assert why_unjudged(asked) is None
    ignoring = load_rule_set("chest_xray@1").model_copy(update={"unsupported": "ignore"})
    assert why_unjudged(asked, ignoring) == "report without facts"
    [outcome] = score_answers([asked], ["There is a nodule."])
    assert outcome.counts["hallucinations"] == outcome.counts["claims"] == 1


TRUTHS = [row("report", "Report?", nodule=ABSENT)["facts"], row("report", "Report?")["facts"], '{"rule_set":""}', None]


@given(
    task=st.sampled_from([*BY_EQUALITY, "open", "box", "report", "haiku"]),
    answer=st.sampled_from(["Yes", "Left", "3", " ", "", None]),
    boxes=st.sampled_from([[], [[0, 0, 10, 10]], None]),
    facts=st.sampled_from(TRUTHS),
    rule_set=st.sampled_from(["chest_xray@1", "", None]),
    said=st.sampled_from(["", "Yes", "[[0,0,5,5]]", "No nodule.", "<answer>"]),
)
def test_a_row_has_counts_or_a_reason_whatever_is_answered(task, answer, boxes, facts, rule_set, said):
    asked = row(task, "Is there a nodule?", answer=answer, boxes=boxes) | {"facts": facts, "rule_set": rule_set}
    [outcome] = score_answers([asked], [said])
    assert bool(outcome.counts) != bool(why_unjudged(asked))
    assert bool(summarise([outcome], num_resamples=2)) == bool(outcome.counts)


def test_boxes_without_a_rule_set_are_judged_and_not_split_by_finding():
    asked = row("box", "Where is the nodule?", boxes=[[0, 0, 10, 10]]) | {"rule_set": "", "facts": '{"rule_set":""}'}
    found = values([asked], ["[[0,0,10,5]]"])
    # half of the box: IoU 50 / 100
    assert found["mean_iou"] == pytest.approx(0.5)
    assert not [name for name in found if "[" in name]


def test_an_open_question_is_judged_by_recall_under_a_rule_set_too():
    asked = row("open", "What is it?", answer="a small nodule")
    assert values([asked], ["small nodule"])["open_recall"] == pytest.approx(2 / 3)


def test_one_patient_gives_a_value_and_no_interval():
    rows = [row("side", "On which side is the nodule?", answer="Left")] * 8
    metric = summarise(score_answers(rows, ["left"] * 8))["side_accuracy"]
    assert (metric.value, metric.low, metric.high) == (1.0, None, None)
    assert (metric.num_rows, metric.num_patients) == (8, 1)


def test_the_interval_is_clustered_by_patient():
    def interval(patients):
        rows = [row("side", "?", answer="Left", patient=str(p)) for p in patients]
        answers = ["left"] * 50 + ["right"] * 50
        metric = summarise(score_answers(rows, answers))["side_accuracy"]
        return metric.high - metric.low

    # 100 independent rows: about 4 * sqrt(.25 / 100) = .20. Ten patients with ten like rows each: about .6
    alone, clustered = interval(range(100)), interval([n // 10 for n in range(100)])
    assert alone == pytest.approx(0.2, abs=0.03)
    assert clustered == pytest.approx(0.6, abs=0.1)


def test_the_same_seed_gives_the_same_interval():
    rows = [row("side", "?", answer="Left", patient=str(p)) for p in range(9)]
    outcomes = score_answers(rows, ["left", "right", "left"] * 3)
    assert summarise(outcomes, seed=3) == summarise(outcomes, seed=3)


def test_a_difference_is_paired_by_patient():
    rows = [row("side", "?", answer="Left", patient=str(p)) for p in range(40)]
    before = score_answers(rows, ["left"] * 20 + ["right"] * 20)
    change = differences(before, before)["side_accuracy"]
    assert (change.value, change.low, change.high) == (0.0, 0.0, 0.0)
    after = score_answers(rows, ["left"] * 40)
    assert differences(before, after)["side_accuracy"].value == pytest.approx(0.5)


def test_the_longest_phrase_names_the_finding():
    rules = load_rule_set("chest_xray")
    assert question_finding(row("box", "Where is the pleural effusion?"), rules) == "effusion"
    assert question_finding(row("box", "Where is it?"), rules) is None
    assert question_finding(row("report", "Write the report."), rules) is None


def test_broken_tags_say_nothing():
    assert final_words("<answer>a</answer><answer>b</answer>") == ""
    assert final_words("<answer>a</answer> and more") == ""
    assert final_words("<answer>No") == final_words("No</answer>") == ""
    assert final_words("no tags at all ") == "no tags at all"


def test_every_metric_can_be_written_as_json():
    rows = [row("side", "?", answer="Left", patient=p) for p in "ab"]
    metrics = summarise(score_answers(rows, ["left", "right"]))
    assert json.loads(json.dumps({name: vars(m) for name, m in metrics.items()}))["side_accuracy"]["num_rows"] == 2
    assert set(metrics) <= set(RATIOS)


def test_a_right_box_on_the_wrong_image_is_a_miss():
    row = {
        "id": "a", "patient": "p", "task": "referring", "rule_set": "chest_xray@1", "facts": "",
        "prompt": [{"role": "user", "content": [{"type": "text", "text": "Which image shows a nodule?"}]}],
        "answer": "image 2: nodule [[0,0,10,10]]", "boxes": [[0, 0, 10, 10]], "box_images": [2],
    }  # fmt: skip
    right, wrong = score_answers([row, row], [row["answer"], row["answer"].replace("2", "1", 1)])
    assert summarise([right])["mean_iou[referring]"].value == 1
    assert summarise([right])["f1_at_50"].value == 1
    assert summarise([wrong])["mean_iou"].value == 0


def test_boxes_where_none_is_true_are_counted_by_themselves():
    rows = [
        row("box", "Where is the nodule?", patient=str(n), boxes=b) for n, b in enumerate([[], [], [[0, 0, 10, 10]]])
    ]
    found = values(rows, ["nodule []", "nodule [[1,1,5,5],[2,2,6,6]]", "nodule [[0,0,10,10]]"])
    # 2 boxes over 2 empty rows; 3 boxes over 3 answers; the one true box is hit
    assert found["false_boxes_on_empty"] == 1.0
    assert found["boxes_per_answer"] == 1.0
    assert found["mean_iou"] == 1.0


def test_boxes_over_images_are_summed_over_the_true_ones():
    asked = row("referring", "Which image shows a nodule?", boxes=[[0, 0, 10, 10]] * 2) | {"box_images": [1, 2]}
    half, unread = (
        {name: metric.value for name, metric in summarise(score_answers([asked], [said])).items()}
        for said in ("image 1: nodule [[0,0,10,10]]", "I cannot say")
    )
    # one of two true boxes exactly: IoU (1 + 0) / 2, hits 2 x 1 / (1 said + 2 true)
    assert half == pytest.approx(
        {"mean_iou": 1 / 2, "mean_iou[referring]": 1 / 2, "f1_at_50": 2 / 3, "box_parse_failure": 0.0}
        | {"boxes_per_answer": 1.0}
    )
    assert unread == pytest.approx(
        {"mean_iou": 0.0, "mean_iou[referring]": 0.0, "f1_at_50": 0.0, "box_parse_failure": 1.0}
        | {"boxes_per_answer": 0.0}
    )


@pytest.mark.parametrize(
    ("said", "failed"), [("upper left", 1.0), ("There is no nodule.", 0.0), ("[]", 0.0), ("[[0,0,9,9]]", 0.0)]
)
def test_an_answer_about_boxes_fails_to_parse_if_it_states_neither_boxes_nor_that_none_is(said, failed):
    for boxes in ([[0, 0, 10, 10]], []):
        found = values([row("box", "Where is the nodule?", boxes=boxes)], [said])
        assert found["box_parse_failure"] == failed
        assert ("false_boxes_on_empty" in found) == (not boxes)


def test_a_metric_rests_on_the_rows_and_patients_that_it_is_said_of():
    rows = [row("side", "On which side?", answer="Left", patient=p) for p in "aab"]
    rows += [row("report", "Report?", patient=p, nodule=PRESENT) for p in "abcd"]
    found = summarise(score_answers(rows, ["left"] * 3 + ["There is a nodule."] * 4), num_resamples=20)
    assert (found["side_accuracy"].num_rows, found["side_accuracy"].num_patients) == (3, 2)
    assert (found["finding_recall"].num_rows, found["finding_recall"].num_patients) == (4, 4)


@pytest.mark.parametrize(
    ("task", "question", "truth", "keys"),
    [
        ("side", "On which side is the nodule?", "Left", ["side"]),
        ("presence", "Is there a nodule?", "Yes", ["yes", "yes[nodule]"]),
        ("presence", "Is it there?", "No", ["no"]),
    ],
)
def test_a_closed_answer_counts_under_its_task_and_a_yes_or_no_under_its_finding(task, question, truth, keys):
    (outcome,) = score_answers([row(task, question, answer=truth)], [truth])
    correct = [key.replace("[", "_correct[") if "[" in key else f"{key}_correct" for key in keys]
    counts = {name: count for name, count in outcome.counts.items() if "read" not in name}
    assert counts == dict.fromkeys(["closed", "closed_correct", *keys, *correct], 1.0)


def test_a_metric_is_said_of_the_findings_that_were_asked_for_by_it():
    rows = [row("box", "Where is the nodule?", boxes=[]), row("presence", "Is there an effusion?", answer="Yes")]
    assert {name for name in ratios_in(score_answers(rows, ["[]", "Yes"])) if "[" in name} == {
        "mean_iou[nodule]", "balanced_accuracy[effusion]", "sensitivity[effusion]", "specificity[effusion]",
    }  # fmt: skip
    unnamed = [row("box", "Where is it?", boxes=[]), row("presence", "Is it there?", answer="Yes")]
    assert not [name for name in ratios_in(score_answers(unnamed, ["[]", "Yes"])) if "[" in name]


def test_a_box_beside_the_true_one_is_no_hit():
    found = values([row("box", "Where is the nodule?", boxes=[[0, 0, 10, 10]])], ["[[50,50,60,60]]"])
    assert (found["f1_at_50"], found["mean_iou"]) == (0.0, 0.0)
    # 49 of 100 is below a half, and 51 above
    for side, hit in ((49, 0.0), (51, 1.0)):
        half = values([row("box", "Where is the nodule?", boxes=[[0, 0, 100, 1]])], [f"[[0,0,{side},1]]"])
        assert half["f1_at_50"] == hit


def test_without_boxes_nothing_is_matched():
    assert matched_ious([], [[0, 0, 1, 1]]) == matched_ious([[0, 0, 1, 1]], []) == matched_ious([], []) == []


def test_a_wrong_side_is_weighed_as_such_and_what_is_not_there_as_invented():
    chest = load_rule_set("chest_xray")
    rules = chest.model_copy(update={"error_weights": {"side": 0.5, "invented": 0.9, "missed": 0.1}})
    asked = row("report", "Report?", nodule=LEFT_NODULE, effusion=ABSENT, pneumothorax=PRESENT)
    (outcome,) = score_answers([asked], ["Small nodule on the right. There is an effusion."], rules=rules)
    # nodule 0.9 x side 0.5, effusion 0.7 x invented 0.9; the pneumothorax, 1.0, missed 0.1
    assert outcome.counts["hallucinated_severity"] == pytest.approx(0.45 + 0.63)
    assert outcome.counts["omitted_severity"] == pytest.approx(0.1)


def test_an_interval_rests_on_a_thousand_resamples_of_seed_0_where_nothing_else_is_said():
    # patients of one to seven rows, so that hardly two resamples give the same figure
    rows = [row("side", "?", answer="Left", patient=str(p)) for p in range(40) for _ in range(1 + p % 7)]
    first, second = (score_answers(rows, ["left" if n % k else "right" for n in range(len(rows))]) for k in (3, 5))
    said = {"num_resamples": 1000, "seed": 0}
    assert summarise(first) == summarise(first, **said)
    assert differences(first, second) == differences(first, second, **said)


def test_nothing_judged_gives_no_metric():
    assert summarise([]) == differences([], []) == {}
