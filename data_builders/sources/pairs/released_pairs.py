"""Released pairs: ``preferences`` under its older name, with the groups that it had: all pairs of one image's name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from data_builders.formats.pairs import Pair
from data_builders.formats.record_images import image_name
from data_builders.schema import Quarantined, Written
from data_builders.sources.pairs.preferences import PairFile, pair_name, written_pairs

LICENCE = "as the file that was read"


def released_pairs(
    *,
    file: Path,
    format: Literal["mmedpo", "llava", "ms_swift", "trl"] | None = None,
    images: Path | None = None,
    text_only: bool = False,
) -> Iterator[Written | Quarantined]:
    """The pairs of a file in its order; its knobs are those of ``preferences``.

    Raises: InputError as ``preferences`` does.
    """
    yield from written_pairs(PairFile.of(file, format, images, text_only=text_only), _group)


def _group(pair: Pair) -> str:
    if pair.patient:
        return pair.patient
    return image_name(pair.images[0]) if pair.images else pair_name(pair)
