"""Phantom chest radiographs: patients with findings, and frontal images of them, so that every label and box is known.

Lengths of lesions are given in pixels of a 128-pixel image and scale with ``size``; ``phantoms/chest_film.py`` draws.
Left out: lateral views, rotation, devices, and more than one instance of a finding.
"""

from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from data_builders.phantoms.chest_film import CHEST_WALL, COSTOPHRENIC, Anatomy, Lesion, Patient, draw, wall_at
from data_builders.phantoms.drawing import Field
from data_builders.schema import Sample
from data_builders.seeds import seeded
from rewards.config.input_error import InputError, nearest
from rewards.rules.facts import Box, Facts, Finding
from rewards.rules.rule_set import load_rule_set

LICENCE = "drawn by clinalign; no restriction"

RULE_SET = "chest_xray@1"
FINDINGS = ("nodule", "consolidation", "effusion", "pneumothorax", "cardiomegaly")
PIXEL = 1.0 / 64.0
"""One pixel of a 128-pixel image in drawing units."""
RADII = {
    "nodule": {"small": ((5.0, 6.5), (5.0, 6.5)), "large": ((8.0, 10.0), (8.0, 10.0))},
    "consolidation": {"small": ((9.0, 11.0), (9.0, 11.5)), "large": ((13.0, 15.0), (14.0, 17.0))},
    "effusion": {"small": ((0.0, 0.0), (17.0, 22.0)), "large": ((0.0, 0.0), (28.0, 40.0))},
    "pneumothorax": {"small": ((6.5, 8.5), (10.0, 13.0)), "large": ((14.0, 18.0), (19.0, 25.0))},
}
"""Half-axes in x and y; an effusion's height; a pneumothorax's depth at the wall and at the apex."""


def phantom_chest(
    *,
    patients: int,
    images_per_patient: int = 2,
    size: int = 128,
    prevalence: float = 0.4,
    seed: int = 0,
    exclude: Collection[str] = (),
    rule_set: str = RULE_SET,
) -> Iterator[Sample]:
    """Samples of drawn radiographs, patient by patient; every finding is stated present or absent.

    Args:
        patients: How many patients; patient k is the same however many are drawn.
        images_per_patient: Images of the same findings with other position, noise and exposure.
        size: Width and height in pixels, at least 64.
        prevalence: Chance of each finding, independent of the others.
        seed: Another seed draws other patients.
        exclude: Findings that no patient has; they are stated absent.
        rule_set: What the findings are called and how grave an error is; the images do not depend on it.

    Raises: InputError if a count, size or chance is out of range, or a finding or the rule set is unknown.

    >>> sample = next(phantom_chest(patients=1))
    >>> sample.id, sample.image.size, sorted(sample.facts.findings)[0]
    ('p00000-0', (128, 128), 'cardiomegaly')
    """
    _check(patients, images_per_patient, size, prevalence, exclude)
    rules = _rules(rule_set)
    return (
        sample_of(patient, index, image, size=size, seed=seed, rule_set=rules)
        for index in range(patients)
        for patient in [patient_of(index, seed=seed, prevalence=prevalence, exclude=exclude)]
        for image in range(images_per_patient)
    )


def _check(patients: int, images: int, size: int, prevalence: float, exclude: Collection[str]) -> None:
    for name, value, least in (
        ("patients", patients, 0),
        ("images_per_patient", images, 1),
        ("size", size, 64),
    ):
        if value < least:
            raise InputError(f"phantom_chest: {name}: got {value}; give at least {least}.")
    if not 0.0 <= prevalence <= 1.0:
        raise InputError(f"phantom_chest: prevalence: got {prevalence}; give a chance from 0.0 to 1.0.")
    for name in exclude:
        if name not in FINDINGS:
            hint = nearest(name, list(FINDINGS)) or f" Known: {', '.join(FINDINGS)}."
            raise InputError(f"phantom_chest: exclude: no finding named '{name}'.{hint}")


def _rules(name: str) -> str:
    """The id of a rule set, shipped or in a file, that knows all five findings.

    Raises: InputError if there is none, or it lacks one.
    """
    rules = load_rule_set(name)
    lacking = [finding for finding in FINDINGS if finding not in rules.findings]
    if lacking:
        why = f"'{name}' has no finding {', '.join(lacking)}"
        raise InputError(f"phantom_chest: rule_set: {why}; name one that has all five, such as {RULE_SET}.")
    return rules.id


def sample_of(patient: Patient, index: int, image: int, *, size: int, seed: int, rule_set: str = RULE_SET) -> Sample:
    """Image number ``image`` of ``patient``, who has number ``index``."""
    picture, boxes = draw(patient, size=size, view=seeded("phantom_chest", seed, index, image))
    name = f"p{index:05d}"
    return Sample(
        id=f"{name}-{image}",
        patient=name,
        study=f"{name}-s0",
        image=picture,
        facts=facts_of(patient, boxes, rule_set=rule_set),
        provenance={"seed": seed, "patient": index, "image": image},
    )


def facts_of(patient: Patient, boxes: dict[str, Box], *, rule_set: str = RULE_SET) -> Facts:
    """All five findings, present with side, size and box, or absent."""
    present = {
        name: Finding(polarity="present", side=lesion.side, size=lesion.size, boxes=(boxes[name],))
        for name, lesion in patient.lesions.items()
    }
    absent = Finding(polarity="absent")
    return Facts(rule_set=rule_set, findings={name: present.get(name, absent) for name in FINDINGS})


def patient_of(index: int, *, seed: int, prevalence: float, exclude: Collection[str] = ()) -> Patient:
    """Anatomy and findings of one patient; a finding's side and size do not depend on the other findings."""
    rng = seeded("phantom_chest", seed, index)
    anatomy = _anatomy(rng)
    lesions: dict[str, Lesion] = {}
    chances = rng.random((len(FINDINGS), 3))
    for place, name in reversed(list(enumerate(FINDINGS))):
        chance, side, size = (float(chances[place, column]) for column in range(3))
        (own,) = rng.spawn(1)
        if chance < prevalence and name not in exclude:
            words = ("left" if side < 0.5 else "right", "small" if size < 0.5 else "large")
            lesions[name] = _placed(name, *words, anatomy=anatomy, others=lesions, rng=own)
    return Patient(anatomy, {name: lesions[name] for name in FINDINGS if name in lesions})


def _anatomy(rng: np.random.Generator) -> Anatomy:
    dome = rng.uniform(0.37, 0.43)
    return Anatomy(
        texture_seed=int(rng.integers(2**63)),
        apex=rng.uniform(-0.80, -0.74),
        wall=CHEST_WALL + rng.uniform(-0.03, 0.03),
        dome_right=dome,
        dome_left=dome + rng.uniform(0.02, 0.07),
        heart=rng.uniform(0.92, 1.06),
        rib_gap=rng.uniform(0.165, 0.19),
        rib_phase=rng.uniform(0.0, 1.0),
        clavicle=rng.uniform(-0.62, -0.56),
        breast=rng.uniform(0.0, 0.05),
    )


def _placed(
    name: str, side: str, size: str, *, anatomy: Anatomy, others: dict[str, Lesion], rng: np.random.Generator
) -> Lesion:
    """The lesion where it overlaps least with those already placed, out of 48 places drawn."""
    if name == "cardiomegaly":
        return Lesion(None, None, 0.0, 0.0, rng.uniform(1.38, 1.55), 1.0)
    rx, ry = (rng.uniform(*extent) * PIXEL for extent in RADII[name][size])
    if name in ("effusion", "pneumothorax"):
        return Lesion(side, size, 0.0, 0.0, rx, ry)
    sign = 1 if side == "left" else -1
    a, y = rng.uniform(0.26, 0.58, 48), rng.uniform(-0.50, 0.30, 48)
    cost = _outside_lung(a, y, rx, ry, anatomy)
    for rect in _occupied(sign, anatomy, others):
        cost += _overlap(a, y, rx, ry, rect)
    best = int(np.argmin(cost))
    return Lesion(side, size, sign * float(a[best]), float(y[best]), rx, ry)


def _outside_lung(a: NDArray[np.float64], y: NDArray[np.float64], rx: float, ry: float, anatomy: Anatomy) -> Field:
    beyond = np.maximum(a + 0.8 * rx + 0.03 - wall_at((y - 0.5 * ry).astype(np.float32), anatomy), 0.0)
    below = np.maximum(y + ry - anatomy.dome_right - 0.02, 0.0)
    return (beyond * ry + below * rx).astype(np.float32)


def _overlap(a: NDArray[np.float64], y: NDArray[np.float64], rx: float, ry: float, rect: Box) -> Field:
    across = np.minimum(a + rx, rect[2]) - np.maximum(a - rx, rect[0])
    down = np.minimum(y + ry, rect[3]) - np.maximum(y - ry, rect[1])
    return (np.maximum(across, 0.0) * np.maximum(down, 0.0)).astype(np.float32)


def _occupied(sign: int, anatomy: Anatomy, others: dict[str, Lesion]) -> list[Box]:
    """What a lesion of this side should keep clear of, as boxes over abs(x) and y."""
    heart = others["cardiomegaly"].rx if "cardiomegaly" in others else anatomy.heart
    taken: list[Box] = [(0.0, 0.20 - 0.28 * heart, (0.30 if sign > 0 else 0.16) * heart, 1.0)]
    for name, lesion in others.items():
        if lesion.sign != sign or lesion.side is None:
            continue
        if name == "effusion":
            taken.append((0.0, COSTOPHRENIC - lesion.ry, 1.0, 1.0))
        elif name == "pneumothorax":
            taken += [(0.0, -1.0, 1.0, anatomy.apex + lesion.ry), (anatomy.wall - lesion.rx, -1.0, 1.0, 0.4)]
        else:
            centre = abs(lesion.x)
            taken.append((centre - lesion.rx, lesion.y - lesion.ry, centre + lesion.rx, lesion.y + lesion.ry))
    return taken
