import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.attacks.box_comparison import SIZE, cases, comparison, contenders, random_boxes
from rewards.boxes import medmo_box
from rewards.boxes.geometry import iou
from rewards.boxes.medmo_box import cost, similarity
from rewards.loading import load_reward

SPAN = st.tuples(st.integers(0, 80), st.integers(1, 20)).map(lambda s: (s[0], s[0] + s[1]))
BOX = st.tuples(SPAN, SPAN).map(lambda s: [s[0][0], s[1][0], s[0][1], s[1][1]])
SAFE = ["medmo_box_safe", "box_overlap"]
UNITS = {"box_grid": 100}


def test_published_reward_of_random_pairs_is_the_measured_mean():
    pairs = list(zip(random_boxes(20_000, seed=1), random_boxes(20_000, seed=2), strict=True))
    assert sum(similarity(a, b, width=SIZE, height=SIZE) for a, b in pairs) / 20_000 == pytest.approx(0.465, abs=0.003)
    assert sum(iou(a, b) for a, b in pairs) / 20_000 == pytest.approx(0.017, abs=0.001)


def test_published_reward_pays_for_spam_and_a_penalty_of_a_tenth_does_not():
    published, penalised, safe = (contenders()[n] for n in ("medmo published", "medmo lambda .1", "medmo safe"))
    answers = [(str([list(b) for b in random_boxes(200, seed=k)]), random_boxes(2, seed=99 + k)) for k in range(10)]
    units = {"box_grid": SIZE}
    paid = sum(published(said, boxes=truth, **units) for said, truth in answers) / 10
    assert paid == pytest.approx(0.884, abs=0.02)
    assert all(penalised(said, boxes=truth, **units) == 0 for said, truth in answers)
    assert all(safe(said, boxes=truth, **units) < 0.006 for said, truth in answers)  # at most 2 / (2 + 2 x 198)


@pytest.mark.parametrize(
    ("case", "want"), [("whole image", 0.459), ("edge touching", 0.807 - 0.05), ("far corner", 0.217)]
)
def test_published_reward_pays_for_boxes_that_miss(case, want):
    assert comparison()[case]["medmo published"] >= want - 0.1


def test_the_docstring_of_the_published_reward_gives_the_figures_that_the_audit_prints():
    shown = [f"{comparison()[c]['medmo published']:.3f}" for c in ("whole image", "edge touching", "200 random boxes")]
    assert re.findall(r"0\.\d+", medmo_box.__doc__) == shown


@pytest.mark.parametrize("name", ["medmo safe", "box_overlap"])
def test_no_attack_earns_more_than_an_honest_answer_of_a_safe_reward(name):
    honest = {c.name for c in cases() if c.honest}
    table = {case: row[name] for case, row in comparison().items()}
    worst_honest = min(table[case] for case in honest)
    attacks = {
        "edge touching", "far corner", "whole image", "central half", "no area", "nothing written",
        "none, though one is there", "200 random boxes", "grid of 100 boxes", "one box where none is",
    }  # fmt: skip
    assert all(table[case] < worst_honest for case in attacks)
    assert table["said twice"] < table["exact"]


def test_the_published_reward_is_caught_by_the_same_table():
    table = {case: row["medmo published"] for case, row in comparison().items()}
    assert table["200 random boxes"] > table["one of two"]
    assert table["edge touching"] > table["one of two"]


@pytest.mark.parametrize("name", SAFE)
@given(truth=st.lists(BOX, min_size=1, max_size=3), said=st.lists(BOX, min_size=1, max_size=3))
def test_a_repeated_box_never_raises_the_reward(name, truth, said):
    reward = load_reward(name)
    assert reward(str(said + said[:1]), boxes=truth, **UNITS) <= reward(str(said), boxes=truth, **UNITS)


@given(truth=st.lists(BOX, min_size=1, max_size=3, unique_by=tuple), copies=st.integers(2, 6))
def test_duplicates_of_the_truth_never_pay(truth, copies):
    reward = load_reward("medmo_box_safe")
    assert reward(str(truth * copies), boxes=truth, **UNITS) < reward(str(truth), boxes=truth, **UNITS)


@pytest.mark.parametrize("name", SAFE)
def test_spam_falls_with_the_number_of_boxes(name):
    reward, rng = load_reward(name), random.Random(3)
    boxes = [[x, y, x + 5, y + 5] for x, y in ((rng.randrange(20, 95), rng.randrange(20, 95)) for _ in range(60))]
    truth = [[0, 0, 10, 10]]
    scores = [reward(str([truth[0], *boxes[:n]]), boxes=truth, **UNITS) for n in range(0, 60, 5)]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0.05


@pytest.mark.parametrize("name", SAFE)
@given(box=BOX)
def test_on_an_image_without_lesions_no_box_beats_none(name, box):
    reward = load_reward(name)
    assert reward(str([box]), boxes=[]) < reward("[]", boxes=[])


@given(box=BOX)
def test_the_whole_image_earns_nothing_from_the_safe_reward(box):
    assert load_reward("medmo_box_safe")("[[0,0,100,100]]", boxes=[box], **UNITS) == 0


@pytest.mark.parametrize("name", ["medmo_box", "medmo_box_safe", "box_overlap", "box_measure"])
@given(truth=st.lists(BOX, min_size=1, max_size=4), said=st.lists(BOX, min_size=1, max_size=4), seed=st.integers(0, 9))
def test_the_order_of_boxes_does_not_matter(name, truth, said, seed):
    reward, rng = load_reward(name), random.Random(seed)
    shuffled, turned = rng.sample(said, len(said)), rng.sample(truth, len(truth))
    paid = reward(str(said), boxes=truth, **UNITS)
    assert reward(str(shuffled), boxes=turned, **UNITS) == pytest.approx(paid, abs=1e-9)


@pytest.mark.parametrize("name", ["medmo_box", "medmo_box_safe", "box_overlap", "box_measure"])
@given(truth=st.lists(BOX, min_size=1, max_size=3, unique_by=tuple))
def test_the_truth_earns_the_most(name, truth):
    assert load_reward(name)(str(truth), boxes=truth, **UNITS) == pytest.approx(1.0)


@given(a=BOX, b=BOX)
def test_similarity_and_cost_agree_on_what_is_best(a, b):
    assert 0 <= similarity(a, b, width=100, height=100) <= 1
    assert cost(a, a, width=100, height=100) == pytest.approx(0)
    assert cost(a, b, width=100, height=100) >= -1e-9


def test_a_recipe_can_name_every_formula():
    for formula in ("iou", "iou_at", "map_odlength", "f_beta_iou", "max_normalised"):
        assert load_reward("box_measure", formula=formula)("[[0,0,9,9]]", boxes=[[0, 0, 9, 9]]) == pytest.approx(1)


def test_components_tell_spam():
    parts = load_reward("medmo_box").components("[[0,0,100,100],[1,1,2,2]]", boxes=[[0, 0, 10, 10]], **UNITS)
    assert parts == {"num_boxes": 2, "false_boxes": 1, "missed_boxes": 0, "largest_share": 1}
