"""Dialogues: the turns of a scripted clinician with the true symbol of each answer. The text is decoration.

A dialogue is kept as JSON in the column ``dialogue`` of its rows; everything that a reward, a rollout or a metric
needs stands in it. The model's side is a list of strings, one a turn; a single string is one turn, never several,
so that no text can pass for more turns than were taken.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rewards.config.input_error import InputError
from rewards.rules.decision import Decision, met
from rewards.rules.nodes import Clause, WordingSplit
from rewards.rules.rule_set import load_rule_set
from rewards.rules.symbols import SymbolReading, read_symbol

Scenario = Literal[
    "standard",
    "diagnosis_first",
    "reversed",
    "improvised",
    "subset",
    "single",
    "hint_right",
    "hint_wrong",
    "confirm_right",
    "confirm_wrong",
]
Responses = str | Sequence[str]
"""What the model said: one string a turn, in order; a bare string is the first turn."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Claim(_Strict):
    """What the clinician suggests before asking: about an earlier node (hint) or the one asked (confirmation)."""

    kind: Literal["hint", "confirmation"]
    node: str
    symbol: str
    right: bool


class Context(_Strict):
    """What is told before a question only if the answers so far meet ``when``."""

    when: Clause
    text: str


class Turn(_Strict):
    """One question. ``answer``: a reference wording. ``images``: how many of the row's images open this turn."""

    node: str
    gold: str
    question: str
    answer: str
    claim: Claim | None = None
    told: tuple[Context, ...] = ()
    images: int = Field(default=0, ge=0)


class Dialogue(_Strict):
    """The clinician's side of one dialogue, and the truth. Every turn is about another node."""

    rule_set: str
    scenario: Scenario
    wording: WordingSplit
    turns: tuple[Turn, ...] = Field(min_length=1)

    @property
    def gold(self) -> dict[str, str]:
        """The true symbol of each node that is asked."""
        return {turn.node: turn.gold for turn in self.turns}

    @property
    def decision(self) -> Decision:
        """The decision of the rule set. Raises: InputError if the rule set has none."""
        return decision_of(self.rule_set)

    def to_json(self) -> str:
        """One line of JSON, as in the column ``dialogue``."""
        return self.model_dump_json(exclude_defaults=True)


@lru_cache(maxsize=4096)
def read_dialogue(column: str) -> Dialogue:
    """The dialogue in a row's column ``dialogue``."""
    return Dialogue.model_validate_json(column)


def decision_of(rule_set: str) -> Decision:
    """The decision of a rule set.

    Raises: InputError if it has none.
    """
    decision = load_rule_set(rule_set).decision
    if decision is None:
        raise InputError(f"rule set '{rule_set}' has no decision section, so there are no dialogues under it.")
    return decision


def clinician_says(turn: Turn, symbols: Mapping[str, str]) -> str:
    """The clinician's words in a turn, given the symbols of the answers so far (what was not understood is left out).

    >>> turn = Turn(node="diagnosis", gold="nstemi", question="What is it?", answer="An NSTEMI.",
    ...     told=(Context(when={"troponin": "order"}, text="Troponin is 2.1 ng/ml."),))
    >>> clinician_says(turn, {"troponin": "order"}), clinician_says(turn, {})
    ('Troponin is 2.1 ng/ml. What is it?', 'What is it?')
    """
    shown = [context.text for context in turn.told if met(context.when, symbols) is True]
    return " ".join([*shown, turn.question])


def turn_responses(responses: Responses, dialogue: Dialogue) -> list[str]:
    """One response a turn: missing ones are empty, and further ones are dropped."""
    texts = [responses] if isinstance(responses, str) else list(responses)
    return [*texts, *[""] * len(dialogue.turns)][: len(dialogue.turns)]


def readings(responses: Responses, dialogue: Dialogue) -> list[SymbolReading]:
    """What each of the model's turns says, read for the node that was asked; a bare yes answers a confirmation."""
    nodes = dialogue.decision.nodes
    return [
        read_symbol(text, nodes[turn.node], claim=_to_confirm(turn))
        for text, turn in zip(turn_responses(responses, dialogue), dialogue.turns, strict=True)
    ]


def _to_confirm(turn: Turn) -> str | None:
    return turn.claim.symbol if turn.claim is not None and turn.claim.kind == "confirmation" else None
