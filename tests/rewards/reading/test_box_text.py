import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.boxes.coordinate_space import Units, answered_boxes, in_written_units, outside, true_boxes
from rewards.boxes.geometry import clipped, iou
from rewards.boxes.reading import read_boxes
from rewards.config.input_error import InputError
from rewards.reading.box_text import (
    as_corners,
    labelled_boxes,
    located_boxes,
    parse_boxes,
    sorted_corners,
    written_boxes,
)
from rewards.reading.reading import phrase_pattern
from rewards.rules.rule_set import load_rule_set

TOKENS = "<loc0002><loc0001><loc0004><loc0003>"
MASS_AND_CYST = [("mass", None), ("cyst", None)]
A, B = (1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Fracture <box>[[1,2,3,4],[5,6,7,8]]</box>", [A, B]),
        ("<box>[[1,2,3,4]]</box> and <box>[[5,6,7,8]]</box>", [A, B]),
        ("<ref>mass</ref><box>[[1, 2, 3, 4]]</box>", [A]),
        ("<|object_ref_start|>mass<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>", [A]),
        ("(1,2),(3,4) (5, 6), (7, 8)", [A, B]),
        ("(1, 2, 3, 4)", [A]),
        ('```json\n[{"bbox_2d": [1, 2, 3, 4], "label": "mass"}]\n```', [A]),
        ('{"boxes": [{"Position": [1,2,3,4]}, {"Position": [5,6,7,8]}]}', [A, B]),
        ("[{'bbox': [1,2,3,4], 'label': 'mass',},]", [A]),
        ('{"box": [1,2,3,4], "confidence": 0.9}', [A]),
        ('{"x1": 1, "y1": 2, "x2": 3, "y2": 4}', [A]),
        ('{"xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}', [A]),
        ('```json\n[{"bbox_2d": [1,2,3,4]}, {"bbox_2d": [5, 6', [A]),
        ('[\n  [\n    1,\n    2,\n    3,\n    4\n  ]\n]', [A]),
        ("[1,2,3,4]", [A]),
        ("[-5, 0, 1.5, 10]", [(-5, 0, 1.5, 10)]),
        ("[.1, .2, .5, 1e0]", [(0.1, 0.2, 0.5, 1.0)]),
        ("```\n[1,2,3,4]\n```\nbetter:\n```\n[5,6,7,8]\n```", [A, B]),
        ("[1,2,3,4] ```[5,6,7,8]```", [A, B]),
        ("<loc0002><loc0001><loc0004><loc0003> [5,6,7,8]", [A, B]),
        ("```\n[1,2,3,4]\n```\n```\nprint()\n```", [A]),
        ("<think>[1,2,3,4]</think><answer>[5,6,7,8]</answer>", [B]),
        ("<think>[1,2,3,4]</think> [5,6,7,8]", [B]),
        ("<think>it may be at [1,2,3,4]", None),
        ("<loc0002><loc0001><loc0004><loc0003> mass", [A]),
        ("<phrase>mass</phrase><object><patch_index_0000><patch_index_0033></object>", [(16, 16, 48, 48)]),
        ("<object><patch_index_0000><patch_index_0001></object>", [(0, 0, 64, 32)]),
        ("[]", []), ("<box></box>", []), ("No finding.", []), ("none", []), ("There are no lesions.", []),
        ("```json\n[]\n```", []), ("nodule []", []), ('{"boxes": []}', []), ("Image 2: nodule []", []),
        ("a nodule, none of it normal", None), ("[] but I am not sure", None), ("maybe one []", None),
        ("No lesion here, but a mass there.", None), ("A mass. No lesions.", None),
        ("<think>[]</think>I cannot say", None),
        ("[1,1,1,1]", []), ("[3,4,1,2]", []),
        ("10, 20, 30, 40 mg", None), ("[1,2,3]", None), ("[1,2,3,4,5]", None), ("[NaN,0,1,1]", None),
        ("[0,0,inf,1]", None), ("[0,0,1e9,1e9]", None), ("[0,0,99999999,5]", None), ("", None), ("nodule", None),
    ],
)  # fmt: skip
def test_every_convention_is_read(text, want):
    assert parse_boxes(text) == want


def test_invalid_boxes_are_written_but_not_parsed():
    assert written_boxes("[1,2,3,4] [5,5,5,9]") == [A, (5, 5, 5, 9)]
    assert parse_boxes("[3,4,1,2]", corners="repair") == [A]
    assert parse_boxes("[1,2,2,2]", layout="xywh") == [A]
    assert parse_boxes("[2,3,2,2]", layout="cxcywh") == [A]


@pytest.mark.parametrize(
    "hostile",
    [
        "[" * 2_000_000, "[1," * 500_000, "(1,2)" + " " * 1_000_000, "<loc" * 500_000, "```" * 100_000,
        "{'x1': " * 200_000, "<answer>" * 300_000, "[1,2,3,4] " + "[" * 1_000_000, "1" * 5_000_000,
    ],
    ids=["brackets", "opened", "spaces", "locations", "fences", "names", "tags", "box and brackets", "digits"],
)  # fmt: skip
def test_hostile_text_takes_linear_time(hostile):
    start = time.process_time()
    parse_boxes(hostile)
    labelled_boxes("nodule " + hostile, phrase_pattern(load_rule_set("chest_xray")))
    read_boxes(hostile[:1_000_000])
    assert time.process_time() - start < 20


def test_twice_the_text_takes_about_twice_the_time():
    def seconds(size):
        start = time.process_time()
        parse_boxes("[1, 2 (3, 4) " * size)
        return time.process_time() - start

    seconds(1000)
    assert min(seconds(80_000) for _ in range(3)) < 16 * min(seconds(10_000) for _ in range(3))


@given(st.text(alphabet="[](){}<>loc/answertpik,.:'\"`0123456789-eE x1 \n,", max_size=300))
def test_hostile_text_never_raises(text):
    for box in parse_boxes(text) or []:
        assert all(math.isfinite(v) for v in box)
        assert box[2] > box[0]
        assert box[3] > box[1]
    assert all(b.label is None or b.label == b.label.lower() for b in read_boxes(text).boxes)


SIDE = st.floats(0.001, 999, allow_nan=False)
VALID = st.tuples(SIDE, SIDE, SIDE, SIDE).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
RENDERED = {
    "list": lambda boxes: str([list(b) for b in boxes]),
    "tags": lambda boxes: "".join(f"mass <box>[[{b[0]}, {b[1]}, {b[2]}, {b[3]}]]</box>" for b in boxes),
    "pairs": lambda boxes: " ".join(f"<|box_start|>({b[0]},{b[1]}),({b[2]},{b[3]})<|box_end|>" for b in boxes),
    "json": lambda boxes: "```json\n" + str([{"bbox_2d": list(b), "label": "mass"} for b in boxes]) + "\n```",
    "tuples": lambda boxes: " ".join(f"({b[0]},{b[1]},{b[2]},{b[3]})" for b in boxes),
}


@pytest.mark.parametrize("form", RENDERED)
@given(boxes=st.lists(VALID, min_size=1, max_size=5))
def test_what_is_written_is_read(form, boxes):
    assert parse_boxes(RENDERED[form](boxes)) == boxes


@given(st.lists(st.tuples(*[st.integers(0, 500)] * 4), min_size=1, max_size=4))
def test_location_tokens_are_read_y_first(boxes):
    valid = [(a, b, a + c + 1, b + d + 1) for a, b, c, d in boxes]
    text = " ; ".join(f"<loc{y1:04}><loc{x1:04}><loc{y2:04}><loc{x2:04}> mass" for x1, y1, x2, y2 in valid)
    assert parse_boxes(text) == valid


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Fracture <box>[[1,2,3,4],[5,6,7,8]]</box>", [("fracture", None), ("fracture", None)]),
        ("nodule [[1,2,3,4]] effusion [[5,6,7,8]]", [("nodule", None), ("effusion", None)]),
        ("<ref>left mass</ref><box>[[1,2,3,4]]</box>", [("left mass", None)]),
        ("<|object_ref_start|>mass<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>", [("mass", None)]),
        ('[{"bbox": [1,2,3,4], "label": "Mass"}, {"label": "cyst", "bbox": [5,6,7,8]}]', MASS_AND_CYST),
        ('[{"image": 2, "bbox": [1,2,3,4]}, {"bbox": [5,6,7,8], "image": 3}]', [(None, 2), (None, 3)]),
        ("Image 1: [1,2,3,4]. Image 3: [5,6,7,8]", [(None, 1), (None, 3)]),
        ("<image2> mass [1,2,3,4]", [("mass", 2)]),
        (f"{TOKENS} mass ; {TOKENS} cyst", MASS_AND_CYST),
        ("<phrase>mass</phrase><object><patch_index_0000><patch_index_0033></object>", [("mass", None)]),
    ],
)  # fmt: skip
def test_labels_and_images_are_read_beside_the_boxes(text, want):
    got = [(b.label, b.image) for b in read_boxes(text).boxes]
    assert [g[1] for g in got] == [w[1] for w in want]
    assert [g[0] if w[0] else None for g, w in zip(got, want, strict=True)] == [w[0] for w in want]


def test_invalid_boxes_are_counted():
    assert read_boxes("mass [[1,1,1,1],[1,2,3,4]]").num_invalid == 1


def test_the_boxes_and_the_list_leave_the_text():
    bare, found = labelled_boxes("nodule [[1,2,3,4],[5,6,7,8]] (left)", phrase_pattern(load_rule_set("chest_xray")))
    assert [label for label, _ in found] == ["nodule", "nodule"]
    assert bare.split() == ["nodule", "(left)"]


def test_a_place_tells_where_a_box_stands():
    place = next(located_boxes("mass [1,2,3,4]!"))
    assert (place.start, place.end) == (5, 14)


@given(st.tuples(*[st.integers(0, 600)] * 2), st.tuples(*[st.integers(1, 400)] * 2))
def test_a_box_comes_back_from_a_grid_within_a_pixel(corner, size):
    box = (*corner, corner[0] + size[0], corner[1] + size[1])
    units = Units("0-1000", image_size=[[1024, 768]])
    said = in_written_units(f"mass [[{','.join(map(str, box))}]]", units)
    [back] = answered_boxes(said, units) or []
    assert all(abs(a - b) <= 1 for a, b in zip(box, back, strict=True))


def test_iou_does_not_depend_on_the_space_but_a_wrong_space_shows():
    a, b = (100, 100, 200, 200), (120, 110, 220, 220)
    units = Units("0-1000", image_size=[[640, 480]])
    assert iou(units.read(a), units.read(b)) == pytest.approx(iou(a, b))
    assert iou(a, units.read(a)) < 0.2


def test_xywh_read_as_xyxy_overlaps_little():
    box = (100, 100, 200, 200)
    assert iou(box, (100, 100, 100 + 200, 100 + 200)) == pytest.approx(0.25)
    assert as_corners((100, 100, 100, 100), "xywh") == box


PIXELS = [[640, 480]]


@pytest.mark.parametrize("space", ["0-1", "0-1000", "pixels"])
def test_a_declared_space_is_nothing_beside_a_truth_of_unknown_units(space):
    with pytest.raises(InputError, match="neither 'box_grid' nor 'image_size'"):
        Units(space).read((1, 2, 3, 4))


@pytest.mark.parametrize("box", [(20, 20, 10, 10), (10, 10, 10, 20), (1, 2, 3, float("nan")), (1, 2, float("inf"), 4)])
def test_a_true_box_that_is_none_is_an_error(box):
    for units in (Units(), Units(box_grid=100)):
        with pytest.raises(InputError, match="is none: expected x1 < x2"):
            true_boxes([box], units)


@pytest.mark.parametrize(
    ("said", "units", "want"),
    [
        ("[320,240,640,480]", Units("pixels", 100, PIXELS), (50, 50, 100, 100)),
        ("[0.5,0.5,1,1]", Units("0-1", 100), (50, 50, 100, 100)),
        ("[500,500,1000,1000]", Units("0-1000", None, PIXELS), (320, 240, 640, 480)),
        ("[50,50,100,100]", Units("0-100", 1000), (500, 500, 1000, 1000)),
        ("[512,512,1024,1024]", Units("0-1024", 100), (50, 50, 100, 100)),
        ("[160,120,320,240]", Units("processed", 100, PIXELS, [[320, 240]]), (50, 50, 100, 100)),
        ("[160,120,320,240]", Units("processed", None, PIXELS, [[320, 240]]), (320, 240, 640, 480)),
        ("[1,2,3,4]", Units("grid", 100, PIXELS), A),
        ("[1,2,3,4]", Units("grid", None, PIXELS), A),
        ("[1,2,3,4]", Units("grid"), A),  # neither grid nor size: one unit
    ],
)
def test_boxes_come_in_the_truths_units_and_go_back(said, units, want):
    assert answered_boxes(said, units) == [want]
    assert in_written_units("[" + ",".join(f"{v:g}" for v in want) + "]", units) == said


def test_an_answer_in_the_models_units_keeps_its_words_and_tells_images_apart():
    units = Units("pixels", 100, [[200, 100], [400, 300]])
    said = in_written_units("image 1: [[50,50,100,100]] image 2: [[50,50,100,100]]", units, [1, 2])
    assert said == "image 1: [[100,50,200,100]] image 2: [[200,150,400,300]]"
    assert [units.read(box, k) for k, box in ((1, (100, 50, 200, 100)), (2, (200, 150, 400, 300)))] == [
        (50, 50, 100, 100)
    ] * 2


def test_a_space_that_the_row_does_not_tell_is_an_error():
    with pytest.raises(InputError, match="image_size"):
        answered_boxes("[1,2,3,4]", Units("pixels", 100))
    with pytest.raises(InputError, match="processed_size"):
        answered_boxes("[1,2,3,4]", Units("processed", 100, PIXELS))
    with pytest.raises(InputError, match="above 0"):
        answered_boxes("[1,2,3,4]", Units("0-1", None, [[0, 4]]))


def test_a_true_box_outside_its_image_is_an_error():
    assert outside((0, 0, 640.4, 480), Units(image_size=PIXELS)) is None  # half a pixel
    assert outside((0, 0, 640, 480), Units()) is None
    with pytest.raises(InputError, match=r"\[0, 0, 101, 50\] is not inside 100 x 100"):
        true_boxes([[0.0, 0.0, 101.0, 50.0]], Units(box_grid=100))
    with pytest.raises(InputError, match="640 x 480"):
        true_boxes([[0, 0, 10, 10], [0, 0, 10, 490]], Units(image_size=PIXELS))
    assert true_boxes([[0, 0, 400, 10]], Units(image_size=[[200, 100], [400, 300]]), [2]) == [(0, 0, 400, 10)]


def test_boxes_are_clipped_and_sorted():
    assert clipped((200, 200, 300, 300), width=100, height=100) == (100, 100, 100, 100)
    assert sorted_corners((3, 4, 1, 2)) == (1, 2, 3, 4)
