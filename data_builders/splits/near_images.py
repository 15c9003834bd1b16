"""Near-identical images: a difference hash, and pairs within a few bits of each other without comparing all of them.

A hash has 256 bits: whether each of 16 x 16 cells is darker than its right neighbour (Krawetz 2013, "dHash"), which
another format, size, or brightness hardly moves. Two hashes at most ``MAX_DISTANCE`` bits apart agree in at least one
of ``MAX_DISTANCE + 1`` bands, so only images that share a band are compared.
Kept by hand: packages of image hashes hash in as few lines and leave the comparison of all with all to their user.
Left out: crops, flips and rotations.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 16
MAX_DISTANCE = 10
Hashes = NDArray[np.bool_]
"""(images, 256): one bit a column."""
FLAT = 8
"""Grey levels below which an image has no structure to be told by; it is left to the comparison of bytes."""


def dhash(image: Image.Image) -> NDArray[np.bool_] | None:
    """The 256 bits of an image, or None where it is flat.

    >>> dhash(Image.new("L", (64, 64))) is None
    True
    """
    cells = np.asarray(image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX), dtype=np.int16)
    if int(cells.max()) - int(cells.min()) < FLAT:
        return None
    return (cells[:, 1:] > cells[:, :-1]).ravel()


def near_pairs(
    hashes: Hashes, groups: Sequence[int], *, max_distance: int = MAX_DISTANCE
) -> Iterator[tuple[int, int, int]]:
    """Pairs of places of two different groups (splits) whose hashes are near, with their distance; each pair once."""
    seen: set[tuple[int, int]] = set()
    group_of = np.asarray(groups)
    for band in np.array_split(np.arange(hashes.shape[1]), max_distance + 1):
        for indices in _buckets(hashes[:, band]):
            for one, other, distance in _near(hashes, group_of, indices, max_distance):
                if (one, other) not in seen:
                    seen.add((one, other))
                    yield one, other, distance


def _buckets(bits: Hashes) -> list[NDArray[np.int64]]:
    """Places that agree in these bits, where there are several."""
    alike: defaultdict[bytes, list[int]] = defaultdict(list)
    for index, key in enumerate(np.packbits(bits, axis=1)):
        alike[key.tobytes()].append(index)
    return [np.array(indices) for indices in alike.values() if len(indices) > 1]


def _near(
    hashes: Hashes, groups: NDArray[np.int64], indices: NDArray[np.int64], most: int
) -> Iterator[tuple[int, int, int]]:
    group = groups[indices]
    if (group == group[0]).all():
        return
    words = np.packbits(hashes[indices], axis=1).view(np.uint64)
    for k in range(len(indices) - 1):
        apart = np.bitwise_count(words[k + 1 :] ^ words[k]).sum(axis=1)
        for other in np.flatnonzero((apart <= most) & (group[k + 1 :] != group[k])):
            yield int(indices[k]), int(indices[k + 1 + other]), int(apart[other])
