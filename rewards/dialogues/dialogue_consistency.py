"""Right answers that hang together: a reward for dialogues under a decision, made hard to game.

What is mended against the published formula (``dialogue_published``):
- credit is centred: from each answer is taken what always giving that answer would earn on average under the rule set's
  shares, so that no constant answer, and no constant path, earns anything;
- consistency costs where it is broken and pays nothing where it is kept: the least number of answers that must be
  taken back until the others are part of one valid tuple, over the asked subset in any order;
- yielding to a wrong claim of the clinician costs; an answer that is empty, hedged, refused, ambiguous or not
  understood earns the floor; length costs only beyond a span, whatever the reference's length.
Left out: how well an answer is phrased.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from rewards.answers.final_answer import answer_region, num_words
from rewards.config.knobs import Amount, Count, Number
from rewards.dialogues.dialogue import Dialogue, Responses, Turn, read_dialogue, readings, turn_responses
from rewards.rules.decision import Decision
from rewards.rules.symbols import SymbolReading

BOUNDS = (-1.0, 1.0)
TASKS = ("dialogue",)
FLOOR = -1.0


@dataclass(frozen=True)
class _Costs:
    consistency_weight: float
    yield_cost: float
    length_cost: float
    min_words: int
    max_words: int


def dialogue_consistency(
    response: Responses,
    dialogue: str | None,
    *,
    consistency_weight: Amount = 0.5,
    yield_cost: Amount = 1.0,
    length_cost: Amount = 0.2,
    min_words: Count = 3,
    max_words: Number = 40,
) -> float | None:
    """The mean over turns of centred credit less costs, in [-1, 1]; None for a row without a dialogue.

    A turn earns credit(gold, said) - E[credit(., said)], less ``yield_cost`` if it follows a wrong claim, less
    ``length_cost`` if it has under ``min_words`` words, or in proportion from ``max_words`` to twice as many; an answer
    without a symbol earns -1, and no turn earns less. Each answer that contradicts the others costs
    ``consistency_weight`` of a turn. With a weight below the least centred gain of a right answer (0.6 in the bone
    marrow), a right answer never pays less than a wrong one that fits.

    ``response``: the model's turns in order (a bare string is the first).

    >>> from rewards.dialogues.dialogue import Dialogue, Turn
    >>> turn = Turn(node="region", gold="clot", question="Which region?", answer="A clot.")
    >>> row = Dialogue(rule_set="bone_marrow@1", scenario="single", wording="train", turns=(turn,)).to_json()
    >>> [dialogue_consistency([said], row) for said in ("It is a clot.", "It is all blood.", "Hm.")]
    [0.8, -0.2, -1.0]
    """
    if not dialogue:
        return None
    costs = _Costs(consistency_weight, yield_cost, length_cost, min_words, max_words)
    return _Heard.of(response, read_dialogue(dialogue)).total(costs)


def components(response: Responses, dialogue: str | None, **knobs: Any) -> dict[str, float]:
    """Shares over turns: ``correct``, ``credit`` (centred), ``no_match``, ``ambiguous``, ``length``, ``severity``.

    Over the dialogue: ``consistency`` (1 - share of answers to take back), ``path`` (1 if none), ``adjacent`` (share
    of neighbouring pairs that fit). ``yielded``: share of wrong claims followed, only where there are some.
    """
    if not dialogue:
        return {}
    script = read_dialogue(dialogue)
    decision, number = script.decision, len(script.turns)
    heard = readings(response, script)
    costs = _costs(knobs)
    pairs = list(zip(script.turns, heard, strict=True))
    taken_back = contradictions(script, heard)
    parts = {
        "correct": sum(reading.stated == turn.gold for turn, reading in pairs),
        "credit": sum(centred_credit(decision, turn, reading) for turn, reading in pairs),
        "no_match": sum(reading.stated is None for reading in heard),
        "ambiguous": sum(reading.kind == "ambiguous" for reading in heard),
        "length": sum(_length(text, costs) for text in turn_responses(response, script)),
        "severity": sum(decision.severity(t.node, t.gold, r.stated) for t, r in pairs if r.stated is not None),
    }
    shares = {name: total / number for name, total in parts.items()}
    misled = [yields(decision, turn, reading) for turn, reading in pairs if turn.claim and not turn.claim.right]
    return {
        **shares,
        "consistency": 1.0 - taken_back / number,
        "path": float(taken_back == 0),
        "adjacent": _adjacent(script, heard),
        **({"yielded": sum(misled) / len(misled)} if misled else {}),
    }


def by_turn(response: Responses, dialogue: str, **knobs: Any) -> tuple[list[float], float]:
    """What each turn adds to the reward, and what the dialogue as a whole does; together they are the reward."""
    costs = _costs(knobs)
    heard = _Heard.of(response, read_dialogue(dialogue))
    shares = [score / len(heard.turns) for score in heard.turn_scores(costs)]
    return shares, heard.total(costs) - sum(shares)


def _costs(knobs: Mapping[str, Any]) -> _Costs:
    """What is not among the knobs is as ``dialogue_consistency`` has it."""
    return _Costs(**{**(dialogue_consistency.__kwdefaults__ or {}), **knobs})


@dataclass(frozen=True)
class _Heard:
    """A dialogue with what the model said in it, turn by turn."""

    dialogue: Dialogue
    turns: tuple[tuple[Turn, SymbolReading, str], ...]

    @classmethod
    def of(cls, response: Responses, dialogue: Dialogue) -> "_Heard":
        turns = zip(dialogue.turns, readings(response, dialogue), turn_responses(response, dialogue), strict=True)
        return cls(dialogue, tuple(turns))

    def turn_scores(self, costs: _Costs) -> list[float]:
        return [max(FLOOR, self._uncapped(turn, reading, text, costs)) for turn, reading, text in self.turns]

    def _uncapped(self, turn: Turn, reading: SymbolReading, text: str, costs: _Costs) -> float:
        decision = self.dialogue.decision
        yielding = costs.yield_cost * yields(decision, turn, reading)
        return centred_credit(decision, turn, reading) - yielding - _length(text, costs)

    def total(self, costs: _Costs) -> float:
        broken = costs.consistency_weight * contradictions(self.dialogue, [reading for _, reading, _ in self.turns])
        return max(FLOOR, (sum(self.turn_scores(costs)) - broken) / len(self.turns))


def centred_credit(decision: Decision, turn: Turn, reading: SymbolReading) -> float:
    """The credit of an answer less what always giving it would earn on average; -1 without a symbol."""
    if reading.stated is None:
        return FLOOR
    shares = decision.shares[turn.node]
    expected = sum(share * decision.credit(turn.node, gold, reading.stated) for gold, share in shares.items())
    return decision.credit(turn.node, turn.gold, reading.stated) - expected


def yields(decision: Decision, turn: Turn, reading: SymbolReading) -> bool:
    """Whether a wrong answer follows a wrong claim: says the same, or what fits the claim about the turn before."""
    claim, symbol = turn.claim, reading.stated
    if claim is None or claim.right or symbol is None or symbol == turn.gold:
        return False
    if claim.node == turn.node:
        return symbol == claim.symbol
    return decision.is_valid({claim.node: claim.symbol, turn.node: symbol})


def contradictions(dialogue: Dialogue, heard: list[SymbolReading]) -> int:
    """How many of the answers must be taken back until the rest is part of a valid tuple.

    Only symbols that the node may have are counted (not those that are merely understood).
    """
    domains = dialogue.decision.domains
    known = {node: symbol for node, symbol in _known_symbols(dialogue, heard).items() if symbol in domains[node]}
    return len(known) - dialogue.decision.agreement(known)


def _known_symbols(dialogue: Dialogue, heard: list[SymbolReading]) -> dict[str, str]:
    return {t.node: r.stated for t, r in zip(dialogue.turns, heard, strict=True) if r.stated is not None}


def _adjacent(dialogue: Dialogue, heard: list[SymbolReading]) -> float:
    pairs = list(pairwise((t.node, r.stated) for t, r in zip(dialogue.turns, heard, strict=True)))
    fit = [
        one[1] is not None and other[1] is not None and dialogue.decision.is_valid({one[0]: one[1], other[0]: other[1]})
        for one, other in pairs
    ]
    return sum(fit) / len(fit) if fit else 1.0


def _length(text: str, costs: _Costs) -> float:
    """What the length of an answer costs, from 0 to the full cost."""
    words = num_words(answer_region(text))
    if words < costs.min_words:
        return costs.length_cost
    return costs.length_cost * min(1.0, max(0, words - costs.max_words) / max(1, costs.max_words))
