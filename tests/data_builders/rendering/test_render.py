import random

import pytest

from data_builders.rendering.render import box_answer, questions, report
from rewards.reading.reading import read
from rewards.rules.facts import Facts, Finding
from rewards.rules.rule_set import load_rule_set

CHEST, SMEAR, CT = (load_rule_set(name) for name in ("chest_xray", "blood_smear", "lung_ct"))
BOX = (12.0, 34.0, 56.0, 78.0)


def chest(**findings):
    return Facts(rule_set=CHEST.id, findings=findings)


def present(**attributes):
    return Finding(polarity="present", **attributes)


ABSENT, POSSIBLE = Finding(polarity="absent"), Finding(polarity="uncertain", side="left")


def test_a_report_has_a_sentence_a_finding_in_the_order_of_the_rule_set():
    facts = chest(cardiomegaly=present(), effusion=ABSENT, nodule=present(side="left", size="small"))
    assert report(facts, CHEST) == "There is a small nodule on the left. No effusion. There is cardiomegaly."


def test_what_is_not_known_is_not_written():
    assert report(chest(), CHEST) == ""
    assert questions(chest(), CHEST, "report") == []


@pytest.mark.parametrize(
    ("name", "finding", "sentence"),
    [
        ("effusion", present(), "There is an effusion."),
        ("consolidation", present(size="large"), "There is large consolidation."),
        ("pneumothorax", POSSIBLE, "Possible pneumothorax on the left."),
        ("cardiomegaly", ABSENT, "No cardiomegaly."),
    ],
)
def test_articles_sizes_and_sides_are_written_where_they_belong(name, finding, sentence):
    assert report(chest(**{name: finding}), CHEST) == sentence


@pytest.mark.parametrize(
    ("count", "sentence"), [(12, "12 platelets."), (1, "1 platelet."), (None, "There are platelets.")]
)
def test_cells_are_counted(count, sentence):
    assert report(Facts(rule_set=SMEAR.id, findings={"platelets": present(count=count)}), SMEAR) == sentence


def test_an_uncertain_finding_reads_back_as_uncertain():
    for rules, name in ((CHEST, "nodule"), (CT, "mass")):
        facts = Facts(rule_set=rules.id, findings={name: POSSIBLE})
        assert read(report(facts, rules, rng=random.Random(3)), rules).facts == facts


def test_varied_wording_varies_and_plain_wording_does_not():
    facts = chest(nodule=present(side="left"), effusion=ABSENT)
    assert len({report(facts, CHEST, rng=random.Random(seed)) for seed in range(20)}) == 4
    assert len({report(facts, CHEST) for _ in range(3)}) == 1


def test_reports_of_facts_that_differ_in_one_finding_differ_in_one_sentence():
    findings = {"nodule": present(side="left"), "effusion": ABSENT, "pneumothorax": ABSENT}
    for seed in range(20):
        one = report(chest(**findings), CHEST, rng=random.Random(seed)).split(". ")
        two = report(chest(**{**findings, "nodule": ABSENT}), CHEST, rng=random.Random(seed)).split(". ")
        assert [a == b for a, b in zip(one, two, strict=True)] == [False, True, True]


def test_questions_and_answers_read_as_a_person_would_put_them():
    facts = chest(nodule=present(side="left", size="small", boxes=(BOX,)), effusion=ABSENT)
    said = [
        (asked.question, asked.answer)
        for task in ("presence", "side", "size", "box")
        for asked in questions(facts, CHEST, task)
    ]
    assert said == [
        ("Is there a nodule?", "Yes"),
        ("Is there an effusion?", "No"),
        ("On which side is the nodule?", "Left"),
        ("How large is the nodule?", "Small"),
        ("Where is the nodule?", "nodule [[12,34,56,78]]"),
    ]


def test_counts_are_asked_and_answered():
    facts = Facts(rule_set=SMEAR.id, findings={"white_cells": present(count=1), "platelets": present(count=3)})
    said = [(asked.question, asked.answer) for asked in questions(facts, SMEAR, "count")]
    assert said == [("How many white cells are there?", "1"), ("How many platelets are there?", "3")]


def test_a_question_tells_nothing_of_its_answer():
    told = ["Is {what}{where} there, {count}?"]
    leaky = CHEST.model_copy(update={"wording": CHEST.wording.model_copy(update={"ask_side": told, "ask_box": told})})
    facts = chest(nodule=present(side="left", size="small", count=3, boxes=(BOX,)))
    for task in ("side", "box"):
        assert [asked.question for asked in questions(facts, leaky, task)] == ["Is a nodule there, None?"]


def test_no_question_is_asked_of_an_uncertain_finding():
    assert not [
        q for task in ("presence", "side", "size", "box") for q in questions(chest(nodule=POSSIBLE), CHEST, task)
    ]


def test_one_box_is_answered_in_the_singular_and_two_in_the_plural():
    rule = SMEAR.findings["red_cells"]
    assert box_answer(present(boxes=(BOX,)), rule) == "red cell [[12,34,56,78]]"
    assert box_answer(present(boxes=(BOX, (0, 1, 2, 3))), rule) == "red cells [[12,34,56,78],[0,1,2,3]]"


def test_large_coordinates_are_written_in_full():
    assert box_answer(present(boxes=((0, 1, 1234567, 7654321),)), CHEST.findings["nodule"]).endswith(
        "[[0,1,1234567,7654321]]"
    )
