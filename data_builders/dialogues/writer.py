"""Dialogues written from true answers: who is asked what in which order, with which hints, in whose words.

The gold symbols come from the facts by the rule set; the words are drawn for them. Scenarios follow Dr-LLaVA
(arXiv 2405.19567): standard, improvised and random subsets, misleading hints and confirmations; its diagnosis-first
evaluation was the reversed order, which has its own name here. Left out: clinicians that change their mind.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from data_builders.dialogues.weak_annotator import WeakAnnotator
from data_builders.schema import Message, assistant_turn, user_turn
from rewards.dialogues.dialogue import Claim, Context, Dialogue, Scenario, Turn, clinician_says
from rewards.rules.decision import Decision, met
from rewards.rules.evidence import Value
from rewards.rules.facts import Facts
from rewards.rules.nodes import NOT_APPLICABLE, WordingSplit
from rewards.rules.rule_set import RuleSet
from rewards.rules.symbols import read_symbol

Paraphraser = Callable[[str], str]
"""Another wording of one sentence; it is read back, and refused if it says something else or what tests say."""
CLAIM_CHANCE = 0.5
"""Of each turn that may carry a hint or confirmation; at least one does."""
CLAIMED: dict[str, tuple[str, bool]] = {
    "hint_right": ("hint", True),
    "hint_wrong": ("hint", False),
    "confirm_right": ("confirmation", True),
    "confirm_wrong": ("confirmation", False),
}


def symbols_of(facts: Facts, decision: Decision) -> dict[str, str | None]:
    """The true answer to each node, derived from all that is known; None where that does not decide it."""
    return decision.derived(facts.record())


def dialogue_fault(facts: Facts, rules: RuleSet) -> str | None:
    """Why no dialogue can be written from these facts, or None.

    A node without an answer, a label that the rules do not know, answers that are no valid path, or a value that
    the clinician would have to tell and that is missing.
    """
    if rules.decision is None:
        return f"rule set {rules.id} has no decision section, so it gives no dialogues"
    fault = rules.decision.record_fault(facts.record())
    if fault is not None:
        return fault
    symbols = symbols_of(facts, rules.decision)
    known = {name: symbol for name, symbol in symbols.items() if symbol is not None}
    for context in rules.decision.context:
        if met(context.when, known) and _filled(context.text, facts.record()) is None:
            return f"what is told before '{context.before}' lacks a value: {context.text}"
    return None


@dataclass(frozen=True)
class Writer:
    """Writes dialogues about one image. ``image_turns``: the turn (from 1) that each image opens.

    ``annotator``: whose answers are written (None: true ones). ``counts``: paraphrases used and refused.
    """

    facts: Facts
    rules: RuleSet
    wording: WordingSplit
    rng: random.Random
    image_turns: tuple[int, ...] = (1,)
    paraphrase: Paraphraser | None = None
    counts: Counter[str] = field(default_factory=Counter[str])
    annotator: WeakAnnotator | None = None

    @property
    def decision(self) -> Decision:
        """The decision of the rule set."""
        assert self.rules.decision is not None
        return self.rules.decision

    def dialogue(self, scenario: Scenario) -> Dialogue:
        """A dialogue of one scenario, its order, claims and words drawn afresh."""
        symbols = {n: s for n, s in symbols_of(self.facts, self.decision).items() if s is not None}
        nodes = ordered(self.decision, symbols, scenario, self.rng)
        claims = self._claims(nodes, symbols, scenario)
        turns = [self._turn(name, symbols[name], claims.get(name)) for name in nodes]
        images = Counter(min(turn, len(turns)) for turn in self.image_turns)
        placed = [turn.model_copy(update={"images": images[k]}) for k, turn in enumerate(turns, start=1)]
        return Dialogue(rule_set=self.rules.id, scenario=scenario, wording=self.wording, turns=tuple(placed))

    def _turn(self, name: str, gold: str, claim: Claim | None) -> Turn:
        question = self.rng.choice(self.decision.nodes[name].ask.of(self.wording))
        if claim is not None:
            pool = self.decision.hint if claim.kind == "hint" else self.decision.confirm
            claim_words = self._answer_words(claim.node, claim.symbol)
            question = self.rng.choice(pool.of(self.wording)).format(claim=claim_words, ask=question)
        symbol = self.annotator.symbol(self.decision, name, gold, claim, self.rng) if self.annotator else gold
        return Turn(
            node=name,
            gold=gold,
            question=question,
            answer=self._answer_words(name, symbol),
            claim=claim,
            told=self._contexts(name),
        )

    def _contexts(self, name: str) -> tuple[Context, ...]:
        record = self.facts.record()
        about = [(c.when, _filled(c.text, record)) for c in self.decision.context if c.before == name]
        return tuple(Context(when=when, text=text) for when, text in about if text is not None)

    def _answer_words(self, name: str, symbol: str) -> str:
        """One wording of an answer; in training it is paraphrased where that keeps the symbol."""
        node = self.decision.nodes[name]
        template = self.rng.choice(node.answers[symbol].say.of(self.wording))
        if self.paraphrase is None or self.wording == "test":
            return template
        other = self.paraphrase(template)
        fault = self._refused(other, name, symbol)
        self.counts[f"refused: {fault}" if fault else "used"] += 1
        return template if fault else other

    def _refused(self, paraphrase: str, name: str, symbol: str) -> str:
        """Why a paraphrase cannot stand for a symbol (it says something else, or what tests say), or nothing."""
        node = self.decision.nodes[name]
        reading = read_symbol(paraphrase, node)
        if reading.stated != symbol:
            return f"{reading.kind} {reading.symbol or ''}".rstrip()
        tested = [text.casefold() for answer in node.answers.values() for text in answer.say.test]
        return "a wording of tests" if paraphrase.casefold() in tested else ""

    def _claims(self, nodes: list[str], symbols: Mapping[str, str], scenario: Scenario) -> dict[str, Claim]:
        """The claim put before each node, in scenarios that have claims."""
        if scenario not in CLAIMED:
            return {}
        kind, right = CLAIMED[scenario]
        about = dict(zip(nodes[1:], nodes, strict=False)) if kind == "hint" else {name: name for name in nodes}
        drawn = [name for name in about if self.rng.random() < CLAIM_CHANCE]
        chosen = drawn or ([self.rng.choice(list(about))] if about else [])
        return {name: self._claim(about[name], symbols[about[name]], kind == "hint", right) for name in chosen}

    def _claim(self, name: str, gold: str, is_hint: bool, right: bool) -> Claim:
        others = [symbol for symbol in self.decision.nodes[name].answers if symbol != gold]
        symbol = gold if right else self.rng.choice(others)
        return Claim(kind="hint" if is_hint else "confirmation", node=name, symbol=symbol, right=right)


def ordered(decision: Decision, symbols: Mapping[str, str], scenario: Scenario, rng: random.Random) -> list[str]:
    """The nodes that a scenario asks, in its order. Nodes that are not applicable are never asked."""
    standard = [name for name in decision.order if symbols[name] != NOT_APPLICABLE]
    if scenario == "diagnosis_first":
        return [decision.final, *(name for name in standard if name != decision.final)]
    if scenario == "reversed":
        return standard[::-1]
    if scenario == "improvised":
        return rng.sample(standard, len(standard))
    if scenario == "subset":
        return rng.sample(standard, rng.randint(min(2, len(standard)), len(standard)))
    if scenario == "single":
        return [rng.choice(standard)]
    return standard


def drawn_scenario(mixture: Mapping[Scenario, float], rng: random.Random) -> Scenario:
    """A scenario, by weight."""
    return rng.choices(list(mixture), weights=list(mixture.values()))[0]


def transcript(dialogue: Dialogue) -> list[Message]:
    """The whole dialogue as messages, with the true answers; what the clinician tells follows from them."""
    messages: list[Message] = []
    symbols: dict[str, str] = {}
    for turn in dialogue.turns:
        messages += user_turn(clinician_says(turn, symbols), num_images=turn.images)
        messages += assistant_turn(turn.answer)
        symbols[turn.node] = turn.gold
    return messages


def halves(messages: Sequence[Message], *, by_turn: bool) -> Iterator[tuple[list[Message], list[Message]]]:
    """Prompt and completion: once with everything after the first turn, or once for each of the model's turns."""
    if not by_turn:
        yield list(messages[:1]), list(messages[1:])
        return
    for end in range(1, len(messages), 2):
        yield list(messages[:end]), list(messages[end : end + 1])


def _filled(template: str, record: Mapping[str, Value]) -> str | None:
    """A template with the columns of a record; None if it names one that is missing."""
    try:
        return template.format_map(record)
    except KeyError:
        return None
