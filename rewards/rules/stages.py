"""Ordered scales: disease stages and levels of referral. The most severe level with evidence wins.

A scale may read the scales before it (a referral reads the stage), and a rule set may hold several policies for one
decision, each under its own name. Evidence that is unknown and could raise the level gives "at least X".
Left out: probabilities, and levels that are not ordered.
"""

from dataclasses import dataclass, field
from itertools import product

from pydantic import Field

from rewards.config.strict_model import StrictModel
from rewards.rules.evidence import Clause, Evidence, Scalar, Value, any_holds, holds


class Level(StrictModel):
    """One level of a scale. ``any_of``: one clause is enough. Only the lowest level may have none (the default).

    ``phrases``: what it is called, beside its name.
    """

    name: str
    phrases: list[str] = []
    any_of: list[Clause] = []


class Scale(StrictModel):
    """Levels from the least to the most severe."""

    levels: list[Level] = Field(min_length=2)

    @property
    def names(self) -> list[str]:
        """The levels' names, least severe first."""
        return [level.name for level in self.levels]


class Implication(StrictModel):
    """Evidence that follows from other evidence: ``when`` holds, then these values are so.

    ``name``: of the contradiction, where something else is stated.
    """

    when: Clause
    then: dict[str, Scalar]
    name: str = ""


class Staging(StrictModel):
    """The ordered scales of a rule set, and the implications that close the evidence first."""

    implications: list[Implication] = []
    scales: dict[str, Scale] = Field(min_length=1)


@dataclass(frozen=True)
class Staged:
    """Where the evidence stands on a scale. ``could_be``: higher levels that unknown evidence might give.

    ``because``: the clauses that gave the level.
    """

    level: str
    could_be: tuple[str, ...] = ()
    because: tuple[Clause, ...] = ()

    @property
    def words(self) -> str:
        """``X``, or ``at least X`` where unknown evidence could raise it."""
        return f"at least {self.level}" if self.could_be else self.level


@dataclass(frozen=True)
class Contradiction:
    """Evidence that says one thing where an implication says another. ``rule``: its name."""

    name: str
    stated: Value
    implied: Scalar
    rule: str = field(default="", compare=False)


def closed(evidence: Evidence, implications: list[Implication]) -> tuple[dict[str, Value], list[Contradiction]]:
    """The evidence with all that follows from it, and where it contradicts what follows. What is stated stays."""
    known, clashes, grown = dict(evidence), list[Contradiction](), True
    while grown:
        grown = False
        for rule in implications:
            for name, implied in rule.then.items() if holds(rule.when, known) else ():
                stated = known.get(name)
                if stated is None:
                    known[name], grown = implied, True
                elif stated != implied and Contradiction(name, stated, implied) not in clashes:
                    clashes.append(Contradiction(name, stated, implied, rule.name))
    return known, clashes


def staged(evidence: Evidence, scale: Scale) -> Staged:
    """The most severe level that the evidence gives; the lowest where it gives none.

    >>> scale = Scale.model_validate({"levels": [{"name": "healthy"}, {"name": "early", "any_of": [{"drusen": True}]},
    ...     {"name": "late", "any_of": [{"fluid": True}]}]})
    >>> staged({"drusen": True}, scale).words, staged({"drusen": True, "fluid": False}, scale).words
    ('at least early', 'early')
    """
    truths = [any_holds(level.any_of, evidence) for level in scale.levels]
    rank = max((k for k, truth in enumerate(truths) if truth), default=0)
    level = scale.levels[rank]
    return Staged(
        level=level.name,
        could_be=tuple(scale.levels[k].name for k in range(rank + 1, len(truths)) if truths[k] is None),
        because=tuple(clause for clause in level.any_of if holds(clause, evidence)),
    )


def all_scales(evidence: Evidence, staging: Staging) -> tuple[dict[str, Staged], list[Contradiction]]:
    """Every scale in turn, each seeing those before it, and the contradictions in the evidence.

    Where an earlier scale has several possible levels, a later one is worked out for each of them.
    """
    known, clashes = closed(evidence, staging.implications)
    found: dict[str, Staged] = {}
    for name, scale in staging.scales.items():
        possible = {before: (result.level, *result.could_be) for before, result in found.items()}
        cases = [dict(zip(possible, levels, strict=True)) for levels in product(*possible.values())]
        found[name] = _least([staged({**known, **case}, scale) for case in cases], scale)
    return found, clashes


def _least(cases: list[Staged], scale: Scale) -> Staged:
    """The lowest of several possible results, with all that the others might add."""
    lowest = min(cases, key=lambda case: scale.names.index(case.level))
    named = {level for case in cases for level in (case.level, *case.could_be)} - {lowest.level}
    return Staged(lowest.level, tuple(level for level in scale.names if level in named), lowest.because)
