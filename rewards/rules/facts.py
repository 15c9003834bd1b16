"""Facts: what is true of an image, or what a text claims of it.

A finding that is not listed is *not known*, which is not the same as absent.
Left out: stages, implications, answers to questions; they follow from the facts by the rule set.
"""

from functools import lru_cache
from typing import Literal

from pydantic import BaseModel, ConfigDict

Polarity = Literal["present", "absent", "uncertain"]
Box = tuple[float, float, float, float]
"""(x1, y1, x2, y2): x to the right, y down, half-open, x1 < x2 and y1 < y2."""
Unsupported = Literal["wrong", "ignore"]
"""What a finding that is claimed, and that the truth does not know, counts as: a wrong claim, or nothing."""


class Finding(BaseModel):
    """One finding: whether it is there and, where it is, its attributes (None = not stated)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    polarity: Polarity
    side: str | None = None
    size: str | None = None
    count: int | None = None
    boxes: tuple[Box, ...] = ()


Scalar = str | bool | int | float


class Facts(BaseModel):
    """Findings by name, under one version of one rule set (``"chest_xray@1"``).

    ``values``: labels, measurements and codes by column, from which a rule set derives answers and stages.

    >>> facts = Facts(rule_set="chest_xray@1", findings={"nodule": Finding(polarity="present", side="left")})
    >>> Facts.model_validate_json(facts.model_dump_json(exclude_defaults=True)) == facts
    True
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule_set: str
    findings: dict[str, Finding] = {}
    values: dict[str, Scalar | list[str]] = {}

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
