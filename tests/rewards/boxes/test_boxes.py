import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.boxes.geometry import (
    _assignments,
    area,
    best_pairs,
    clipped,
    corner_distance,
    giou,
    iou,
    iou_matrix,
    match_boxes,
    parse_boxes,
)

SIDE = st.floats(1, 50)
BOXES = st.tuples(st.floats(0, 50), st.floats(0, 50), SIDE, SIDE).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


@pytest.mark.parametrize(
    ("a", "b", "want_iou", "want_giou"),
    [
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7, -0.0793650794),
        ((0, 0, 1, 1), (2, 0, 3, 1), 0.0, -1 / 3),
        ((0, 0, 1, 1), (1, 0, 2, 1), 0.0, 0.0),
        ((25, 25, 75, 75), (0, 0, 100, 100), 0.25, 0.25),
    ],
)
def test_golden_overlaps(a, b, want_iou, want_giou):
    assert iou(a, b) == pytest.approx(want_iou)
    assert giou(a, b) == pytest.approx(want_giou)


@given(BOXES, BOXES)
def test_giou_is_symmetric_and_never_above_iou(a, b):
    assert giou(a, b) == pytest.approx(giou(b, a))
    assert -1 <= giou(a, b) <= iou(a, b) + 1e-9
    assert giou(a, a) == pytest.approx(1)


@given(st.lists(BOXES, min_size=1, max_size=4), st.lists(BOXES, min_size=1, max_size=4))
def test_matching_equals_brute_force(predicted, truth):
    ious = iou_matrix(predicted, truth)
    got = sum(ious[pair] for pair in match_boxes(predicted, truth))
    small, large = sorted((len(predicted), len(truth)))
    square = ious if len(predicted) == small else ious.T
    best = max(sum(square[i, j] for i, j in enumerate(p)) for p in itertools.permutations(range(large), small))
    assert got == pytest.approx(best)


def test_matching_takes_the_best_total_and_not_the_first_best_pair():
    predicted, truth = [(80, 0, 180, 100), (60, 0, 160, 100)], [(50, 0, 150, 100), (70, 0, 170, 100)]
    ious = iou_matrix(predicted, truth)
    assert sum(ious[pair] for pair in match_boxes(predicted, truth)) == pytest.approx(1.636, abs=1e-3)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Fracture <box>[[15, 51, 23, 60], [24, 52, 29, 58]]</box>", [(15, 51, 23, 60), (24, 52, 29, 58)]),
        ("```json\n[{\"bbox_2d\": [1, 2, 3, 4], \"label\": \"mass\"}]\n```", [(1, 2, 3, 4)]),
        ("[0.1,0.2,0.5,0.6]", [(0.1, 0.2, 0.5, 0.6)]),
        ("[-5, 0, 10, 10]", [(-5, 0, 10, 10)]),
        ("[1,2,3]", None), ("[1,2,3,4,5]", None), ("10, 20, 30, 40 mg", None), ("", None),
        ("[]", []), ("none", []), ("[5,5,5,5]", []), ("[9,9,1,1]", []),
    ],
)  # fmt: skip
def test_boxes_are_read_in_the_forms_that_models_write(text, want):
    assert parse_boxes(text) == want


@given(st.text(alphabet="[](),.0123456789-e ", max_size=200))
def test_hostile_text_never_raises_and_gives_only_valid_boxes(text):
    for box in parse_boxes(text) or []:
        assert all(math.isfinite(v) for v in box)
        assert box[2] > box[0]
        assert box[3] > box[1]


@given(st.lists(st.tuples(*[st.integers(0, 99)] * 4), max_size=5))
def test_what_is_written_is_read(boxes):
    valid = [(a, b, a + c + 1, b + d + 1) for a, b, c, d in boxes]
    assert parse_boxes(str([list(b) for b in valid])) == [tuple(map(float, b)) for b in valid]
    assert np.isfinite(iou_matrix(valid, valid)).all()


def test_area_by_hand_and_of_boxes_without_any():
    assert area((1, 2, 4, 9)) == 3 * 7
    assert (area((0, 0, 1, 3)), area((0, 0, 3, 1))) == (3, 3)
    for empty in ((0, 0, -0.5, 2), (0, 0, 2, -0.5), (0, 0, 0, 2), (0, 0, 2, 0)):
        assert area(empty) == 0


A, B = (1, 2, 5, 7), (3, 4, 8, 11)
# 4 x 5 and 5 x 7, common 2 x 3, so union 49; hull 7 x 9 = 63
AB_IOU, AB_GIOU = 6 / 49, 6 / 49 - 14 / 63


def both(one, other):
    """IoU and GIoU, the same both ways round, on both axes, and the IoU from the matrix."""
    found = {(iou(a, b), giou(a, b)) for a, b in itertools.permutations((one, other))}
    turned = tuple((y1, x1, y2, x2) for x1, y1, x2, y2 in (one, other))
    found.add((iou(*turned), giou(*turned)))
    for a, b in ((one, other), turned):
        found.add((iou_matrix([a], [b]).item(), giou(a, b)))
    (first, *others) = found
    assert all(one == pytest.approx(first) for one in others)
    return first


@pytest.mark.parametrize(
    ("a", "b", "want_iou", "want_giou"),
    [
        (A, B, AB_IOU, AB_GIOU),
        # half as wide as high, apart by half: hull 1 x 3 / 2
        ((0, 0, 0.5, 0.5), (1, 0, 1.5, 0.5), 0, -1 / 3),
        ((0, 0, 0.5, 0.5), (0, 0, 0.5, 0.25), 0.5, 0.5),
        # apart along both axes by half: hull 2.5 x 2.5, union 2
        ((0, 0, 1, 1), (1.5, 1.5, 2.5, 2.5), 0, -4.25 / 6.25),
        # apart along one axis alone: hull 2.5 x 2, union 4
        ((0, 0, 1, 2), (1.5, 0, 2.5, 2), 0, -1 / 5),
        # no area: a line, a point, corners turned; a hull without area leaves the IoU, which is 0
        ((5, 0, 5, 10), (5, 0, 5, 10), 0, 0),
        ((5, 5, 5, 5), (5, 5, 5, 5), 0, 0),
        ((5, 0, 4.5, 10), (5, 0, 4.5, 10), 0, 0),
        ((5, 10, 3, 8), (5, 10, 3, 8), 0, 0),
        # a point at a box's corner: hull 2 x 2, union 4
        ((0, 0, 2, 2), (2, 2, 2, 2), 0, 0),
    ],
)
def test_overlaps_by_hand(a, b, want_iou, want_giou):
    assert both(a, b) == pytest.approx((want_iou, want_giou))


def test_a_table_of_overlaps_by_hand():
    # B with itself 1, A with itself 1; a third box, 1 x 1, inside B alone: 1 / 35
    inside = (7, 10, 8, 11)
    ious = [[1, AB_IOU], [AB_IOU, 1], [0, 1 / 35]]
    np.testing.assert_allclose(iou_matrix([A, B, inside], [A, B]), ious, rtol=1e-12)


def test_a_box_with_turned_corners_has_no_area_in_a_table():
    assert iou_matrix([(0, 0, 10, 10)], [(3, 20, 5, 10)]).item() == 0


def test_corner_distance_by_hand():
    # |1 - 3| + |2 - 4| + |5 - 8| + |7 - 11| = 11 over 2 x 500
    assert corner_distance(A, B, width=300, height=400) == pytest.approx(0.011)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    ("low", "high", "want"),
    [
        (10, 50, (10, 50)),
        (-0.5, 50, (0, 50)),
        (10, 100.5, (10, 100)),
        (-5, -3, (0, 0)),
        (120, 130, (100, 100)),
        (120, 50, (100, 50)),
        (50, -5, (50, 0)),
        (0, 0.5, (0, 0.5)),
    ],
)
def test_each_corner_is_clipped_on_its_own(axis, low, high, want):
    other, extent = (20, 250), {"width": (100, 300)[axis], "height": (300, 100)[axis]}
    spans, wanted = [(low, high), other], [want, other]
    (x1, x2), (y1, y2) = spans if axis == 0 else spans[::-1]
    (wx1, wx2), (wy1, wy2) = wanted if axis == 0 else wanted[::-1]
    assert clipped((x1, y1, x2, y2), **extent) == (wx1, wy1, wx2, wy2)


@pytest.mark.parametrize(
    ("score", "want"),
    [
        ([], []),
        ([[]], []),
        ([[], []], []),
        ([[5.0]], [(0, 0)]),
        ([[1.0, 2.0]], [(0, 1)]),
        ([[1.0], [2.0]], [(1, 0)]),
        # both rows wish the first column: 5 + 1 against 4 + 4
        ([[5.0, 4.0], [4.0, 1.0]], [(0, 1), (1, 0)]),
        # 5 + 2 against 4 + 4, over three columns and over four, and the same with rows for columns
        ([[5.0, 4.0, 0.0], [4.0, 2.0, 0.0]], [(0, 1), (1, 0)]),
        ([[5.0, 4.0, 0.0, 0.0], [4.0, 2.0, 0.0, 0.0]], [(0, 1), (1, 0)]),
        ([[5.0, 4.0], [4.0, 2.0], [0.0, 0.0], [0.0, 0.0]], [(0, 1), (1, 0)]),
        ([[5.0, 4.0], [4.0, 2.0], [0.0, 0.0]], [(0, 1), (1, 0)]),
    ],
)
def test_pairs_of_the_greatest_total_by_hand(score, want):
    assert best_pairs(score) == want


def test_up_to_three_boxes_every_assignment_is_tried_and_scipy_is_called_beyond():
    _assignments.cache_clear()
    best_pairs([[5.0, 4.0, 0.0, 0.0], [4.0, 2.0, 0.0, 0.0]])
    assert _assignments.cache_info().misses == 0
    best_pairs([[5.0, 4.0, 0.0], [4.0, 2.0, 0.0]])
    assert _assignments.cache_info().misses == 1


def test_boxes_are_matched_by_their_iou_or_by_an_overlap_that_is_given():
    assert match_boxes([A, B], [B, A]) == [(0, 1), (1, 0)]
    assert match_boxes([A, B], [B, A], np.array([[1.0, 0.0], [0.0, 1.0]])) == [(0, 0), (1, 1)]
    assert match_boxes([], [A]) == match_boxes([A], []) == match_boxes([], []) == []
