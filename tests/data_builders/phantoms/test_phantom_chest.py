from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from data_builders.phantoms.chest_film import Anatomy, Lesion, Patient, draw
from data_builders.seeds import seeded
from data_builders.sources.drawn.phantom_chest import FINDINGS, patient_of, phantom_chest
from rewards.config.input_error import InputError
from rewards.rules.facts import Box, Finding
from rewards.rules.rule_set import load_rule_set

NOISE = 0.025 * 255
"""Standard deviation of the pixel noise in grey levels."""


@pytest.fixture(scope="module")
def samples():
    return list(phantom_chest(patients=60, seed=3))


@pytest.fixture(scope="module")
def removals():
    """For each finding: lesion, box, and the image with the finding less the same image without it."""
    found: dict[str, list[tuple[Lesion, Box, np.ndarray]]] = {name: [] for name in FINDINGS}
    for index in range(45):
        patient = patient_of(index, seed=5, prevalence=0.4)
        image, boxes = drawn(patient, index)
        for name, lesion in patient.lesions.items():
            bare, _ = drawn(without(patient, name), index)
            found[name].append((lesion, boxes[name], image - bare))
    return found


def drawn(patient: Patient, index: int = 0, *, size: int = 128) -> tuple[np.ndarray, dict[str, Box]]:
    image, boxes = draw(patient, view=seeded("phantom_chest", 5, index, 0), size=size)
    return np.asarray(image, dtype=np.float64), boxes


def without(patient: Patient, name: str) -> Patient:
    return replace(patient, lesions={other: lesion for other, lesion in patient.lesions.items() if other != name})


def within(box: Box, shape: tuple[int, ...]) -> np.ndarray:
    x1, y1, x2, y2 = (int(v) for v in box)
    mask = np.zeros(shape, dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def present(samples, name: str) -> list[Finding]:
    return [f for sample in samples if (f := sample.facts.findings[name]).polarity == "present"]


def extents(samples, name: str, size: str) -> list[tuple[float, float]]:
    boxes = [finding.boxes[0] for finding in present(samples, name) if finding.size == size]
    return [(x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes]


def test_the_same_call_draws_the_same_bytes():
    first, second = (list(phantom_chest(patients=4, seed=9)) for _ in range(2))
    assert [s.image.tobytes() for s in first] == [s.image.tobytes() for s in second]
    assert [s.facts for s in first] == [s.facts for s in second]


def test_a_patient_does_not_depend_on_how_many_are_drawn():
    few, many = list(phantom_chest(patients=5)), list(islice(phantom_chest(patients=50), 10))
    assert [(s.id, s.facts, s.image.tobytes()) for s in few] == [(s.id, s.facts, s.image.tobytes()) for s in many]


def test_another_seed_draws_other_patients():
    one, other = (next(phantom_chest(patients=1, seed=seed)) for seed in (0, 1))
    assert one.image.tobytes() != other.image.tobytes()


def test_samples_carry_their_names_and_origin(samples):
    sample = samples[25]
    assert (sample.id, sample.patient, sample.study) == ("p00012-1", "p00012", "p00012-s0")
    assert sample.provenance == {"seed": 3, "patient": 12, "image": 1}
    assert (sample.image.mode, sample.image.size) == ("L", (128, 128))


def test_images_of_one_patient_differ_but_state_the_same_findings(samples):
    for one, other in zip(samples[::2], samples[1::2], strict=True):
        assert one.image.tobytes() != other.image.tobytes()
        assert one.facts.without_boxes() == other.facts.without_boxes()


def test_every_finding_of_the_rule_set_is_stated_as_the_rule_set_allows(samples):
    rules = load_rule_set("chest_xray@1").findings
    for sample in samples:
        assert sample.facts.rule_set == "chest_xray@1"
        assert set(sample.facts.findings) == set(rules)
        for name, finding in sample.facts.findings.items():
            if finding.polarity == "absent":
                assert finding == Finding(polarity="absent")
                continue
            assert finding.polarity == "present"
            assert len(finding.boxes) == 1
            assert finding.side in (rules[name].sides or [None])
            assert finding.size in (rules[name].sizes or [None])


def test_boxes_lie_inside_the_image(samples):
    boxes = [f.boxes[0] for s in samples for f in s.facts.present().values()]
    assert len(boxes) > 100
    for x1, y1, x2, y2 in boxes:
        assert 0 <= x1 < x2 <= 128
        assert 0 <= y1 < y2 <= 128


def test_the_left_of_the_patient_is_on_the_right_of_the_picture(samples):
    for sample in samples:
        for finding in sample.facts.present().values():
            if finding.side:
                x1, _, x2, _ = finding.boxes[0]
                assert (finding.side == "left") == ((x1 + x2) / 2 > 64)


@pytest.mark.parametrize("name", FINDINGS)
def test_taking_a_finding_away_changes_the_image_only_about_its_box(removals, name):
    assert len(removals[name]) >= 8
    for _, box, change in removals[name]:
        x1, y1, x2, y2 = box
        around = within((max(x1 - 7, 0), max(y1 - 7, 0), x2 + 7, y2 + 7), change.shape)
        inside = within(box, change.shape)
        assert np.abs(change[inside]).sum() > 0.85 * np.abs(change).sum()
        assert np.abs(change[~around]).sum() < 0.02 * np.abs(change).sum()


@pytest.mark.parametrize("name", ["nodule", "consolidation", "effusion"])
def test_a_box_is_tight_about_the_change(removals, name):
    clear = []
    for _, box, change in removals[name]:
        x1, y1, x2, y2 = (int(v) for v in box)
        strength = change[y1:y2, x1:x2]
        edges = strength[0], strength[-1], strength[:, 0], strength[:, -1]
        clear.append(all(edge.max() > 8 for edge in edges))
    assert np.mean(clear) > 0.85


@pytest.mark.parametrize("name", ["nodule", "consolidation", "effusion", "cardiomegaly"])
def test_opacities_are_bright(removals, name):
    for _, box, change in removals[name]:
        assert change[within(box, change.shape)].mean() > 5


@pytest.mark.parametrize("name", ["nodule", "consolidation"])
def test_round_and_patchy_opacities_stand_out_from_the_noise(removals, name):
    means = [change[within(box, change.shape)].mean() for _, box, change in removals[name]]
    assert min(means) > 4 * NOISE
    assert np.median(means) > 6 * NOISE


def test_a_pneumothorax_is_dark_with_a_bright_line(removals):
    for _, box, change in removals["pneumothorax"]:
        inside = change[within(box, change.shape)]
        assert inside.min() < -20
        assert inside.max() > 20
        assert inside.mean() < 0


@pytest.mark.parametrize("name", ["nodule", "consolidation", "effusion", "pneumothorax"])
def test_large_is_visibly_larger_than_small(name):
    one = list(phantom_chest(patients=50, images_per_patient=1, prevalence=1.0, exclude=set(FINDINGS) - {name}))
    areas = {size: [w * h for w, h in extents(one, name, size)] for size in ("small", "large")}
    assert np.mean(areas["large"]) > 1.5 * np.mean(areas["small"])
    heights = {size: [h for _, h in extents(one, name, size)] for size in ("small", "large")}
    assert min(heights["large"]) > np.mean(heights["small"])


def test_nodules_and_effusions_have_the_promised_pixels():
    only = set(FINDINGS) - {"nodule", "effusion"}
    drawn_once = list(phantom_chest(patients=40, images_per_patient=1, prevalence=1.0, exclude=only))
    for size in ("small", "large"):
        assert all(9 <= w <= 22 and 9 <= h <= 22 for w, h in extents(drawn_once, "nodule", size))
        assert all(12 <= h <= 43 for _, h in extents(drawn_once, "effusion", size))


def test_an_enlarged_heart_is_wider_than_any_normal_one():
    normal = patient_of(0, seed=0, prevalence=0.0)
    widths = []
    for factor in (1.06, 1.38):
        heart = Lesion(None, None, 0.0, 0.0, factor, 1.0)
        x1, _, x2, _ = drawn(replace(normal, lesions={"cardiomegaly": heart}))[1]["cardiomegaly"]
        widths.append(x2 - x1)
    assert widths[1] > 1.2 * widths[0]


def test_findings_are_about_as_frequent_as_asked():
    patients = [patient_of(index, seed=1, prevalence=0.3) for index in range(1000)]
    for name in FINDINGS:
        share = np.mean([name in patient.lesions for patient in patients])
        assert abs(share - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 1000)
    left = [p.lesions["nodule"].side == "left" for p in patients if "nodule" in p.lesions]
    assert 0.38 < np.mean(left) < 0.62


def test_prevalence_bounds_give_all_and_nothing():
    assert not next(phantom_chest(patients=1, prevalence=0.0)).facts.present()
    assert set(next(phantom_chest(patients=1, prevalence=1.0)).facts.present()) == set(FINDINGS)


def test_an_excluded_finding_is_stated_absent_and_changes_no_other():
    free = list(phantom_chest(patients=20, images_per_patient=1))
    held = list(phantom_chest(patients=20, images_per_patient=1, exclude=["effusion"]))
    assert present(free, "effusion")
    assert not present(held, "effusion")
    for one, other in zip(free, held, strict=True):
        words, bare = (s.facts.without_boxes().findings for s in (one, other))
        assert {**words, "effusion": Finding(polarity="absent")} == bare


def test_boxes_scale_with_the_image():
    patient = patient_of(2, seed=5, prevalence=1.0)
    for small, large in zip(drawn(patient)[1].values(), drawn(patient, size=256)[1].values(), strict=True):
        assert np.allclose(2 * np.array(small), large, atol=6)


def test_the_picture_looks_like_a_radiograph():
    image, _ = drawn(patient_of(0, seed=0, prevalence=0.0))
    spine, lungs, trunk = image[50:100, 60:68], image[45:75, [34, 36, 92, 94]], image[115:, 50:78]
    assert lungs.mean() + 50 < spine.mean()
    assert lungs.mean() + 50 < trunk.mean()
    assert image[:6, :6].mean() < 40
    assert (image == 255).mean() < 0.01


def test_anatomy_differs_between_patients():
    anatomies = {patient_of(index, seed=0, prevalence=0.4).anatomy for index in range(10)}
    assert len(anatomies) == 10
    assert all(isinstance(anatomy, Anatomy) for anatomy in anatomies)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"patients": -1}, "patients: got -1; give at least 0"),
        ({"images_per_patient": 0}, "images_per_patient: got 0; give at least 1"),
        ({"size": 16}, "size: got 16; give at least 64"),
        ({"prevalence": 1.5}, "prevalence: got 1.5; give a chance from 0.0 to 1.0"),
        ({"exclude": ["nodul"]}, "exclude: no finding named 'nodul'. Did you mean 'nodule'?"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(wrong, says):
    with pytest.raises(InputError, match="phantom_chest: ") as refused:
        phantom_chest(**{"patients": 1, **wrong})
    assert says in str(refused.value)


def test_another_rule_set_changes_no_image_and_no_finding():
    names = ("chest_xray@1", "chest_xray_acute")
    plain, acute = (list(phantom_chest(patients=3, seed=9, rule_set=name)) for name in names)
    assert [s.image.tobytes() for s in plain] == [s.image.tobytes() for s in acute]
    assert [s.facts.findings for s in plain] == [s.facts.findings for s in acute]
    assert {s.facts.rule_set for s in acute} == {"chest_xray_acute@1"}


@pytest.mark.parametrize(
    ("rule_set", "says"),
    [
        ("lung_ct", "'lung_ct' has no finding"),
        ("chest_xrays", "Did you mean 'chest_xray'"),
        ("chest_xray@7", "version 7 was asked for"),
    ],
)
def test_a_rule_set_that_does_not_fit_is_refused(rule_set, says):
    with pytest.raises(InputError, match=says):
        phantom_chest(patients=1, rule_set=rule_set)


def test_the_acute_rule_set_differs_in_its_severities_alone():
    """The words of both are one, so that figures on the one can be set beside those on the other."""
    plain, acute = (load_rule_set(name).model_dump() for name in ("chest_xray", "chest_xray_acute"))
    severities = [[rule.pop("severity") for rule in rules["findings"].values()] for rules in (plain, acute)]
    names = [rules.pop("name") for rules in (plain, acute)]
    assert plain == acute
    assert names == ["chest_xray", "chest_xray_acute"]
    assert severities[1] == [0.2, 0.8, 0.4, 1.0, 0.1]
