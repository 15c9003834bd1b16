"""Released preference pairs as a source: MMedPO's, LLaVA's, ms-swift's and TRL's files (``preference_formats.py``).

No patient is named in them: all pairs of one image stand in one split. Pairs that are equal on both sides are
quarantined; repeated questions, zero weights and the brevity shortcut are told in the card.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from data_builders.formats.preference_formats import Pair, read_pairs
from data_builders.imaging.images import ImageError, inside, open_image
from data_builders.schema import Quarantined, Written
from rewards.config.input_error import InputError

LICENCE = "as the file that was read"


def released_pairs(
    *, file: Path, format: Literal["mmedpo", "llava", "ms_swift", "trl"], images: Path | None = None
) -> Iterator[Written | Quarantined]:
    """The pairs of a file in its order. ``images``: the folder of its images (None: pairs without images).

    An id is that of the record and a hash of what it says, so that repeated ids stay apart.

    Raises: InputError if the file or the folder is missing, or an image's path leaves it.
    """
    if images is not None and not Path(images).is_dir():
        raise InputError(f"released_pairs: images: no folder {images}. Give the folder that the file's paths start in.")
    pairs, faults = read_pairs(Path(file), format)
    for place, fault in faults.items():
        yield Quarantined(id=f"record {place}", reason=fault)
    for pair in pairs:
        yield _written(pair, None if images is None else Path(images))


def _written(pair: Pair, root: Path | None) -> Written | Quarantined:
    said = "\0".join((*pair.images, pair.question, pair.chosen, pair.rejected, *pair.rejected_images))
    name = f"{pair.id}-{hashlib.sha256(said.encode()).hexdigest()[:8]}"
    shown = () if root is None else pair.images
    try:
        opened, others = (
            tuple(open_image(inside(root, one)) for one in names) if root else ()
            for names in (shown, pair.rejected_images)
        )
    except ImageError as fault:
        return Quarantined(id=name, reason=str(fault))
    patient = pair.images[0] if pair.images else name
    return Written(
        id=name,
        patient=patient,
        study=patient,
        images=opened,
        names=pair.images,
        question=pair.question,
        answer=pair.chosen,
        task="open",
        rejected=pair.rejected,
        rejected_images=others,
        weight=pair.weight,
        relevance=pair.relevance,
    )
