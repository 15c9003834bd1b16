"""Preference pairs of one's own, or that others released, as a source: any file that ``preference_formats.py`` reads.

Where no record names a patient, pairs that share a picture are one group, and the card says ``patients: unknown``.
Pairs that are equal on both sides are quarantined under their line; repeated questions, zero weights and the brevity
shortcut are told in the card.
Left out: scores of other scales (the spec's ``relevance`` reads those).
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from data_builders.formats.image_groups import ImageGroups
from data_builders.formats.pairs import Pair
from data_builders.formats.preference_formats import Format, read_pairs
from data_builders.formats.record_images import RecordError, RecordImage, image_name, opened_image
from data_builders.formats.records import Unreadable
from data_builders.imaging.images import image_key
from data_builders.schema import Message, Quarantined, Written, assistant_turn
from rewards.config.input_error import InputError

LICENCE = "not known to clinalign: that of the user's file"
NO_WEIGHT = "pairs without a weight: they weigh 1"
WITHOUT_IMAGES = "pairs whose images are left out (text_only)"
Images = tuple[Image.Image, ...]


def preferences(
    *,
    file: Path,
    format: Literal["mmedpo", "llava", "ms_swift", "trl"] | None = None,
    images: Path | None = None,
    text_only: bool = False,
    patient: str = "patient",
    licence: str | None = None,
) -> Iterator[Written | Quarantined]:
    """The pairs of a file in its order; of several rejected answers, a pair for each.

    ``format``: None finds it out. ``images``: the folder in which image paths start (None: that of the file).
    ``text_only``: images are left out, and with them the places where they stood. ``patient``: the key or column that
    names the patient. ``licence``: under which the pairs stand, for the card.
    An id is that of the record and a hash of what it says, so that repeated ids stay apart.

    Raises: InputError if the file or the folder is missing, the file has another shape or none, no record has the
    named patient, or none of the pictures that the pairs name is there.
    """
    pairs = PairFile.of(file, format, images, text_only=text_only, patient=patient)
    groups = _Groups(pairs)
    yield from written_pairs(pairs, groups.patient, note=f"pairs read in the shape {groups.shape}")


@dataclass(frozen=True)
class PairFile:
    """A file of pairs, how it is read, and where its pictures lie."""

    file: Path
    shape: Format | None
    root: Path
    text_only: bool
    patient: str

    @classmethod
    def of(
        cls, file: Path, shape: Format | None, images: Path | None, *, text_only: bool, patient: str = "patient"
    ) -> "PairFile":
        """Raises InputError if the folder of images is missing, or is named where images are left out."""
        if images is not None and text_only:
            raise InputError(f"text_only: true leaves images out, but images names {images}. Leave one of the two out.")
        if images is not None and not Path(images).is_dir():
            raise InputError(f"images: no folder {images}. Give the folder in which the file's image paths start.")
        return cls(Path(file), shape, Path(file).parent if images is None else Path(images), text_only, patient)

    def read(self) -> tuple[Format, Iterator[Pair | Unreadable]]:
        """The shape, and the pairs or why one cannot be read."""
        return read_pairs(self.file, self.shape, patient=self.patient)

    def opened(self, images: tuple[RecordImage, ...]) -> Images:
        """These pictures, or none where images are left out. Raises: RecordError if one is not there."""
        return () if self.text_only else tuple(opened_image(image, self.root) for image in images)


class _Groups:
    """What must stand in one split: a patient's pairs; without patients, those that share a picture or a prompt.

    Raises: InputError if no record has the named patient.
    """

    def __init__(self, pairs: PairFile) -> None:
        self.pairs, self.shared, self.keys = pairs, ImageGroups(), dict[RecordImage, str]()
        self.shape, found = pairs.read()
        self.has_patients = False
        for pair in (pair for pair in found if isinstance(pair, Pair)):
            self.has_patients |= bool(pair.patient)
            with contextlib.suppress(RecordError):  # said where the pair is used
                shown = () if self.has_patients else (*pair.images, *pair.rejected_images)
                self.shared.join([self._key(image) for image in shown])
        if not self.has_patients and pairs.patient != "patient":
            raise InputError(f"preferences: patient: no record of {pairs.file} has '{pairs.patient}'. Mend the name.")

    def _key(self, image: RecordImage) -> str:
        """A picture by its pixels, or by its name where it is not opened; one that lies in a file is opened once."""
        if self.pairs.text_only:
            return image_name(image)
        if image.content is not None:
            return image_key(opened_image(image, self.pairs.root))
        if image not in self.keys:
            self.keys[image] = image_key(opened_image(image, self.pairs.root))
        return self.keys[image]

    def patient(self, pair: Pair) -> str:
        """The group of a pair. Raises: RecordError if it names no patient, as others do."""
        if pair.patient:
            return pair.patient
        if self.has_patients:
            raise RecordError(f"it has no '{self.pairs.patient}', as other records do, so no split can be chosen")
        if pair.images:
            return f"image {self.shared.name(self._key(pair.images[0]))}"
        return f"text {hashlib.sha256(json.dumps(pair.prompt).encode()).hexdigest()[:16]}"


def written_pairs(
    pairs: PairFile, patient: Callable[[Pair], str], *, note: str | None = None
) -> Iterator[Written | Quarantined]:
    """The pairs of a file, in the groups that ``patient`` makes of them.

    Raises: InputError as ``preferences`` does.
    """
    absent: list[str] = []
    num_found = 0
    for pair in pairs.read()[1]:
        if isinstance(pair, Unreadable):
            yield Quarantined(id=pair.location, reason=pair.reason)
            continue
        try:
            opened = pairs.opened(pair.images), pairs.opened(pair.rejected_images)
        except RecordError as fault:
            absent.append(f"{pair.location}: {fault}")
            yield Quarantined(id=pair_name(pair), reason=absent[-1])
            continue
        num_found += bool(opened[0])
        try:
            yield _written(pair, *opened, patient=patient(pair), note=note)
        except RecordError as fault:
            yield Quarantined(id=pair_name(pair), reason=f"{pair.location}: {fault}")
    if absent and not num_found:
        raise InputError(
            f"{pairs.file}: none of the images is there that its {len(absent)} pairs name ({absent[0]}; paths start in "
            f"{pairs.root}). Name their folder in the source's images, or say text_only: true there to keep words only."
        )


def pair_name(pair: Pair) -> str:
    """The id of a record and a hash of what it says."""
    images = [image_name(image) for image in pair.images]
    turns = [json.dumps(pair.turns, sort_keys=True)] if pair.turns else []
    rejected = map(image_name, pair.rejected_images)
    words = "\0".join((*images, pair.question, pair.chosen, pair.rejected, *rejected, *turns))
    return f"{pair.id}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"


def _written(pair: Pair, images: Images, rejected_images: Images, *, patient: str, note: str | None) -> Written:
    is_bare = bool(pair.images) and not images
    turns = _without_blocks(pair.turns) if is_bare else pair.turns
    notes = {NO_WEIGHT: pair.weight is None, WITHOUT_IMAGES: is_bare}
    return Written(
        id=pair_name(pair),
        patient=patient,
        study=patient,
        images=images,
        names=tuple(map(image_name, pair.images)),
        question=pair.question,
        answer=pair.chosen,
        task="open",
        rejected=pair.rejected,
        rejected_images=rejected_images,
        weight=1.0 if pair.weight is None else pair.weight,
        relevance=pair.relevance,
        split=pair.split,
        provenance={"record": pair.location} if note else {},
        messages=(*turns, *assistant_turn(pair.chosen)) if turns else (),
        notes=(*(note for note, holds in notes.items() if holds), *filter(None, [note])),
        patient_known=pair.patient is not None,
    )


def _without_blocks(turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """The turns without image blocks; a turn that showed images alone is gone."""
    bare = [{**turn, "content": [block for block in turn["content"] if block["type"] != "image"]} for turn in turns]
    return tuple(turn for turn in bare if turn["content"])
