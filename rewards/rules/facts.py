"""Facts: what is true of an image, or what a text claims of it.

A finding that is not listed is *not known*, which is not the same as absent.
Left out: stages, implications, answers to questions; they follow from the facts by the rule set.
"""

from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Polarity = Literal["present", "absent", "uncertain"]
Box = tuple[float, float, float, float]
"""(x1, y1, x2, y2): x to the right, y down, half-open, x1 < x2 and y1 < y2."""
Unsupported = Literal["wrong", "ignore"]
"""What a finding that is claimed, and that the truth does not know, counts as: a wrong claim, or nothing."""
Direction = Literal["appeared", "resolved", "improved", "worsened", "unchanged"]
"""What became of a finding between two exams."""
Scalar = str | bool | int | float
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A finite number: neither a text that looks like one, nor true or false."""


def _nothing_as(empty: type) -> BeforeValidator:
    """Reads null, which says that nothing is known, as what is empty: such parts are not written either."""

    def known(value: Any) -> Any:
        return empty() if value is None else value

    return BeforeValidator(known)


class Finding(BaseModel):
    """One finding: whether it is there and, where it is, its attributes (None = not stated).

    ``sides``: what holds on each side, where more is known than the one ``side``. ``places``: the anatomy it is in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    polarity: Polarity
    side: str | None = None
    size: str | None = None
    count: int | None = None
    boxes: tuple[Box, ...] = ()
    sides: Annotated[dict[Literal["left", "right"], Polarity], _nothing_as(dict)] = {}
    places: Annotated[tuple[str, ...], _nothing_as(tuple)] = ()
    attributes: Annotated[dict[str, Scalar], _nothing_as(dict)] = {}


class Change(BaseModel):
    """What became of a finding since the exam before, in one ``place`` (None: as a whole)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    finding: str
    place: str | None = None
    to: Direction


class Measurement(BaseModel):
    """A number with its unit, and how far another may be from it and be right (``tolerance``; None: not known)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: Number
    unit: str | None = None
    tolerance: Annotated[Number, Field(ge=0)] | None = None
    place: str | None = None


class Facts(BaseModel):
    """Findings by name, under one version of one rule set (``"chest_xray@1"``).

    ``values``: labels, measurements and codes by column, from which a rule set derives answers and stages.
    ``changes`` since the exam before, and ``measurements`` by name, have a place here and are not rendered or read yet.

    >>> facts = Facts(rule_set="chest_xray@1", findings={"nodule": Finding(polarity="present", side="left")})
    >>> Facts.model_validate_json(facts.model_dump_json(exclude_defaults=True)) == facts
    True
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule_set: str
    findings: dict[str, Finding] = {}
    values: dict[str, Scalar | list[str]] = {}
    changes: Annotated[tuple[Change, ...], _nothing_as(tuple)] = ()
    measurements: Annotated[dict[str, Measurement], _nothing_as(dict)] = {}

    @staticmethod
    @lru_cache(maxsize=4096)
    def told(text: str) -> "Facts":
        """The facts in a row's JSON; those of a row are asked for by every reward and every answer, and parsed once."""
        return Facts.model_validate_json(text)

    def record(self) -> dict[str, Scalar | list[str]]:
        """All that is known as columns: ``NAME`` (polarity), ``NAME.side``, ``.size``, ``.count``, and the values.

        >>> Facts(rule_set="x@1", findings={"nodule": Finding(polarity="present", side="left")}).record()
        {'nodule': 'present', 'nodule.side': 'left'}
        """
        columns: dict[str, Scalar | list[str]] = {}
        for name, finding in self.findings.items():
            if finding.polarity != "uncertain":
                columns[name] = finding.polarity
            stated = {"side": finding.side, "size": finding.size, "count": finding.count}
            columns |= {f"{name}.{key}": value for key, value in stated.items() if value is not None}
        return columns | self.values

    def without_boxes(self) -> "Facts":
        """The same facts as a report tells them, in words and without coordinates."""
        bare = {name: f.model_copy(update={"boxes": ()}) for name, f in self.findings.items()}
        return self.model_copy(update={"findings": bare})

    def present(self) -> dict[str, Finding]:
        """The findings that are there."""
        return {name: f for name, f in self.findings.items() if f.polarity == "present"}

    def to_json(self) -> str:
        """One line of JSON, without what is None or empty."""
        return self.model_dump_json(exclude_defaults=True)
