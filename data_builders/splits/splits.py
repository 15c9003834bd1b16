"""Splits by patient: a keyed hash decides, so neither row order nor new patients move anyone.

Left out: stratification and near-duplicate images.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping

from rewards.config.input_error import InputError

NOBODY: Mapping[str, str] = {}


def split_of(patient: str, shares: Mapping[str, float], *, key: str, assign: Mapping[str, str] = NOBODY) -> str:
    """The split of a patient: the one ``assign`` pins, else by the hash. ``shares`` sum to 1, in their order.

    >>> split_of("p1", {"train": 1.0}, key="any")
    'train'
    >>> split_of("p1", {"train": 1.0, "test": 0.0}, key="any", assign={"p1": "test"})
    'test'
    """
    if patient in assign:
        return assign[patient]
    digest = hashlib.sha256(f"{key}\0{patient}".encode()).digest()
    point, bound = int.from_bytes(digest[:8]) / 2**64, 0.0
    for name, share in shares.items():
        bound += share
        if point < bound:
            return name
    return next(name for name in reversed(list(shares)) if shares[name] > 0)


def check_disjoint(rows: Iterable[tuple[str, str]]) -> None:
    """Checks the (patient, split) of every row.

    Raises: InputError naming a patient that is in two splits, and how many rows that concerns.
    """
    seen: dict[str, Counter[str]] = {}
    for patient, split in rows:
        seen.setdefault(patient, Counter())[split] += 1
    for patient, counts in seen.items():
        if len(counts) > 1:
            where, total = " and ".join(sorted(counts)), sum(counts.values())
            raise InputError(f"patient {patient} is in both {where} ({total} rows). Split by patient.")
