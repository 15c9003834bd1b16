"""What an audit tries on a row: scripted answers by name, and which honest answers none of them may earn more than.

One list for questions, one for whole dialogues. Left out: responses of a policy in training (``canaries``).
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rewards.attacks import attacks, dialogue_attacks, truth_attacks
from rewards.dialogues.dialogue import Dialogue, Responses

HONEST, IMPERFECT = "honest", "imperfect"
Script = Callable[[Any, random.Random], Responses | None]


@dataclass(frozen=True)
class Trial:
    """A scripted answer. ``against``: the honest ones whose mean it may not exceed; without any it is one of them.

    ``is_false``: it says what is wrong, so that it must earn less than they, not as much.
    """

    name: str
    says: Script
    against: tuple[str, ...] = ()
    is_false: bool = False
    is_addition: bool = False


def question_trials() -> list[Trial]:
    """What is tried on rows of single questions."""
    honest: dict[str, Script] = {
        HONEST: lambda row, rng: row.answer,
        IMPERFECT: attacks.imperfect,
        **truth_attacks.BASELINES,
    }
    return [
        *[Trial(name, says) for name, says in honest.items()],
        *[Trial(name, says, (IMPERFECT,)) for name, says in attacks.ATTACKS.items()],
        *[Trial(name, says, (HONEST,), is_addition=True) for name, says in truth_attacks.ADDITIONS.items()],
        *[Trial(name, says, (HONEST,), is_false=True) for name, says in truth_attacks.FALSEHOODS.items()],
        *[Trial(name, hedge.attempt, hedge.against) for name, hedge in truth_attacks.HEDGES.items()],
    ]


def dialogue_trials(rows: list[Dialogue]) -> list[Trial]:
    """What is tried on rows of whole dialogues; the classes are those of the first row's rule set."""
    honest: dict[str, Script] = {
        HONEST: dialogue_attacks.honest,
        IMPERFECT: dialogue_attacks.imperfect,
        **dialogue_attacks.BASELINES,
    }
    blind = {**dialogue_attacks.ATTACKS, **dialogue_attacks.constant_cases(rows[0].decision)}
    return [
        *[Trial(name, says) for name, says in honest.items()],
        *[Trial(name, says, (IMPERFECT,)) for name, says in blind.items()],
        *[Trial(name, says, (HONEST,), is_addition=True) for name, says in dialogue_attacks.ADDITIONS.items()],
        *[Trial(name, says, truth_attacks.TWO) for name, says in dialogue_attacks.HEDGES.items()],
    ]
