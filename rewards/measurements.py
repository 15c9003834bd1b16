"""Measurements in text: numbers with their units, brought to one unit of each kind.

Left out: ranges ("3-5 mm" is read as 5 mm), dates, and units that are not lengths, volumes or shares.
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
