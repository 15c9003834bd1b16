from functools import partial

import numpy as np
import pytest

from data_builders import seeds
from data_builders.sources.drawn.phantom_marrow import (
    DISEASES,
    Cell,
    FieldOfView,
    draw,
    facts_of,
    field_of_view,
    phantom_marrow,
)
from rewards.config.input_error import InputError
from rewards.rules.rule_set import load_rule_set

seeded = partial(seeds.seeded, "phantom_marrow")
RULES = load_rule_set("phantom_marrow@1")


@pytest.fixture(scope="module")
def samples():
    return list(phantom_marrow(patients=120, seed=3))


def classes(samples):
    for sample in samples:
        derived = RULES.decision.derived(sample.facts.record())
        yield sample, {name: symbol for name, symbol in derived.items() if symbol is not None}


def test_the_same_call_draws_the_same_bytes():
    one, two = (list(phantom_marrow(patients=4, seed=9)) for _ in range(2))
    assert [s.image.tobytes() for s in one] == [s.image.tobytes() for s in two]
    assert [s.facts for s in one] == [s.facts for s in two]


def test_a_patient_does_not_depend_on_how_many_are_drawn():
    few, many = list(phantom_marrow(patients=3)), list(phantom_marrow(patients=9))
    assert [s.image.tobytes() for s in few] == [s.image.tobytes() for s in many[:6]]


def test_another_seed_draws_other_fields():
    one, other = (next(phantom_marrow(patients=1, seed=seed)) for seed in (0, 1))
    assert one.image.tobytes() != other.image.tobytes()


def test_every_field_has_answers_on_a_valid_path(samples):
    for sample in samples:
        assert RULES.decision.fault_of(RULES.decision.derived(sample.facts.record())) is None


def test_every_class_is_drawn_about_as_often_as_planned(samples):
    """Half the fields are marrow in focus, a third of each disease; a sixth each is blurred, blood or clot."""
    found = [RULES.decision.classes_of(symbols)[0] for _, symbols in classes(samples)]
    for name in RULES.decision.paths:
        assert 0.08 < found.count(name) / len(found) < 0.26, name


def test_the_drawn_disease_is_the_derived_diagnosis(samples):
    for sample, symbols in classes(samples):
        if symbols["diagnosis"] != "inadequate":
            assert symbols["diagnosis"] == sample.provenance["disease"]


def test_fields_of_one_patient_share_the_disease_and_differ(samples):
    for one, other in zip(samples[::2], samples[1::2], strict=True):
        assert one.patient == other.patient
        assert one.provenance["disease"] == other.provenance["disease"]
        assert one.image.tobytes() != other.image.tobytes()


def test_cells_do_not_overlap_and_lie_inside():
    for seed in range(30):
        cells = field_of_view(DISEASES[seed % 3], seeded(seed), adequate=1.0).cells
        assert len(cells) >= 12
        for k, cell in enumerate(cells):
            assert cell.radius <= min(cell.x, cell.y)
            assert max(cell.x, cell.y) <= 128 - cell.radius
            for other in cells[:k]:
                assert np.hypot(cell.x - other.x, cell.y - other.y) > cell.radius + other.radius - 1


@pytest.mark.parametrize(("kind", "name"), [("blasts", "blasts"), ("plasma_cells", "plasma_cells")])
def test_a_box_holds_its_cell_and_nothing_else_changes(kind, name):
    cell = Cell(kind, 60.0, 70.0, 10.0, 0.7)
    with_cell, without = FieldOfView("marrow", "sharp", (cell,)), FieldOfView("marrow", "sharp")
    (box,) = facts_of(with_cell, size=128).findings[name].boxes
    change = np.abs(pixels(with_cell) - pixels(without)).max(axis=2)
    rows, columns = np.nonzero(change > 40)
    assert box[0] - 1 <= columns.min()
    assert columns.max() <= box[2] + 1
    assert box[1] - 1 <= rows.min()
    assert rows.max() <= box[3] + 1
    assert columns.max() - columns.min() > 0.8 * (box[2] - box[0])
    assert rows.max() - rows.min() > 0.8 * (box[3] - box[1])


def pixels(view):
    """The view without red cells, which would make way for the cell."""
    from data_builders.sources.drawn import phantom_marrow as module

    canvas = module._Canvas(128)
    for cell in view.cells:
        module._DRAWN[cell.kind](canvas, cell)
    return canvas.pixels * 255


def mean_colour(field, focus="sharp", cells=()):
    return np.mean(
        [np.asarray(draw(FieldOfView(field, focus, cells), seeded(k), size=64)).mean((0, 1)) for k in range(4)], 0
    )


def test_blood_clot_and_marrow_are_told_apart_by_their_colour_alone():
    marrow, blood, clot = mean_colour("marrow"), mean_colour("blood"), mean_colour("clot")
    assert marrow[1] > blood[1] + 15 > clot[1] + 30


def test_a_blurred_field_has_less_detail():
    cells = field_of_view("AML", seeded(1), adequate=1.0).cells
    sharp, blurred = (
        np.asarray(draw(FieldOfView("marrow", f, cells), seeded(2), size=128), float) for f in ("sharp", "blurred")
    )
    detail = [np.abs(np.diff(image.mean(2), axis=0)).mean() for image in (sharp, blurred)]
    assert detail[1] < 0.75 * detail[0]


def test_a_pale_stain_has_less_contrast():
    view = field_of_view("AML", seeded(1), adequate=1.0)
    strong, pale = (np.asarray(draw(view, seeded(2), size=128, stain=s), float).std() for s in (1.0, 0.3))
    assert pale < 0.5 * strong


def test_a_field_that_shows_no_marrow_states_no_cells(samples):
    for sample in samples:
        in_focus = sample.facts.values["field"] == "marrow" and sample.facts.values["focus"] == "sharp"
        assert bool(sample.facts.findings) == in_focus


@pytest.mark.parametrize(
    ("knobs", "want"),
    [
        ({"patients": -1}, "patients: got -1"),
        ({"patients": 1, "size": 8}, "size: got 8"),
        ({"patients": 1, "images_per_patient": 0}, "images_per_patient: got 0"),
        ({"patients": 1, "adequate": 1.5}, "adequate: got 1.5"),
        ({"patients": 1, "stain": 0.0}, "stain: got 0.0"),
    ],
)
def test_a_knob_out_of_range_is_named(knobs, want):
    with pytest.raises(InputError, match=want):
        phantom_marrow(**knobs)
