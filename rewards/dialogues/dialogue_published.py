"""The reward of Dr-LLaVA (arXiv 2405.19567) in the four generations of its released code.

G3 is the formula nearest the paper: correctness + consistency of neighbouring answers, weight 1 each, and -0.5 for an
answer that is not understood. The paper asks for a valid whole path and a real length penalty; G3 as released checks
neighbouring pairs, and its length term is taken on symbols, where it never fires (``length_of="answers"`` makes it
real). Known weaknesses: any constant valid path earns full consistency; a shuffled order hides contradictions; length
is free. ``dialogue_consistency`` mends them. One difference in all generations: the truth is the
stored symbol, not a parse of the reference text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from rewards.config.input_error import InputError
from rewards.config.knobs import Amount
from rewards.dialogues.dialogue import Dialogue, Responses, read_dialogue, readings, turn_responses
from rewards.rules.decision import Decision

BOUNDS = (-100.0, 20.0)
"""Loose: the generations have other ranges. G3 of five turns lies in [-2.5, 9], G2 in [-0.5, 6]."""
TASKS = ("dialogue",)
Generation = Literal["g1", "g2", "g3", "g4"]
NO_MATCH = "no match"
MULTIPLIERS = {4: 3.0, 3: 2.0, 2: 1.5}
"""G1: by the longest run of answers shared with a valid path."""
ECG_NODES = ("st_elevation", "st_depression", "troponin", "diagnosis")


@dataclass(frozen=True)
class _Transcript:
    """One dialogue as the formulas see it: symbols and texts, turn by turn."""

    dialogue: Dialogue
    symbols: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def decision(self) -> Decision:
        return self.dialogue.decision

    @property
    def by_node(self) -> dict[str, str]:
        return {turn.node: symbol for turn, symbol in zip(self.dialogue.turns, self.symbols, strict=True)}


def dialogue_published(
    response: Responses,
    dialogue: str | None,
    *,
    generation: Generation = "g3",
    consistency_weight: Amount = 1.0,
    length_of: Literal["symbols", "answers"] = "symbols",
) -> float | None:
    """The published reward of a whole dialogue; None for a row that holds none.

    ``response``: the model's turns in order (a bare string is the first). ``consistency_weight``: of G3 and G4.

    >>> from rewards.dialogues.dialogue import Dialogue, Turn
    >>> turn = Turn(node="region", gold="clot", question="Which region?", answer="A clot.")
    >>> row = Dialogue(rule_set="bone_marrow@1", scenario="single", wording="train", turns=(turn,)).to_json()
    >>> dialogue_published(["It is a clot."], row), dialogue_published(["Hm."], row)
    (1.0, -0.5)
    """
    if not dialogue:
        return None
    parts = components(
        response, dialogue, generation=generation, consistency_weight=consistency_weight, length_of=length_of
    )
    return parts["correctness"] + parts["consistency"] + parts["length"]


def components(
    response: Responses,
    dialogue: str | None,
    *,
    generation: Generation = "g3",
    consistency_weight: float = 1.0,
    length_of: Literal["symbols", "answers"] = "symbols",
) -> dict[str, float]:
    """Correctness, consistency and length, which add up to the reward; the number of answers not understood."""
    if not dialogue:
        return {}
    transcript = _transcript(response, dialogue)
    parts = {
        "g1": lambda: _first(transcript),
        "g2": lambda: (_gated(transcript), 0.0, 0.0),
        "g3": lambda: (
            sum(_credits(transcript)),
            consistency_weight * adjacent_pairs(transcript),
            _length_tenth(transcript, length_of),
        ),
        "g4": lambda: _ecg(transcript, consistency_weight),
    }[generation]()
    names = ("correctness", "consistency", "length")
    return {**dict(zip(names, parts, strict=True)), "no_match": float(transcript.symbols.count(NO_MATCH))}


def by_turn(response: Responses, dialogue: str, **knobs: Generation | float | str) -> tuple[list[float], float]:
    """The credit of each answer, and what remains for the dialogue as a whole; together they are the reward."""
    credits = _credits(_transcript(response, dialogue))
    total = dialogue_published(response, dialogue, **knobs)  # pyright: ignore[reportArgumentType]
    return credits, (total or 0.0) - sum(credits)


def _transcript(response: Responses, column: str) -> _Transcript:
    dialogue = read_dialogue(column)
    symbols = tuple(reading.stated or NO_MATCH for reading in readings(response, dialogue))
    return _Transcript(dialogue, symbols, tuple(turn_responses(response, dialogue)))


def _credits(transcript: _Transcript, *, no_match: float = -0.5, partial: bool = False) -> list[float]:
    """+1 for the true symbol, ``no_match`` for none, else 0 or, with ``partial``, the credit that the rules give."""
    credits: list[float] = []
    for turn, symbol in zip(transcript.dialogue.turns, transcript.symbols, strict=True):
        earned = transcript.decision.credit(turn.node, turn.gold, symbol)
        credits.append(no_match if symbol == NO_MATCH else earned if partial or symbol == turn.gold else 0.0)
    return credits


def adjacent_pairs(transcript: _Transcript) -> float:
    """How many neighbouring answers occur together in some valid tuple."""
    spoken = list(transcript.by_node.items())
    return float(sum(transcript.decision.is_valid(dict(pair)) for pair in pairwise(spoken)))


def _length_tenth(transcript: _Transcript, length_of: str) -> float:
    """G3: -|difference in length| / 10 where that is above 1."""
    golds = [turn.gold if length_of == "symbols" else turn.answer for turn in transcript.dialogue.turns]
    spoken = transcript.symbols if length_of == "symbols" else transcript.texts
    return -sum(excess for excess in (abs(d) / 10 for d in _differences(spoken, golds)) if excess > 1)


def _differences(spoken: Sequence[str], golds: Sequence[str]) -> list[int]:
    return [len(one) - len(gold) for one, gold in zip(spoken, golds, strict=True)]


def _gated(transcript: _Transcript) -> float:
    """G2: what the first answer earns, unless it is right; then everything and one more."""
    credits = _credits(transcript)
    return credits[0] if credits[0] <= 0 else sum(credits) + 1


def _first(transcript: _Transcript) -> tuple[float, float, float]:
    """G1: the mean credit times a multiplier of the path, and the mean of whole 80s of characters too many or few."""
    turns = transcript.dialogue.turns
    credits = _credits(transcript, partial=True)
    mean = sum(credits) / len(turns)
    lengths = [-float(abs(d) // 80) for d in _differences(transcript.texts, [turn.answer for turn in turns])]
    return mean, (_multiplier(transcript) - 1) * mean, sum(lengths) / len(turns)


def _multiplier(transcript: _Transcript) -> float:
    """5 for the true path, 4 for a valid one (partial credit counts as what it stands for), else by the longest run."""
    if transcript.by_node == transcript.dialogue.gold:
        return 5.0
    order = [name for name in transcript.decision.order if name in transcript.by_node]
    runs = [
        _longest_run([_stands_for(transcript, name, full) for name in order])
        for full in transcript.decision.tuples or ()
    ]
    if max(runs, default=0) == len(order):
        return 4.0
    exact = [
        _longest_run([transcript.by_node[n] == full[n] for n in order]) for full in transcript.decision.tuples or ()
    ]
    return MULTIPLIERS.get(max(exact, default=0), 1.0)


def _stands_for(transcript: _Transcript, name: str, full: Mapping[str, str]) -> bool:
    """Whether an answer is that of a valid tuple, or another of the node's answers that has partial credit for it."""
    symbol, node = transcript.by_node[name], transcript.decision.nodes[name]
    partial = symbol in node.answers and symbol in node.partial_credit.get(full[name], {})
    return symbol == full[name] or partial


def _longest_run(shared: list[bool]) -> int:
    longest = run = 0
    for same in shared:
        run = run + 1 if same else 0
        longest = max(longest, run)
    return longest


def _ecg(transcript: _Transcript, consistency_weight: float) -> tuple[float, float, float]:
    """G4, of the ECG branch: reads the four nodes of the rule set ``ecg_mi`` by name."""
    spoken, gold = transcript.by_node, transcript.dialogue.gold
    if set(gold) != set(ECG_NODES):
        raise InputError(f"dialogue_published: g4 judges dialogues of {', '.join(ECG_NODES)}; got {', '.join(gold)}.")
    credits = sum(_credits(transcript, no_match=-1.0)) + _diagnosis_extra(spoken, gold) + _troponin_extra(spoken, gold)
    elevated = spoken["st_elevation"] == "elevated"
    fits = (spoken["diagnosis"] == "stemi" and elevated) or (
        spoken["diagnosis"] == "nstemi" and spoken["st_elevation"] == "level"
    )
    differences = _differences(transcript.texts, [turn.answer for turn in transcript.dialogue.turns])
    length = sum(max(-abs(d) / 25, -2.0) for d in differences if abs(d) > 10)
    return credits, consistency_weight * 7.5 * fits, length


def _diagnosis_extra(spoken: Mapping[str, str], gold: Mapping[str, str]) -> float:
    """An infarction is worth 2 (1 is credited before), missing it costs 1."""
    symbol, true = spoken["diagnosis"], gold["diagnosis"]
    if true == "normal" or symbol == NO_MATCH:
        return 0.0
    return 1.0 if symbol == true else -1.0


def _troponin_extra(spoken: Mapping[str, str], gold: Mapping[str, str]) -> float:
    """Ordering troponin earns 1 more in an infarction, and costs 1 in a normal ECG without any sign."""
    if spoken["troponin"] != "order":
        return 0.0
    signs = gold["st_elevation"] == "elevated" or gold["st_depression"] == "seen"
    return 1.0 if gold["diagnosis"] != "normal" else 0.0 if signs else -1.0
