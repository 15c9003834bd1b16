"""Sequences of images of one finding, from which grounding tasks are made: phantom radiographs, or the real CT.

A finding is *erased* from the CT by filling its box with what surrounds it, and left out of a phantom by drawing the
patient without it; an *other contrast* is the other window of the CT, and the inverted phantom (a stand-in: phantoms
have one modality). Left out: findings with several boxes in one image.
"""

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from PIL import Image, ImageOps

from data_builders.phantoms.chest_film import draw
from data_builders.schema import Quarantined, Sample, Written
from data_builders.seeds import seeded
from data_builders.sources.drawn.phantom_chest import RULE_SET, patient_of
from rewards.rules.facts import Box
from rewards.rules.rule_set import load_rule_set

VIEWS = 3
SHIFT = 0.06
"""How far an image that is not registered is moved, as a share of its width."""


@dataclass(frozen=True)
class View:
    """One image and where the finding is in it, in pixels; None where it is not."""

    image: Image.Image
    box: Box | None


@dataclass(frozen=True)
class Sequence:
    """Images of one patient (or block of slices) about one finding.

    ``views`` show it, from different positions or slices. ``before`` is ``views[0]`` without it, ``before_moved`` the
    same not registered; ``other_contrast`` is ``views[0]`` in another contrast; ``example`` shows the finding in
    another patient or slice of the same split.
    """

    id: str
    patient: str
    rule_set: str
    finding: str
    views: tuple[View, ...]
    before: View
    before_moved: View
    other_contrast: View
    example: View


def phantom_sequences(
    *,
    patients: int,
    size: int = 128,
    prevalence: float = 0.4,
    seed: int = 0,
    exclude: Collection[str] = (),
    rule_set: str = RULE_SET,
    split_of: Callable[[str], str],
    left_out: Counter[str],
) -> Iterator[Sequence]:
    """One sequence a finding of each phantom patient that has one and whose split has another with it.

    The knobs are those of ``phantom_chest``, ``split_of`` gives the split of a patient. Findings that no other patient
    of the split has are counted in ``left_out``.
    """
    drawn = {k: patient_of(k, seed=seed, prevalence=prevalence, exclude=exclude) for k in range(patients)}
    placed = {k: split_of(_name(k)) for k in drawn}
    rules = load_rule_set(rule_set).id
    for index, patient in drawn.items():
        for finding in patient.lesions:
            others = [
                k
                for k, other in drawn.items()
                if k != index and placed[k] == placed[index] and finding in other.lesions
            ]
            if not others:
                left_out[f"{finding}: no other patient of its split has it"] += 1
                continue
            without = replace(patient, lesions={n: at for n, at in patient.lesions.items() if n != finding})
            views = [draw(patient, view=seeded("phantom_chest", seed, index, n), size=size) for n in range(VIEWS)]
            other = random.Random(f"{seed}/{index}/{finding}").choice(others)
            example, example_boxes = draw(drawn[other], view=seeded("phantom_chest", seed, other, 0), size=size)
            yield Sequence(
                id=f"{_name(index)}-{finding}",
                patient=_name(index),
                rule_set=rules,
                finding=finding,
                views=tuple(View(image, boxes[finding]) for image, boxes in views),
                before=View(draw(without, view=seeded("phantom_chest", seed, index, 0), size=size)[0], None),
                before_moved=View(draw(without, view=seeded("phantom_chest", seed, index, VIEWS), size=size)[0], None),
                other_contrast=View(ImageOps.invert(views[0][0]), views[0][1][finding]),
                example=View(example, example_boxes[finding]),
            )


def _name(index: int) -> str:
    return f"p{index:05d}"


def ct_sequences(records: Iterable[Sample | Written | Quarantined], *, seed: int) -> Iterator[Sequence | Quarantined]:
    """One sequence for each three neighbouring slices of a block in which a finding has exactly one box.

    ``records``: whole slices of ``lidc_ct`` under both windows, ``seed`` draws what fills an erased box.
    """
    found = list(records)
    yield from (record for record in found if isinstance(record, Quarantined))
    samples = [record for record in found if isinstance(record, Sample)]
    for block, members in groupby(samples, key=lambda s: s.patient):
        by_slice = {n: {s.provenance["window"]: s for s in of} for n, of in groupby(members, key=_slice)}
        for finding in sorted({name for pair in by_slice.values() for name in pair["lung"].facts.findings}):
            shown = [n for n, pair in by_slice.items() if _single_box(pair["lung"], finding) is not None]
            for k in range(0, len(shown) - VIEWS, VIEWS):
                three, other = shown[k : k + VIEWS], shown[k + VIEWS]
                if three[-1] - three[0] == VIEWS - 1:
                    yield _ct_sequence(by_slice, three, other, finding, seed, patient=block)


def _slice(sample: Sample) -> int:
    return int(sample.provenance["slice"])


def _single_box(sample: Sample, finding: str) -> Box | None:
    said = sample.facts.findings.get(finding)
    return said.boxes[0] if said is not None and len(said.boxes) == 1 else None


def _ct_sequence(
    by_slice: Mapping[int, Mapping[str, Sample]],
    three: list[int],
    other: int,
    finding: str,
    seed: int,
    *,
    patient: str,
) -> Sequence:
    def view(number: int, window: str = "lung") -> View:
        return View(by_slice[number][window].image, _single_box(by_slice[number]["lung"], finding))

    first = view(three[0])
    assert first.box is not None
    bare = erased(first.image, first.box, random.Random(f"{seed}/{three[0]}/{finding}"))
    return Sequence(
        id=f"lidc-0001-s{three[0]:03d}-{finding}",
        patient=patient,
        rule_set=by_slice[three[0]]["lung"].facts.rule_set,
        finding=finding,
        views=tuple(view(n) for n in three),
        before=View(bare, None),
        before_moved=View(moved(bare, SHIFT), None),
        other_contrast=view(three[0], "soft"),
        example=view(other),
    )


def erased(image: Image.Image, box: Box, rng: random.Random) -> Image.Image:
    """The grey image with a box filled by pixels drawn from the ring around it."""
    pixels = np.array(image)
    x1, y1, x2, y2 = (round(v) for v in box)
    margin = max(2, (x2 - x1) // 4)
    top, left = max(0, y1 - margin), max(0, x1 - margin)
    ring = np.zeros(pixels.shape, dtype=bool)
    ring[top : y2 + margin, left : x2 + margin] = True
    ring[y1:y2, x1:x2] = False
    generator = np.random.default_rng(rng.getrandbits(64))
    around = pixels[ring] if ring.any() else pixels.ravel()
    pixels[y1:y2, x1:x2] = generator.choice(around, size=(y2 - y1, x2 - x1))
    return Image.fromarray(pixels)


def moved(image: Image.Image, share: float) -> Image.Image:
    """The image moved right and down by a share of its width; what comes in is black."""
    step = round(share * image.width)
    canvas = Image.new(image.mode, image.size)
    canvas.paste(image, (step, step))
    return canvas
