import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.boxes import giou, iou, iou_matrix, match_boxes, parse_boxes

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
