"""Splits by patient: a keyed hash decides, so neither row order nor new patients move anyone.

Left out: stratification and near-duplicate images.
"""

import hashlib
from collections.abc import Iterable

from rewards.strict_yaml import InputError


def split_of(patient: str, shares: dict[str, float], *, key: str) -> str:
    """The split of a patient. ``shares`` sum to 1 and are filled in their order.

    >>> split_of("p1", {"train": 1.0}, key="any")
    'train'
    """
    digest = hashlib.sha256(f"{key}\0{patient}".encode()).digest()
    place, bound = int.from_bytes(digest[:8]) / 2**64, 0.0
    for name, share in shares.items():
        bound += share
        if place < bound:
            return name
    return list(shares)[-1]


def check_disjoint(rows: Iterable[tuple[str, str]]) -> None:
    """Checks (patient, split) pairs.

    Raises: InputError naming a patient that is in two splits, and how many rows that concerns.
    """
    seen: dict[str, dict[str, int]] = {}
    for patient, split in rows:
        counts = seen.setdefault(patient, {})
        counts[split] = counts.get(split, 0) + 1
    for patient, counts in seen.items():
        if len(counts) > 1:
            where = " and ".join(sorted(counts))
            raise InputError(
                f"patient {patient} is in both {where} ({sum(counts.values())} rows). Rebuild, split by patient."
            )
