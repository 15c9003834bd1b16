"""Measurements in text: numbers with their units, brought to one unit of each kind.

Left out: ranges ("3-5 mm" is read as 5 mm), dates, and, where texts are searched, units that are not lengths, volumes
or shares. An answer that is one number is held against its reference with any unit (``number_matches``).
"""

import re
from dataclasses import dataclass

NUMBER = re.compile(
    r"(?<![\w.])(-?\d{1,9}(?:[.,]\d{1,9})?)\s{0,3}(mm|cm|millimet(?:er|re)s?|centimet(?:er|re)s?|m?[lL]|%|percent)?(?![\w%])"
)
UNITS: dict[str, tuple[str, float]] = {
    "mm": ("mm", 1.0),
    "cm": ("mm", 10.0),
    "ml": ("ml", 1.0),
    "l": ("ml", 1000.0),
    "%": ("%", 1.0),
    "percent": ("%", 1.0),
}
_FACTORS: dict[str, dict[str, float]] = {
    "length": {"um": 1e-3, "\u00b5m": 1e-3, "\u03bcm": 1e-3, "mm": 1.0, "cm": 10.0, "m": 1000.0},
    "volume": {"ml": 1.0, "cc": 1.0, "dl": 100.0, "l": 1000.0, "litre": 1000.0, "liter": 1000.0},
    "mass": {
        "mcg": 1e-3,
        "ug": 1e-3,
        "\u00b5g": 1e-3,
        "\u03bcg": 1e-3,
        "mg": 1.0,
        "g": 1000.0,
        "gram": 1000.0,
        "kg": 1e6,
    },
    "time": {"ms": 1e-3, "s": 1.0, "sec": 1.0, "second": 1.0, "min": 60.0, "minute": 60.0, "h": 3600.0, "hour": 3600.0}
    | {"day": 86_400.0, "week": 604_800.0},
    "share": {"%": 1.0, "percent": 1.0},
}
CONVERTIBLE = {unit: (kind, factor) for kind, units in _FACTORS.items() for unit, factor in units.items()}
"""Kind of a unit and its size in the kind's own, for units that stand behind a number."""
LONG_NAMES = {"millimet": "mm", "centimet": "cm", "millilit": "ml", "milligram": "mg", "kilogram": "kg"}
ONE_NUMBER = re.compile(r"\s*+(-?\d[\d.,]*+)\s*+([^\W\d_]++\d?(?:/[^\W\d_]++\d?)?|%|\u00b0\s?[CF])?+\s*+\.?\s*+")
NUMBER_WITH_UNIT = re.compile(
    r"(?<![\w.])(-?\d{1,9}(?:[.,]\d{1,9})?)(?!\d)\s{0,3}([^\W\d_]+\d?(?:/[^\W\d_]+\d?)?|%|\u00b0\s?[CF])?"
)
# Denials, bounds and choices, and numbers in words: with any of these a text does not state the one number in it.
INEXACT = re.compile(
    r"\b(?:not|no|nor|neither|never|cannot|\w+n't|without|wrong|false|incorrect|or|between|rather|instead"
    r"|except|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|sixty|seventy|eighty"
    r"|ninety|hundred|thousand|million|dozens?|half|double|twice)\b|[<>\u2264\u2265\u00b1\u2260~+]"
    r"|\band (?:above|over|more|up|below|under|less|larger|smaller)\b"
    r"|\b(?:than|at least|at most|up to|under|over|below|above|within|plus|minus)(?: \w+)?(?= -?\d)",
    re.IGNORECASE,
)
THOUSANDS = re.compile(r"-?[1-9]\d{0,2},\d{3}")
NO_UNITS = frozenset(
    {"of", "in", "on", "at", "and", "are", "is", "was", "were", "with", "there", "but", "for", "by", "as"}
)


@dataclass(frozen=True)
class Measurement:
    """A number in millimetres, millilitres or percent, or a bare number (unit "")."""

    value: float
    unit: str = ""

    def agrees(self, other: "Measurement", *, tolerance: float) -> bool:
        """Whether the other has the same unit and a value within the relative ``tolerance``."""
        return self.unit == other.unit and abs(self.value - other.value) <= tolerance * abs(self.value) + 1e-9


def measurements(text: str, *, bare: bool = False) -> list[Measurement]:
    """The measurements of a text in order; with ``bare``, numbers without a unit too.

    >>> measurements("a nodule of 1.2 cm, 3 lobes")
    [Measurement(value=12.0, unit='mm')]
    >>> measurements("12", bare=True)
    [Measurement(value=12.0, unit='')]
    """
    return [_measurement(number, unit) for number, unit in NUMBER.findall(text) if unit or bare]


def _measurement(number: str, unit: str) -> Measurement:
    kind, factor = UNITS[_short(unit)] if unit else ("", 1.0)
    return Measurement(round(float(number.replace(",", ".")) * factor, 9), kind)


def _short(unit: str) -> str:
    return {"mil": "mm", "cen": "cm"}.get(unit[:3].lower(), unit.lower())


def is_number(answer: str) -> bool:
    """Whether a reference is one number, with or without a unit.

    >>> is_number("3.5 cm"), is_number("5 mg"), is_number("T2")
    (True, True, False)
    """
    return ONE_NUMBER.fullmatch(answer) is not None and bool(measurements(answer, bare=True) or _with_units(answer))


def number_matches(text: str, answer: str, *, tolerance: float) -> bool:
    """Whether a text states one number, plainly, and it is the reference's within the relative ``tolerance``.

    A unit of measure must be the reference's or convert to it, and may not be left out; another word behind the
    reference ("2 nodules") may, but not be another. A reference without a word takes none of ``UNITS``.

    >>> [number_matches(said, "5 mg", tolerance=0.0) for said in ("about 0.005 g", "5", "5 elephants", "not 5 mg")]
    [True, False, False, False]
    """
    found, true = _with_units(text), _with_units(answer)
    if len(found) != 1 or len(true) != 1 or INEXACT.search(text):
        return False
    (value, unit), (wanted, wanted_unit) = found[0], true[0]
    if abs(value - wanted) > tolerance * abs(wanted) + 1e-9:
        return False
    if wanted_unit is None:
        return unit not in ("length", "volume", "share")
    if wanted_unit in _FACTORS or unit in _FACTORS:
        return unit == wanted_unit
    words = {word.removesuffix("s") for word in re.split(r"\W+", text.casefold())}
    return unit is None or unit == wanted_unit or wanted_unit in words


def _with_units(text: str) -> list[tuple[float, str | None]]:
    """The numbers of a text in the base unit of their kind, and the kind or the word that follows; 5,000 is whole."""
    found: list[tuple[float, str | None]] = []
    for number, word in NUMBER_WITH_UNIT.findall(text):
        kind, factor = _kind(word)
        plain = number.replace(",", "" if THOUSANDS.fullmatch(number) else ".")
        found.append((round(float(plain) * factor, 9), kind))
    return found


def _kind(word: str) -> tuple[str | None, float]:
    """What a word behind a number measures; a word that is no unit is its own kind."""
    if not word or word.casefold() in NO_UNITS:
        return None, 1.0
    unit = word.casefold()
    unit = next((short for long, short in LONG_NAMES.items() if unit.startswith(long)), unit)
    for name in (unit, unit.removesuffix("s")):
        if name in CONVERTIBLE:
            return CONVERTIBLE[name]
    return unit.removesuffix("s"), 1.0
