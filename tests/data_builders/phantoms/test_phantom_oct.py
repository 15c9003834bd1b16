from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from data_builders.phantoms.oct_scan import Lesion, draw
from data_builders.seeds import seeded
from data_builders.sources.drawn.phantom_oct import EXTENT, STAGES, EyeOfPatient, eye_of, phantom_oct, region
from rewards.config.input_error import InputError
from rewards.rules.facts import Facts, Finding
from rewards.rules.rule_set import load_rule_set
from rewards.rules.stages import all_scales

DRAWN = ("drusen", "ped", "subretinal_fluid", "intraretinal_fluid", "shrm", "hyperreflective_foci", "hypertransmission")


@pytest.fixture(scope="module")
def samples():
    return list(phantom_oct(patients=60, seed=3))


@pytest.fixture(scope="module")
def eyes():
    return [eye_of(index, eye, seed=3) for index in range(60) for eye in ("right", "left")]


@pytest.fixture(scope="module")
def removals(eyes):
    """For each finding: its boxes, and the image with it less the same image without it."""
    found = {name: [] for name in DRAWN}
    for place, own in enumerate(eyes[:80]):
        image, boxes = drawn(own, place)
        for name in boxes:
            bare, _ = drawn(without(own, name), place)
            found[name].append((boxes[name], image - bare))
    return found


def drawn(own: EyeOfPatient, place: int = 0, *, size: int = 128):
    image, boxes = draw(own.retina, own.lesions, view=seeded("phantom_oct", 5, place), size=size)
    return np.asarray(image, dtype=np.float64), boxes


def without(own: EyeOfPatient, name: str) -> EyeOfPatient:
    return replace(own, lesions=tuple(lesion for lesion in own.lesions if lesion.kind != name))


def alone(own: EyeOfPatient, *lesions: Lesion):
    return drawn(replace(own, lesions=lesions))


def within(boxes, shape, margin=0):
    mask = np.zeros(shape, dtype=bool)
    for x1, y1, x2, y2 in boxes:
        mask[max(int(y1) - margin, 0) : int(y2) + margin, max(int(x1) - margin, 0) : int(x2) + margin] = True
    return mask


def stage_of(facts: Facts):
    staging = load_rule_set("retina_amd@1").staging
    assert staging is not None
    scales, clashes = all_scales(facts.record(), staging)
    return scales["stage"].words, clashes


def test_the_same_call_draws_the_same_bytes():
    first, second = (list(phantom_oct(patients=3, seed=9)) for _ in range(2))
    assert [s.image.tobytes() for s in first] == [s.image.tobytes() for s in second]
    assert [s.facts for s in first] == [s.facts for s in second]


def test_a_patient_does_not_depend_on_how_many_are_drawn():
    few, many = list(phantom_oct(patients=3)), list(islice(phantom_oct(patients=50), 6))
    assert [(s.id, s.facts, s.image.tobytes()) for s in few] == [(s.id, s.facts, s.image.tobytes()) for s in many]


def test_another_seed_draws_other_patients():
    one, other = (next(phantom_oct(patients=1, seed=seed)) for seed in (0, 1))
    assert one.image.tobytes() != other.image.tobytes()


def test_every_patient_has_both_eyes_and_each_eye_its_scans():
    scans = list(phantom_oct(patients=2, scans_per_eye=2))
    assert [s.id for s in scans[:4]] == ["o00000-right-0", "o00000-right-1", "o00000-left-0", "o00000-left-1"]
    assert {s.study for s in scans[:4]} == {"o00000-right", "o00000-left"}
    assert scans[0].image.tobytes() != scans[1].image.tobytes()
    assert scans[0].facts.without_boxes() == scans[1].facts.without_boxes()


def test_sixty_patients_have_every_stage_about_equally_often(samples):
    stages = Counter(stage_of(sample.facts)[0] for sample in samples)
    assert set(stages) == set(STAGES)
    assert all(10 <= number <= 32 for number in stages.values())


def test_the_rule_set_derives_the_stage_that_was_aimed_at_and_finds_no_contradiction(samples, eyes):
    for sample, own in zip(samples, eyes, strict=True):
        assert stage_of(sample.facts) == (own.stage, [])


@pytest.mark.parametrize("stage", STAGES)
def test_an_eye_of_a_given_stage_can_be_asked_for(stage):
    assert all(eye_of(index, "left", seed=1, stage=stage).stage == stage for index in range(5))


def test_every_finding_is_stated_as_the_rule_set_allows(samples):
    rules = load_rule_set("retina_amd@1").findings
    for sample in samples:
        assert list(sample.facts.findings) == list(rules)
        for name, finding in sample.facts.findings.items():
            assert finding.polarity in ("present", "absent")
            assert finding.side in (None, *rules[name].sides)
            assert finding.size in (None, *rules[name].sizes)
            if finding.polarity == "absent":
                assert finding == Finding(polarity="absent")


def test_what_follows_from_a_finding_is_stated(samples):
    for sample in samples:
        there = set(sample.facts.present())
        assert ("rpe_elevation" in there) == bool(there & {"drusen", "ped"})
        assert ("rpe_atrophy" in there) == ("hypertransmission" in there)
        assert ("retinal_fluid" in there) == bool(there & {"subretinal_fluid", "intraretinal_fluid"})
        assert ("retinal_thinning" in there) == ("crora" in there)


def test_boxes_lie_inside_the_image_one_for_each_lesion(samples, eyes):
    for sample, own in zip(samples, eyes, strict=True):
        for name in DRAWN:
            boxes = sample.facts.findings[name].boxes
            assert len(boxes) == sum(lesion.kind == name for lesion in own.lesions)
            assert all(0 <= x1 < x2 <= 128 and 0 <= y1 < y2 <= 128 for x1, y1, x2, y2 in boxes)


def test_a_box_holds_the_centre_of_its_lesion_and_is_as_wide(samples, eyes):
    for sample, own in zip(samples, eyes, strict=True):
        for name in DRAWN:
            lesions = [lesion for lesion in own.lesions if lesion.kind == name]
            for (x1, _, x2, _), lesion in zip(sample.facts.findings[name].boxes, lesions, strict=True):
                assert x1 <= lesion.x <= x2
                assert 1.3 * lesion.half_width <= x2 - x1 <= 2 * lesion.half_width + 3


@pytest.mark.parametrize("name", ["drusen", "subretinal_fluid", "intraretinal_fluid", "shrm", "hyperreflective_foci"])
def test_taking_a_finding_away_changes_the_picture_mostly_above_and_in_its_boxes(removals, name):
    """A mound lifts the retina above it, so the columns of its box change; the columns beside them hardly do."""
    assert len(removals[name]) >= 5
    for boxes, change in removals[name]:
        columns = within([(x1, 0, x2, 128) for x1, _, x2, _ in boxes], change.shape, margin=8)
        assert np.abs(change[columns]).mean() > 3 * np.abs(change[~columns]).mean()


@pytest.mark.parametrize("name", ["subretinal_fluid", "intraretinal_fluid"])
def test_fluid_is_dark(samples, name):
    for sample in samples:
        for x1, y1, x2, y2 in sample.facts.findings[name].boxes:
            x, y = int(x1 + x2) // 2, int(0.6 * y1 + 0.4 * y2)
            core = np.asarray(sample.image, dtype=float)[y - 1 : y + 2, x - 1 : x + 2]
            assert np.median(core) < 45


def test_subretinal_material_is_bright_and_fluid_dark_in_the_same_place():
    own = eye_of(0, "right", seed=0, stage="healthy")
    means = {}
    for kind in ("shrm", "subretinal_fluid"):
        image, boxes = alone(own, Lesion(kind, 40.0, 16.0, 10.0))
        x1, y1, x2, y2 = (int(v) for v in boxes[kind][0])
        means[kind] = image[(y1 + y2) // 2, x1 + 8 : x2 - 8].mean()
    assert means["shrm"] > means["subretinal_fluid"] + 80


def test_the_three_kinds_of_detachment_are_filled_differently():
    own = eye_of(0, "right", seed=0, stage="healthy")
    inside = {}
    for kind in ("serous", "drusenoid", "fibrovascular"):
        image, boxes = alone(own, Lesion("ped", 40.0, 20.0, 16.0, kind))
        x1, y1, x2, y2 = (int(v) for v in boxes["ped"][0])
        inside[kind] = image[y1 + 6 : y2 - 2, x1 + 10 : x2 - 10]
    assert inside["serous"].mean() < 40 < inside["drusenoid"].mean() < inside["fibrovascular"].mean()
    assert inside["fibrovascular"].std() > 1.5 * inside["drusenoid"].std()


def test_light_passes_through_atrophy_to_the_bottom_of_the_picture(removals):
    assert len(removals["hypertransmission"]) >= 5
    for boxes, change in removals["hypertransmission"]:
        for x1, y1, x2, y2 in boxes:
            assert y2 == 128
            assert change[int(y1) + 4 : 120, int(x1) + 2 : int(x2) - 2].mean() > 30


def test_complete_atrophy_is_wider_than_incomplete_atrophy(samples):
    widths = {"irora": [], "crora": []}
    for sample in samples:
        for kind, found in widths.items():
            found += [x2 - x1 for x1, _, x2, _ in sample.facts.findings[kind].boxes]
    assert min(widths["crora"]) > max(widths["irora"])


@pytest.mark.parametrize("name", ["drusen", "ped", "subretinal_fluid", "intraretinal_fluid"])
def test_sizes_differ_visibly(name):
    own = eye_of(1, "right", seed=0, stage="healthy")
    areas = {}
    for size, ((_, half), (_, height)) in EXTENT[name].items():
        kind = "serous" if name == "ped" else ""
        _, boxes = alone(own, Lesion(name, 40.0, half, height, kind, lift=0.5))
        x1, y1, x2, y2 = boxes[name][0]
        areas[size] = (x2 - x1) * (y2 - y1)
    assert areas["small"] * 1.4 < areas["medium"]
    assert areas["medium"] * 1.4 < areas["large"]


def test_regions_follow_the_eye():
    for eye, left_of_picture in (("right", "temporal"), ("left", "nasal")):
        retina = eye_of(0, eye, seed=0).retina
        assert region(Lesion("drusen", 20.0, 5.0, 4.0), retina) == left_of_picture
        assert region(Lesion("drusen", retina.fovea, 5.0, 4.0), retina) == "foveal"


def test_nerve_fibres_are_thicker_on_the_nasal_side():
    for eye, nasal in (("right", slice(96, 124)), ("left", slice(4, 32))):
        means = []
        for index in range(6):
            image, _ = drawn(eye_of(index, eye, seed=0, stage="healthy"), index)
            other = slice(128 - nasal.stop, 128 - nasal.start)
            means.append(image[20:60, nasal].mean() - image[20:60, other].mean())
        assert np.mean(means) > 0


def test_the_layers_look_like_a_retina():
    own = eye_of(0, "right", seed=0, stage="healthy")
    image, _ = drawn(own)
    column = image[:, 10:24].mean(axis=1)
    brightest = int(np.argmax(column))
    assert 70 < brightest < 100
    assert column[:20].mean() < 35
    assert column[brightest] > 170
    assert column[brightest - 14 : brightest - 8].mean() < 75
    assert column[brightest + 6 : brightest + 14].mean() > column[118:].mean() + 10
    pit, rim = ((image[:, x - 3 : x + 3].mean(axis=1) > 60).argmax() for x in (round(own.retina.fovea), 30))
    assert pit > rim + 8


def test_boxes_scale_with_the_image(eyes):
    own = next(eye for eye in eyes if eye.stage == "active late wet AMD")
    for small, large in zip(drawn(own)[1].values(), drawn(own, size=256)[1].values(), strict=True):
        assert np.allclose(2 * np.array(small), large, atol=6)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"patients": -1}, "patients: got -1; give at least 0"),
        ({"scans_per_eye": 0}, "scans_per_eye: got 0; give at least 1"),
        ({"size": 16}, "size: got 16; give at least 64"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(wrong, says):
    with pytest.raises(InputError, match="phantom_oct: ") as refused:
        phantom_oct(**{"patients": 1, **wrong})
    assert says in str(refused.value)
