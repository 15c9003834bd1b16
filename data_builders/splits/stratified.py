"""Splits that hold: whole patients, alike in the mix of stages, and nobody moves when rows or patients are added.

Without memory, ``splits.split_of`` places each patient by a keyed hash, so that shares hold on average. Here they hold
in each stratum as well as whole patients allow: those placed before stay (``kept``), and each newcomer, in the order
of the hash, goes where its stratum is furthest behind. Left out: strata of several columns; join them in one.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rewards.config.input_error import InputError

NOBODY: Mapping[str, str] = {}


@dataclass(frozen=True)
class Unit:
    """What must stay in one split: a patient, or where none is named an eye or study, or else the row alone."""

    name: str
    stratum: str


def unit_of(row: Mapping[str, object]) -> str:
    """The name of a row's unit, which says what kind it is.

    >>> unit_of({"id": "r1", "patient": "", "study": "s7"}), unit_of({"id": "r1", "patient": "p1", "study": "s7"})
    ('study s7', 'patient p1')
    """
    for kind in ("patient", "eye", "study"):
        if row.get(kind) not in (None, ""):
            return f"{kind} {row[kind]}"
    return f"row {row['id']}"


def units_of(rows: Iterable[Mapping[str, object]], *, stratum: str, order: Iterable[str] = ()) -> list[Unit]:
    """The units of rows. A unit with several values of the column ``stratum`` is of the last of them in ``order``.

    Values that ``order`` does not name come before those that it names, by the alphabet.
    """
    rank = {name: position for position, name in enumerate(order)}
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        value = row.get(stratum)
        seen[unit_of(row)].add("" if value is None else str(value))
    return [Unit(name, max(found, key=lambda v: (rank.get(v, -1), v))) for name, found in seen.items()]


def stratified(
    units: Iterable[Unit], shares: Mapping[str, float], *, key: str, kept: Mapping[str, str] = NOBODY
) -> dict[str, str]:
    """The split of each unit by name, those of ``kept`` as they were. The order of the units is of no account.

    Raises: InputError if ``kept`` names a split that has no share, or a unit has two strata.

    >>> units = [Unit(f"patient {n}", "early" if n % 2 else "late") for n in range(8)]
    >>> sorted(stratified(units, {"train": 0.75, "test": 0.25}, key="any").values())
    ['test', 'test', 'train', 'train', 'train', 'train', 'train', 'train']
    """
    strata: dict[str, str] = {}
    for unit in units:
        if strata.setdefault(unit.name, unit.stratum) != unit.stratum:
            raise InputError(f"{unit.name} is in strata '{strata[unit.name]}' and '{unit.stratum}'. Give one.")
    unknown = sorted(set(kept.values()) - set(shares))
    if unknown:
        raise InputError(f"splits: '{unknown[0]}' holds units from before, but has no share. Name it in splits.")
    placed = {name: kept[name] for name in strata if name in kept}
    held = Counter((strata[name], split) for name, split in placed.items())
    totals = Counter(strata[name] for name in placed)
    for name in sorted(strata.keys() - placed.keys(), key=lambda n: (_hash(key, n), n)):
        stratum = strata[name]
        totals[stratum] += 1
        split = max(shares, key=lambda s: shares[s] * totals[stratum] - held[stratum, s])
        placed[name] = split
        held[stratum, split] += 1
    return placed


def _hash(key: str, name: str) -> bytes:
    return hashlib.sha256(f"{key}\0{name}".encode()).digest()
