"""Answers of weak annotators in dialogues: wrong at random, each by itself, or following a clinician who is wrong.

Only the words of an answer change; its gold symbol stays true. Errors of one dialogue are drawn independently, so what
is learnt from it need not hang together, and reinforcement learning has something to mend.
"""

import random
from dataclasses import dataclass

from pydantic import Field

from rewards.config.strict_model import StrictModel
from rewards.dialogues.dialogue import Claim
from rewards.rules.decision import Decision


@dataclass(frozen=True)
class WeakAnnotator:
    """``wrong``: share of answers that give another symbol. ``yielding``: of wrong claims, the share followed."""

    wrong: float = 0.0
    yielding: float = 0.0

    def symbol(self, decision: Decision, name: str, gold: str, claim: Claim | None, rng: random.Random) -> str:
        """What the annotator answers to a node: the gold symbol, or another of its symbols.

        A wrong claim is followed by saying the same, or what fits the claim about the turn before (where anything but
        the truth does).
        """
        if claim is not None and not claim.right and rng.random() < self.yielding:
            fitting = followed(decision, name, gold, claim)
            return rng.choice(fitting) if fitting else gold
        others = [symbol for symbol in decision.nodes[name].answers if symbol != gold]
        return rng.choice(others) if others and rng.random() < self.wrong else gold


def followed(decision: Decision, name: str, gold: str, claim: Claim) -> list[str]:
    """The wrong answers to a node that follow from a wrong claim (``dialogue_consistency.yields``)."""
    if claim.node == name:
        return [claim.symbol]
    answers = decision.nodes[name].answers
    return [s for s in answers if s != gold and decision.is_valid({claim.node: claim.symbol, name: s})]


class Flaws(StrictModel):
    """Errors of weak annotators, put on purpose into the instruction rows of some splits. Named in each row.

    ``invented_findings``: share of reports that get one invented finding. ``loose_boxes``: factor by which
    boxes are too wide and too high. ``wrong_answers``: share of a dialogue's answers that give another symbol, each
    drawn by itself. ``yielding``: share of the clinician's wrong claims that the answer follows.
    """

    splits: list[str]
    invented_findings: float = Field(default=0.0, ge=0, le=1)
    loose_boxes: float = Field(default=1.0, ge=1)
    wrong_answers: float = Field(default=0.0, ge=0, le=1)
    yielding: float = Field(default=0.0, ge=0, le=1)
