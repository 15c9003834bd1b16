"""Phantom OCT: foveal slices of eyes with age-related macular degeneration, drawn from facts known to the pixel.

Each eye of a patient has one of six stages, drawn evenly, and findings that give that stage under the rule set; the
scans of an eye differ in position, tilt, light and speckle. Every finding of the rule set is stated. What is always
absent: confluent drusen, degeneration of the RPE, SIRE, double-layer sign, fibrosis, traction, other pathology.
Left out: volumes (one slice an image), progression over visits, and a likeness between a patient's two eyes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_builders.phantoms.oct_scan import FOVEA_WIDTH, PICTURE_SIZE, Eye, Lesion, Retina, draw
from data_builders.schema import Sample
from data_builders.seeds import seeded
from rewards.config.input_error import InputError
from rewards.rules.facts import Box, Facts, Finding
from rewards.rules.rule_set import load_rule_set

LICENCE = "drawn by clinalign; no restriction"

RULE_SET = "retina_amd@1"
STAGES: tuple[str, ...] = (
    "healthy",
    "early AMD",
    "intermediate AMD",
    "late dry AMD",
    "inactive late wet AMD",
    "active late wet AMD",
)
EYES: tuple[Eye, ...] = ("right", "left")
SIZES = ("small", "medium", "large")
Range = tuple[float, float]
EXTENT: dict[str, dict[str, tuple[Range, Range]]] = {
    "drusen": {
        "small": ((5.0, 6.0), (3.5, 4.5)),
        "medium": ((7.0, 8.5), (6.0, 7.5)),
        "large": ((10.0, 12.0), (10.0, 13.0)),
    },
    "ped": {
        "small": ((12.0, 14.0), (9.0, 11.0)),
        "medium": ((16.0, 18.0), (12.0, 14.0)),
        "large": ((21.0, 24.0), (16.0, 19.0)),
    },
    "subretinal_fluid": {
        "small": ((13.0, 16.0), (5.0, 6.0)),
        "medium": ((19.0, 22.0), (7.5, 9.0)),
        "large": ((26.0, 30.0), (11.0, 13.0)),
    },
    "intraretinal_fluid": {
        "small": ((3.5, 4.5), (4.0, 5.0)),
        "medium": ((4.5, 5.5), (5.0, 6.0)),
        "large": ((6.0, 7.5), (6.5, 8.0)),
    },
    "hypertransmission": {
        "mild": ((6.0, 8.0), (0.0, 0.0)),
        "moderate": ((14.0, 17.0), (0.0, 0.0)),
        "significant": ((20.0, 26.0), (0.0, 0.0)),
    },
    "shrm": {"": ((14.0, 18.0), (8.0, 11.0))},
    "hyperreflective_foci": {"": ((1.7, 2.2), (1.7, 2.2))},
}
"""Half-width and height of one lesion by its size, in pixels of a 128-pixel image; half-height of cysts and foci."""
NUMBER = {
    "drusen": {"small": (2, 4), "medium": (1, 3), "large": (1, 2)},
    "intraretinal_fluid": {"small": (1, 1), "medium": (2, 2), "large": (3, 3)},
    "hyperreflective_foci": {"": (3, 5)},
}
"""Least and greatest number of lesions of a finding; one where nothing is said."""
MARGIN = 4.0
"""Pixels that lesions keep from the edge of the picture, and drusen from each other."""


@dataclass(frozen=True)
class Planned:
    """A finding that an eye shall have. ``kind``: of a PED or a hypertransmission."""

    name: str
    size: str = ""
    kind: str = ""


@dataclass(frozen=True)
class EyeOfPatient:
    """All that the scans of one eye share. ``stage``: what was aimed at; the rule set derives it from the findings."""

    retina: Retina
    planned: tuple[Planned, ...]
    lesions: tuple[Lesion, ...]
    stage: str


def phantom_oct(*, patients: int, scans_per_eye: int = 1, size: int = 128, seed: int = 0) -> Iterator[Sample]:
    """Samples of drawn OCT slices, patient by patient, right eye first; every finding is stated present or absent.

    Args:
        patients: How many patients; patient k is the same however many are drawn.
        scans_per_eye: Slices of each of the two eyes.
        size: Width and height in pixels, at least 64.
        seed: Another seed draws other patients.

    Raises: InputError if a count or the size is out of range.

    >>> sample = next(phantom_oct(patients=1))
    >>> sample.id, sample.study, sample.image.size, sample.facts.values["eye"]
    ('o00000-right-0', 'o00000-right', (128, 128), 'right')
    """
    for name, value, least in (("patients", patients, 0), ("scans_per_eye", scans_per_eye, 1), ("size", size, 64)):
        if value < least:
            raise InputError(f"phantom_oct: {name}: got {value}; give at least {least}.")
    return (
        sample_of(own, index, scan, size=size, seed=seed)
        for index in range(patients)
        for eye in EYES
        for own in [eye_of(index, eye, seed=seed)]
        for scan in range(scans_per_eye)
    )


def sample_of(own: EyeOfPatient, index: int, scan: int, *, size: int, seed: int) -> Sample:
    """Scan number ``scan`` of an eye of patient number ``index``."""
    eye = own.retina.eye
    picture, boxes = draw(own.retina, own.lesions, view=seeded("phantom_oct", seed, index, eye, scan), size=size)
    name = f"o{index:05d}"
    return Sample(
        id=f"{name}-{eye}-{scan}",
        patient=name,
        study=f"{name}-{eye}",
        image=picture,
        facts=facts_of(own, boxes),
        provenance={"seed": seed, "patient": index, "eye": eye, "image": scan},
    )


def eye_of(index: int, eye: Eye, *, seed: int, stage: str | None = None) -> EyeOfPatient:
    """Anatomy and findings of one eye, of a given stage or of one drawn evenly."""
    rng = seeded("phantom_oct", seed, index, eye)
    drawn = STAGES[int(rng.integers(len(STAGES)))]
    retina = Retina(
        texture_seed=int(rng.integers(2**63)),
        eye=eye,
        fovea=rng.uniform(58.0, 70.0),
        thickness=rng.uniform(41.0, 47.0),
        pit=rng.uniform(17.0, 21.0),
        choroid=rng.uniform(20.0, 30.0),
    )
    plan = dict(zip(STAGES, _PLANS, strict=True))[stage or drawn]
    planned = plan(rng)
    return EyeOfPatient(retina, planned, _placed(planned, rng), stage or drawn)


def _one_of(rng: np.random.Generator, *options: str) -> str:
    return options[int(rng.integers(len(options)))]


def _maybe(rng: np.random.Generator, chance: float, *planned: Planned) -> tuple[Planned, ...]:
    return planned if rng.random() < chance else ()


def _any_size(rng: np.random.Generator) -> str:
    return _one_of(rng, *SIZES)


def _healthy(rng: np.random.Generator) -> tuple[Planned, ...]:
    return ()


def _early(rng: np.random.Generator) -> tuple[Planned, ...]:
    drusen = Planned("drusen", _one_of(rng, "small", "medium"))
    return drusen, *_maybe(rng, 0.3, Planned("hyperreflective_foci"))


def _intermediate(rng: np.random.Generator) -> tuple[Planned, ...]:
    """Large drusen, a drusenoid or a serous PED; a PED perhaps with smaller drusen."""
    sign = _one_of(rng, "drusen", "drusenoid", "serous")
    main = Planned("drusen", "large") if sign == "drusen" else Planned("ped", _any_size(rng), sign)
    more = () if sign == "drusen" else _maybe(rng, 0.3, Planned("drusen", _one_of(rng, "small", "medium")))
    irora = _maybe(rng, 0.2, Planned("hypertransmission", "mild", "irora"))
    return main, *more, *irora, *_maybe(rng, 0.3, Planned("hyperreflective_foci"))


def _late_dry(rng: np.random.Generator) -> tuple[Planned, ...]:
    atrophy = Planned("hypertransmission", _one_of(rng, "moderate", "significant"), "crora")
    drusen = _maybe(rng, 0.4, Planned("drusen", _any_size(rng)))
    return atrophy, *drusen, *_maybe(rng, 0.2, Planned("hyperreflective_foci"))


def _inactive_wet(rng: np.random.Generator) -> tuple[Planned, ...]:
    signs = (Planned("shrm"), Planned("ped", _any_size(rng), "fibrovascular"))
    which = int(rng.integers(3))
    more = _maybe(rng, 0.3, Planned("drusen", _any_size(rng)))
    return *((signs[0],), (signs[1],), signs)[which], *more


def _active_wet(rng: np.random.Generator) -> tuple[Planned, ...]:
    fluids = (Planned("subretinal_fluid", _any_size(rng)), Planned("intraretinal_fluid", _any_size(rng)))
    which = int(rng.integers(3))
    more = _maybe(rng, 0.3, Planned("shrm")) or _maybe(rng, 0.4, Planned("ped", _any_size(rng), "fibrovascular"))
    return *((fluids[0],), (fluids[1],), fluids)[which], *more, *_maybe(rng, 0.2, Planned("drusen", _any_size(rng)))


_PLANS = (_healthy, _early, _intermediate, _late_dry, _inactive_wet, _active_wet)
"""In the order of the stages."""


def _placed(planned: tuple[Planned, ...], rng: np.random.Generator) -> tuple[Lesion, ...]:
    """Every lesion where it overlaps least with those already placed, out of 48 places drawn; the widest first."""
    sized: list[Lesion] = []
    for plan in planned:
        least, greatest = NUMBER.get(plan.name, {}).get(plan.size, (1, 1))
        for _ in range(int(rng.integers(least, greatest + 1))):
            half, height = (rng.uniform(*extent) for extent in EXTENT[plan.name][plan.size])
            sized.append(Lesion(plan.name, 0.0, half, height, plan.kind, lift=rng.uniform(0.42, 0.52)))
    done: list[Lesion] = []
    for lesion in sorted(sized, key=lambda one: -one.half_width):
        x = rng.uniform(lesion.half_width + MARGIN, PICTURE_SIZE - lesion.half_width - MARGIN, 48)
        cost = sum((_overlap(x, lesion.half_width, other) for other in done), np.zeros(48))
        lift = lesion.lift if lesion.kind == "intraretinal_fluid" else rng.uniform(0.2, 0.34)
        place = float(x[int(np.argmin(cost))])
        done.append(Lesion(lesion.kind, place, lesion.half_width, lesion.height, lesion.texture, lift))
    return tuple(sorted(done, key=lambda one: one.x))


def _overlap(x: np.ndarray, half_width: float, other: Lesion) -> np.ndarray:
    return np.maximum(half_width + other.half_width + MARGIN - np.abs(x - other.x), 0.0)


def region(lesion: Lesion, retina: Retina) -> str:
    """Where a lesion lies: ``foveal``, or on the ``nasal`` or ``temporal`` side of the fovea."""
    away = lesion.x - retina.fovea
    return "foveal" if abs(away) <= FOVEA_WIDTH else "nasal" if away * retina.nasal > 0 else "temporal"


def facts_of(own: EyeOfPatient, boxes: dict[str, tuple[Box, ...]]) -> Facts:
    """Every finding of the rule set: present with region and size (where its lesions agree) and boxes, or absent."""
    names = load_rule_set(RULE_SET).findings
    findings = {name: Finding(polarity="absent") for name in names} | _present(own, boxes)
    return Facts(rule_set=RULE_SET, findings={name: findings[name] for name in names}, values={"eye": own.retina.eye})


def _present(own: EyeOfPatient, boxes: dict[str, tuple[Box, ...]]) -> dict[str, Finding]:
    found: dict[str, Finding] = {}
    for plan in own.planned:
        side = _common_region(own, plan.name)
        found[plan.name] = Finding(polarity="present", side=side, size=plan.size or None, boxes=boxes[plan.name])
        if plan.kind:
            name = f"{plan.kind}_ped" if plan.name == "ped" else plan.kind
            keep_size = plan.name == "ped"
            found[name] = found[plan.name].model_copy(update={} if keep_size else {"size": None})
    there = Finding(polarity="present")
    lifting = [f for name in ("drusen", "ped") if (f := found.get(name))]
    if lifting:
        highest = max((f.size for f in lifting if f.size), key=SIZES.index)
        found["rpe_elevation"] = Finding(polarity="present", side=_agreed(lifting), size=highest)
    implied = {
        "rpe_atrophy": {"hypertransmission"},
        "retinal_thinning": {"crora"},
        "retinal_fluid": {"subretinal_fluid", "intraretinal_fluid"},
    }
    return found | {name: there for name, signs in implied.items() if signs & found.keys()}


def _agreed(findings: list[Finding]) -> str | None:
    sides = {finding.side for finding in findings}
    return sides.pop() if len(sides) == 1 else None


def _common_region(own: EyeOfPatient, name: str) -> str | None:
    regions = {region(lesion, own.retina) for lesion in own.lesions if lesion.kind == name}
    return regions.pop() if len(regions) == 1 else None
