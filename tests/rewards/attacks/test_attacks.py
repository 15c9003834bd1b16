import random

import pytest

from rewards.attacks.attacks import ATTACKS, PromptRow, imperfect, shifted, tagged
from rewards.attacks.truth_attacks import ADDITIONS
from rewards.boxes.geometry import iou, parse_boxes
from rewards.loading import load_reward
from rewards.rules.facts import Facts
from rewards.rules.rule_set import load_rule_set

TRUTH = (
    '{"rule_set":"chest_xray@1","findings":{"nodule":{"polarity":"present","side":"left","boxes":[[20,20,40,50]]},'
    '"effusion":{"polarity":"absent"},"pneumothorax":{"polarity":"present","side":"right"}}}'
)
COMMON = {"facts": Facts.model_validate_json(TRUTH), "rules": load_rule_set("chest_xray"), "grid": 100}
BOX = PromptRow("Where is the nodule?", "box", "nodule [[20,20,40,50]]", ((20, 20, 40, 50),), **COMMON)
REPORT = PromptRow(
    "Write the report.", "report",
    "There is a nodule on the left. No effusion. There is a pneumothorax on the right.", None, **COMMON,
)  # fmt: skip
RNG = random.Random


def attacked(name, row):
    return {**ATTACKS, **ADDITIONS}[name](row, RNG(0))


@pytest.mark.parametrize("name", [*ATTACKS, *ADDITIONS])
@pytest.mark.parametrize("row", [BOX, REPORT], ids=["box", "report"])
def test_an_attack_answers_any_row_twice_the_same(name, row):
    assert attacked(name, row) == attacked(name, row)


def test_box_attacks_state_the_boxes_that_they_name():
    assert parse_boxes(attacked("whole image", BOX)) == [(0, 0, 100, 100)]
    assert len(parse_boxes(attacked("box spam", BOX))) == 100
    assert len(parse_boxes(attacked("grid of tiles", BOX))) == 100
    [touching] = parse_boxes(attacked("edge touching (knows the truth)", BOX))
    assert iou(touching, BOX.boxes[0]) == 0
    assert touching[0] == BOX.boxes[0][2]
    assert parse_boxes(attacked("truth said three times", BOX)) == [(20, 20, 40, 50)] * 3


def test_blind_attacks_do_not_see_the_truth():
    other = PromptRow("Where is the nodule?", "box", "nodule [[1,1,9,9]]", ((1, 1, 9, 9),), **COMMON)
    blind = [n for n in ATTACKS if "knows the truth" not in n]
    assert all(attacked(n, BOX) == attacked(n, other) for n in blind)


def test_no_blind_attack_beats_a_decent_report_under_factuality():
    reward, columns = load_reward("factuality"), {"facts": TRUTH, "answer": REPORT.answer, "task": "report"}
    decent = min(reward(imperfect(REPORT, RNG(k)), **columns) for k in range(6))
    assert all(reward(attacked(n, REPORT), **columns) < decent for n in ATTACKS)


@pytest.mark.parametrize("name", ["box_overlap", "medmo_box_safe"])
def test_no_attack_beats_a_decent_box_under_the_safe_rewards(name):
    reward = load_reward(name)
    decent = min(reward(imperfect(BOX, RNG(k)), boxes=[[20, 20, 40, 50]], box_grid=100) for k in range(6))
    paid = {n: reward(attacked(n, BOX), boxes=[[20, 20, 40, 50]], box_grid=100) for n in ATTACKS}
    assert all(score < decent for n, score in paid.items() if "every class" not in n)


def test_an_imperfect_answer_is_a_decent_one():
    [box] = parse_boxes(imperfect(BOX, RNG(0)))
    assert iou(box, BOX.boxes[0]) == pytest.approx(0.39, abs=0.03)
    said = imperfect(REPORT, RNG(0))
    assert said != REPORT.answer
    assert len(said.split(". ")) == 2


def test_a_shifted_box_stays_in_the_image():
    assert shifted((0, 0, 50, 50), 2.0, RNG(0), 100)[0] >= 0
    assert shifted((60, 60, 100, 100), 2.0, RNG(1), 100)[2] <= 100


def test_tagged_is_the_format():
    assert load_reward("think_format")(tagged("x")) == 1
