"""Attacks that know the truth say what their names say, and None where they cannot be tried."""

import random
from dataclasses import replace

import pytest

from rewards.answers.final_answer import answer_region
from rewards.attacks.attacks import PromptRow
from rewards.attacks.truth_attacks import ADDITIONS, BASELINES, FALSEHOODS, HEDGES, OTHER_ANSWERS, stated
from rewards.boxes.geometry import iou, parse_boxes
from rewards.loading import load_reward
from rewards.reading.reading import read
from rewards.rules.facts import Facts
from rewards.rules.rule_set import load_rule_set

TRUTH = (
    '{"rule_set":"chest_xray@1","findings":{"nodule":{"polarity":"present","side":"left","boxes":[[20,20,40,50]]},'
    '"effusion":{"polarity":"absent"},"pneumothorax":{"polarity":"present","side":"right"}}}'
)
RULES = load_rule_set("chest_xray")
COMMON = {"facts": Facts.model_validate_json(TRUTH), "rules": RULES, "grid": 100}
BOX = PromptRow("Where is the nodule?", "box", "nodule [[20,20,40,50]]", ((20, 20, 40, 50),), **COMMON)
NO_BOX = PromptRow("Where is the effusion?", "box", "effusion []", (), **COMMON)
REPORT = PromptRow(
    "Write the report.", "report",
    "There is a nodule on the left. No effusion. There is a pneumothorax on the right.", None, **COMMON,
)  # fmt: skip
YES, NO = (PromptRow("Is there?", "presence", answer, None, **COMMON) for answer in ("Yes", "No"))
DOSE = PromptRow("How much?", "open", "5 mg", None, **COMMON)
CHOICE = PromptRow("Which?", "choice", "MRI", None, options=("CT", "MRI"), **COMMON)
ALL = {**BASELINES, **ADDITIONS, **FALSEHOODS, **{name: hedge.attempt for name, hedge in HEDGES.items()}}


def said(name, row):
    return ALL[name](row, random.Random(0))


def polarities(text):
    return {name: finding.polarity for name, finding in read(text, RULES).facts.findings.items()}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("row", [BOX, NO_BOX, REPORT, YES, DOSE, CHOICE], ids=lambda row: row.task)
def test_any_row_is_answered_twice_the_same_or_not_at_all(name, row):
    assert said(name, row) == said(name, row)
    assert said(name, row) is None or isinstance(said(name, row), str)


def test_the_facts_stated_are_read_back():
    assert polarities(stated(REPORT, REPORT.facts)) == {n: f.polarity for n, f in REPORT.facts.findings.items()}


def test_another_question_is_answered_truly_beside_the_one_asked():
    text = said("another question answered too", BOX)
    assert text.startswith(BOX.answer)
    assert polarities(text.removeprefix(BOX.answer)) == {"effusion": "absent", "pneumothorax": "present"}
    assert parse_boxes(said("another question answered too", REPORT)) == [(20, 20, 40, 50)]


def test_denials_are_of_what_was_not_asked():
    denied = polarities(said("truth and denials", BOX).removeprefix(BOX.answer))
    assert set(denied) == set(RULES.findings) - {"nodule"}
    assert set(denied.values()) == {"absent"}
    unknown = polarities(said("truth and denials", REPORT).removeprefix(REPORT.answer))
    assert set(unknown) == set(RULES.findings) - {"nodule", "effusion", "pneumothorax"}


@pytest.mark.parametrize("name", ["think stuffing", "denials in thinking", "boxes in thinking"])
def test_what_stands_in_the_thinking_leaves_the_answer_as_it_is(name):
    assert answer_region(said(name, REPORT)) == REPORT.answer
    assert said(name, REPORT) != REPORT.answer


def test_polarities_and_sides_are_turned():
    assert polarities(said("polarity turned", REPORT)) == {
        "nodule": "absent", "effusion": "present", "pneumothorax": "absent",
    }  # fmt: skip
    sides = {n: f.side for n, f in read(said("sides turned", REPORT), RULES).facts.findings.items()}
    assert (sides["nodule"], sides["pneumothorax"]) == ("right", "left")
    assert (said("polarity turned", YES), said("polarity turned", NO)) == ("No", "Yes")
    assert all(OTHER_ANSWERS[other.casefold()].casefold() == one for one, other in OTHER_ANSWERS.items())


def test_two_boxes_are_the_true_one_and_its_mirror_image():
    assert parse_boxes(said("two boxes for one of two places", BOX)) == [(20, 20, 40, 50), (60, 20, 80, 50)]
    assert parse_boxes(said("the other of two", BOX)) == [(60, 20, 80, 50)]
    middle = replace(BOX, boxes=((30, 20, 70, 50),))
    assert iou(middle.boxes[0], (30, 20, 70, 50)) == 1  # its own mirror image
    assert said("two boxes for one of two places", middle) is None
    assert said("two boxes for one of two places", NO_BOX) is None


def test_an_absent_finding_is_claimed_without_a_box():
    assert said("an absent finding claimed in words", NO_BOX) == "There is a huge effusion, none of it normal."
    assert said("an absent finding claimed in words", BOX) is None


def test_everything_that_the_facts_do_not_know_is_claimed():
    claimed = polarities(said("all unmentioned findings claimed", REPORT))
    assert set(claimed) == set(RULES.findings)
    assert [n for n, p in claimed.items() if p == "absent"] == ["effusion"]
    assert said("all unmentioned findings claimed", BOX) is None


def test_words_are_hedged_denied_and_given_another_unit():
    assert said("both options", YES) == "Yes or No"
    assert said("both options", CHOICE) == "MRI or CT"
    assert said("another unit", DOSE) == "5 elephants"
    assert said("the answer denied", DOSE) == "not 5 mg"
    assert said("declined where the truth is no", NO) == "It is not possible to say."
    assert said("declined where the truth is no", YES) is None
    assert said("another unit", YES) is None


def test_denying_everything_stands_against_a_short_report_of_what_is_there():
    short = said("what is there, said alone", REPORT)
    assert polarities(short) == {"nodule": "present", "pneumothorax": "present"}
    assert set(polarities(said("deny everything", REPORT)).values()) == {"absent"}
    healthy = replace(REPORT, facts=Facts.model_validate_json('{"rule_set":"chest_xray@1","findings":{}}'))
    assert said("deny everything", healthy) is None
    assert HEDGES["deny everything"].against == ("what is there, said alone",)


def test_every_hedge_stands_against_answers_that_there_are():
    assert {name for hedge in HEDGES.values() for name in hedge.against} <= {"honest", *BASELINES}
    assert len(ALL) == len(BASELINES) + len(ADDITIONS) + len(FALSEHOODS) + len(HEDGES)


def test_a_hedge_over_two_places_earns_less_under_box_overlap():
    reward = load_reward("box_overlap")
    both, one, other = (
        reward(said(name, BOX) if name else BOX.answer, boxes=[[20, 20, 40, 50]])
        for name in ("two boxes for one of two places", "", "the other of two")
    )
    assert both == pytest.approx(1 / 3)  # 1 / (1 true + 2 x 1 false)
    assert (one + other) / 2 == 0.5
