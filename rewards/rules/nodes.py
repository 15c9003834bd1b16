"""Nodes: the questions of a decision, their answers, and the words of both. What ties them is in ``decision``."""

from typing import Literal

from pydantic import Field

from rewards.config.strict_model import StrictModel
from rewards.rules.evidence import Clause as EvidenceClause

NOT_APPLICABLE = "n/a"
"""The symbol of a node that is not asked."""
NOT = "not "
Symbols = str | list[str]
"""A symbol, several (one of them), or ``not X``."""
Clause = dict[str, Symbols]
WordingSplit = Literal["train", "test"]


class Strict(StrictModel):
    """A section of a rule set: unknown keys and wrong types are refused."""


class Pool(Strict):
    """Templates of equal meaning; those for training and those for tests have none in common."""

    train: list[str] = Field(min_length=1)
    test: list[str] = Field(min_length=1)

    def of(self, split: WordingSplit) -> list[str]:
        """The templates of one split."""
        return self.train if split == "train" else self.test


class Answer(Strict):
    """One answer to a node.

    ``phrases``: what it is read from. ``say``: how it is written. ``negated``: the symbol that denying this one
    states, where it states one ("not adequate" = "inadequate"). ``may_contain``: symbols whose phrases may stand
    inside the phrases of this one, since the longest match is read.
    """

    phrases: list[str] = Field(min_length=1)
    say: Pool
    negated: str | None = None
    may_contain: list[str] = []


class Node(Strict):
    """One question.

    ``also_read``: symbols that are understood but are no answer, with their phrases. ``if_yes``, ``if_no``: what a
    bare yes or no states. ``ask_if``: asked only where this holds of earlier nodes; else the symbol is ``na`` or,
    without ``na``, the node is not asked. ``severity`` in [0, 1] of an error, and ``errors[gold][said]`` where one
    weighs otherwise. ``partial_credit[gold][said]`` in [0, 1].
    """

    gloss: str
    ask: Pool
    answers: dict[str, Answer] = Field(min_length=2)
    also_read: dict[str, list[str]] = {}
    if_yes: str | None = None
    if_no: str | None = None
    ask_if: Clause = {}
    na: str | None = None
    severity: float = Field(default=0.5, ge=0.0, le=1.0)
    errors: dict[str, dict[str, float]] = {}
    partial_credit: dict[str, dict[str, float]] = {}

    @property
    def domain(self) -> tuple[str, ...]:
        """Every symbol that the node may have."""
        skipped = (NOT_APPLICABLE,) if self.ask_if and self.na is None else ()
        return (*self.answers, *skipped)

    @property
    def lexicon(self) -> dict[str, list[str]]:
        """The phrases of every symbol that is understood."""
        return {**{symbol: answer.phrases for symbol, answer in self.answers.items()}, **self.also_read}


class Constraint(Strict):
    """Where ``when`` holds, ``then`` must hold."""

    when: Clause
    then: Clause


class Derivation(Strict):
    """The symbol of a node, where ``when`` holds of the record's columns and of nodes derived before."""

    symbol: str
    when: EvidenceClause = {}


class Context(Strict):
    """What the clinician adds before a question once an earlier answer was given. ``text`` may name record columns."""

    before: str
    when: Clause
    text: str
