"""The dialogues of one image as rows: which scenarios, how often, in whose words, whole or answer by answer."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from data_builders.dialogues.section import Dialogues
from data_builders.dialogues.weak_annotator import Flaws, WeakAnnotator
from data_builders.dialogues.writer import Paraphraser, Writer, drawn_scenario, halves, transcript
from data_builders.schema import RowKind
from rewards.dialogues.dialogue import Dialogue
from rewards.rules.facts import Facts
from rewards.rules.nodes import WordingSplit
from rewards.rules.rule_set import RuleSet
from rewards.rules.symbols import read_symbol

Row = dict[str, Any]


@dataclass(frozen=True)
class DialogueRows:
    """What the dialogues of one image depend on. ``image_turns``: the turn (from 1) that each of its images opens.

    ``annotator``: who answers in instruction rows (None: the truth). ``scenarios`` counts the dialogues of each,
    ``paraphrases`` those used, and refused by reason.
    """

    settings: Dialogues
    facts: Facts
    rules: RuleSet
    image_turns: tuple[int, ...]
    paraphrase: Paraphraser | None
    scenarios: Counter[str]
    paraphrases: Counter[str]
    annotator: WeakAnnotator | None = None

    def of(self, kind: RowKind, split: str, *, key: str) -> Iterator[tuple[str, Row]]:
        """Suffix of the id and own columns of each row. Every epoch draws its dialogues afresh from ``key``.

        A tested split has one epoch; with ``eval_mixture``, one dialogue of each scenario and wording.
        """
        settings = self.settings
        tested = split in settings.test_wording or split in settings.eval_splits
        fixed = list(product(_wordings(settings, split), settings.eval_mixture if tested else []))
        epochs, number = 1 if tested else settings.epochs, len(fixed) or settings.per_image
        annotator = self.annotator if kind == "instruction" else None
        for epoch, k in product(range(epochs), range(number)):
            rng = random.Random(f"{key}/{epoch}/{k}")
            drawn = (_wordings(settings, split)[0], drawn_scenario(settings.mixture, rng)) if not fixed else fixed[k]
            self.scenarios[drawn[1]] += 1
            for suffix, columns in self._rows(self._writer(rng, drawn[0], annotator).dialogue(drawn[1]), kind):
                yield f"{epoch}-{k}{suffix}", columns

    def _writer(self, rng: random.Random, wording: WordingSplit, annotator: WeakAnnotator | None) -> Writer:
        return Writer(
            self.facts, self.rules, wording, rng, self.image_turns, self.paraphrase, self.paraphrases, annotator
        )

    def _rows(self, dialogue: Dialogue, kind: RowKind) -> Iterator[tuple[str, Row]]:
        """One prompt row, or the instruction rows of one dialogue."""
        messages, column, named = transcript(dialogue), dialogue.to_json(), self._flaws(dialogue)
        if kind == "prompt":
            yield "", {"prompt": messages[:1], "answer": None, "boxes": None, "dialogue": column}
            return
        by_turn = self.settings.sft_rows == "turns"
        for number, (prompt, completion) in enumerate(halves(messages, by_turn=by_turn)):
            yield (
                f"-{number}" if by_turn else "",
                {"prompt": prompt, "completion": completion, "dialogue": column, **named},
            )

    def _flaws(self, dialogue: Dialogue) -> Row:
        """Which answers a weak annotator got wrong, for the provenance of a row."""
        if self.annotator is None:
            return {}
        nodes = dialogue.decision.nodes
        wrong = [t.node for t in dialogue.turns if read_symbol(t.answer, nodes[t.node]).stated != t.gold]
        return {"provenance": {"flaw": f"wrong answers: {', '.join(wrong)}"}} if wrong else {}


def _wordings(settings: Dialogues, split: str) -> list[WordingSplit]:
    """In whose words a split's dialogues are: in both, for a split that both lists name."""
    if split not in settings.test_wording:
        return ["train"]
    return ["test", "train"] if split in settings.eval_splits else ["test"]


def annotator_of(flaws: Flaws | None, split: str) -> WeakAnnotator | None:
    """Who answers in the instruction rows of a split; None where the answers are true."""
    if flaws is None or split not in flaws.splits or not (flaws.wrong_answers or flaws.yielding):
        return None
    return WeakAnnotator(flaws.wrong_answers, flaws.yielding)
