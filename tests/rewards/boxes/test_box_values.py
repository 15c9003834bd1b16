"""The box rewards by hand, in an image of 300 x 400: its diagonal is 500, so L1 distances are over 1000.

MedMO's s is (5 (1 - L1) + GIoU + 1) / 7. Boxes that span the image's width have a GIoU that is their IoU where one
holds the other: their hull is then the larger of the two.
"""

import pytest

from rewards.boxes import box_overlap as overlap_module
from rewards.boxes import medmo_box as published_module
from rewards.boxes import medmo_box_safe as safe_module
from rewards.boxes.box_overlap import box_overlap
from rewards.boxes.medmo_box import cost, medmo_box, similarity
from rewards.boxes.medmo_box_safe import medmo_box_safe
from rewards.config.input_error import InputError

IMAGE = {"image_size": [[300, 400]]}
SHAPE = {"width": 300, "height": 400}
CORNER = [0, 200, 150, 400]  # the lower left quarter
UPPER = [0, 200, 150, 300]  # its upper half: L1 100 / 1000, GIoU 1/2, s (4.5 + 1.5) / 7 = 6/7
NEARLY_ALL = [0, 0, 300, 380]
FAR, FARTHER = [200, 0, 210, 10], [280, 0, 290, 10]
# s of the whole image for CORNER: L1 (200 + 150) / 1000, GIoU 1/4, (3.25 + 1.25) / 7 = 4.5/7
UPPER_GAIN = (6 - 4.5) / (7 - 4.5)


def paid(reward, said, truth, **knobs):
    return reward(str(said), truth, **IMAGE, **knobs)


@pytest.mark.parametrize("module", [safe_module, published_module, overlap_module])
def test_the_truth_and_a_miss_earn_the_bounds(module):
    reward = getattr(module, module.__name__.rpartition(".")[2])
    assert (paid(reward, [], [CORNER]), paid(reward, [CORNER], [CORNER])) == module.BOUNDS == (0.0, 1.0)


@pytest.mark.parametrize(
    ("said", "truth", "want"),
    [
        ([UPPER], [CORNER], UPPER_GAIN),
        # two false boxes: 1 + 2 x 2
        ([UPPER, FAR, FARTHER], [CORNER], UPPER_GAIN / 5),
        # two missed: 3 + 0.25 x 2
        ([UPPER], [CORNER, FAR, FARTHER], UPPER_GAIN / 3.5),
        # FARTHER is paired with FAR, of which it sees nothing, and one box is beyond the two: 2 + 0.25 + 2
        ([UPPER, FARTHER, [250, 350, 260, 360]], [CORNER, FAR], UPPER_GAIN / 4.25),
        # the truth is the whole image: the IoU itself
        ([[0, 0, 300, 200]], [[0, 0, 300, 400]], 0.5),
    ],
)
def test_the_mended_reward_by_hand(said, truth, want):
    assert paid(medmo_box_safe, said, truth) == pytest.approx(want, abs=1e-12)


def test_a_pair_counts_above_an_iou_of_a_fifth_and_not_at_it():
    truth = [0, 0, 100, 100]
    # whole image: L1 (200 + 300) / 1000, IoU 1/12: s0 = (2.5 + 13/12) / 7 = 43/12 / 7
    # IoU 0.21: L1 79 / 1000, s = (5 x 0.921 + 1.21) / 7 = 5.815 / 7
    assert paid(medmo_box_safe, [[0, 0, 100, 20]], [truth]) == 0.0
    assert paid(medmo_box_safe, [[0, 0, 100, 21]], [truth]) == pytest.approx((5.815 - 43 / 12) / (7 - 43 / 12))
    assert paid(medmo_box_safe, [[0, 0, 100, 21]], [truth], least_iou=0.21) == 0.0


def test_a_box_less_alike_than_the_whole_image_gains_nothing_and_takes_nothing_from_another_pair():
    # half of NEARLY_ALL (IoU 1/2, s 5.55/7) is less alike than the whole image (L1 20, IoU .95: 6.85/7): 0, missed
    half = [0, 0, 300, 190]
    assert paid(medmo_box_safe, [half], [NEARLY_ALL]) == 0.0
    assert paid(medmo_box_safe, [UPPER, half], [CORNER, NEARLY_ALL]) == pytest.approx(UPPER_GAIN / 2.25)


def test_a_pair_below_the_least_iou_takes_nothing_from_another_pair():
    # the strip sees 60 of 200 rows of the half: L1 140, s (4.3 + 1.3) / 7 over s0 (4 + 1.5) / 7, so 0.1 / 1.5;
    # it sees 60 of 380 rows of NEARLY_ALL, too few. The half is exact, 1; crossed, they would earn 0.1 / 1.5
    half, strip = [0, 0, 300, 200], [0, 0, 300, 60]
    assert paid(medmo_box_safe, [strip], [half]) == pytest.approx(0.1 / 1.5)
    assert paid(medmo_box_safe, [half, strip], [half, NEARLY_ALL]) == pytest.approx(1 / 2.25)


def test_similarity_and_cost_by_hand():
    # L1 100 / 1000, GIoU 1/2
    assert similarity(tuple(UPPER), tuple(CORNER), **SHAPE) == pytest.approx((5 * 0.9 + 2 * 0.75) / 7)
    assert cost(tuple(UPPER), tuple(CORNER), **SHAPE) == pytest.approx(5 * 0.1 + 2 * 0.5)


def test_an_l1_distance_above_one_counts_as_one():
    # 1500 / 1000; hull 850 x 100, union 2 x 100 x 100: GIoU -65/85
    near, far = (0, 0, 100, 100), (750, 0, 850, 100)
    assert similarity(near, far, **SHAPE) == pytest.approx((1 - 65 / 85) / 7)
    assert cost(near, far, **SHAPE) == pytest.approx(5 * 1.5 + 2 * (1 + 65 / 85))


@pytest.mark.parametrize(
    ("said", "truth", "knobs", "want"),
    [
        ([UPPER], [CORNER], {}, 6 / 7),
        # neither false nor missed boxes cost by default
        ([UPPER, [0, 390, 10, 400]], [CORNER], {}, 6 / 7),
        ([UPPER], [CORNER, FAR, FARTHER], {}, 6 / 7 / 3),
        ([UPPER], [CORNER, FAR, FARTHER], {"false_negative": 0.1}, (6 / 7 - 0.2) / 3),
        ([UPPER, FAR, FARTHER], [CORNER], {"false_positive": 0.1}, 6 / 7 - 0.2),
        ([UPPER, UPPER, UPPER], [CORNER], {"false_positive": 0.5}, 0.0),
        ([], [CORNER], {"false_positive": 0.5}, 0.0),
    ],
)
def test_the_published_reward_by_hand(said, truth, knobs, want):
    assert paid(medmo_box, said, truth, **knobs) == pytest.approx(want)


def test_the_published_reward_pairs_by_its_cost_and_not_by_its_similarity():
    """Beyond an L1 distance of 1 the similarity falls no more, and the cost grows on."""
    a, b = [0, 0, 300, 400], [0, 0, 30, 40]
    # said p, q far out; costs of (p, a), (q, b) and (p, b), (q, a) are told apart by their L1
    p, q = [0, 0, 300, 400], [0, 0, 900, 1200]
    # p with a 0, q with b: L1 (870 + 1160) / 1000 = 2.03, IoU 1200 / 1080000 = 1/900
    assert paid(medmo_box, [p, q], [a, b]) == pytest.approx((1 + (1 + 1 / 900) / 7) / 2)


def test_medmo_needs_the_size_of_the_image():
    for reward in (medmo_box, medmo_box_safe):
        with pytest.raises(InputError, match="neither 'box_grid' nor 'image_size'"):
            reward("[[0,0,10,10]]", [[0, 0, 10, 10]])


@pytest.mark.parametrize(
    ("said", "truth", "want"),
    [
        # 150 x 100 of 300 x 400 is an eighth
        ("[[0,200,150,300],[0,0,3,4]]", [CORNER], (2, 1, 0, 1 / 8)),
        ("[[0,200,150,300]]", [CORNER, FAR, FARTHER], (1, 0, 2, 1 / 8)),
        ("nothing to see", [CORNER], (0, 0, 1, 0)),
        ("[[0,200,150,300]]", None, (1, 1, 0, 1 / 8)),
        # turned corners have no area, on whichever axis
        ("[[10,10,5,20]]", [CORNER], (1, 0, 0, 0)),
        ("[[10,20,20,15]]", [CORNER], (1, 0, 0, 0)),
    ],
)
def test_components_of_the_published_reward_by_hand(said, truth, want):
    names = ("num_boxes", "false_boxes", "missed_boxes", "largest_share")
    assert published_module.components(said, truth, **IMAGE) == dict(zip(names, want, strict=True))


def test_without_a_size_no_box_has_a_share_of_the_image():
    assert published_module.components("[[0,0,10,10]]", [[0, 0, 10, 10]])["largest_share"] == 0.0


@pytest.mark.parametrize(
    ("said", "truth", "knobs", "want"),
    [
        ([UPPER], [CORNER], {}, 0.5),
        # two false boxes: 1 + 2 x 2
        ([UPPER, FAR, FARTHER], [CORNER], {}, 0.5 / 5),
        ([UPPER, FAR, FARTHER], [CORNER], {"false_box_weight": 3.0}, 0.5 / 7),
        ([UPPER], [CORNER, FAR], {}, 0.5 / 2),
        ([UPPER], [CORNER], {"measure": "giou"}, 0.75),
        # 10 x 10 each in a hull of 90 x 10: GIoU -7/9, scaled 1/9; with 1 for the exact box, over two
        ([CORNER, FAR], [CORNER, FARTHER], {"measure": "giou"}, (1 + 1 / 9) / 2),
        ([CORNER, FAR], [CORNER, FARTHER], {}, 1 / 2),
    ],
)
def test_box_overlap_by_hand(said, truth, knobs, want):
    assert paid(box_overlap, said, truth, **knobs) == pytest.approx(want)


ABSENT = {"target": "nodule", "rule_set": "chest_xray@1"}


@pytest.mark.parametrize(
    ("said", "truth", "columns", "want"),
    [
        # IoU 1/2 and 0 over two true boxes; the box without area counts as said
        ("[[0,200,150,300],[5,5,5,5]]", [CORNER, FAR], {}, (0.25, 2, 1)),
        ("I cannot say", [CORNER], {}, (0, 0, 0)),
        ("There is no nodule here.", [], ABSENT, (1, 0, 1)),
        ("There is no nodule here.", None, ABSENT, (1, 0, 1)),
        ("nodule []", [CORNER], ABSENT, (0, 0, 1)),
        ("[[0,200,150,300]]", [], {}, (0, 1, 1)),
    ],
)
def test_components_of_box_overlap_by_hand(said, truth, columns, want):
    parts = overlap_module.components(said, truth, **columns, **IMAGE)
    assert parts == dict(zip(("mean_iou", "num_boxes", "parsed"), map(float, want), strict=True))
