"""The dialogues of one image as rows: which scenarios, how often, in whose words, whole or answer by answer."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from data_builders.build_spec import Dialogues, Flaws
from data_builders.card import Tally
from data_builders.dialogue_flaws import WeakAnnotator
from data_builders.dialogues import Paraphraser, Writer, drawn_scenario, halves, transcript
from data_builders.schema import RowKind
from rewards.dialogue import Dialogue
from rewards.facts import Facts
from rewards.rule_set import RuleSet

Row = dict[str, Any]


@dataclass(frozen=True)
class DialogueRows:
    """What the dialogues of one image depend on. ``image_turns``: the turn (from 1) that each of its images opens.

    ``annotator``: who answers in instruction rows (None: the truth).
    """

    settings: Dialogues
    facts: Facts
    rules: RuleSet
    image_turns: tuple[int, ...]
    paraphrase: Paraphraser | None
    tally: Tally
    annotator: WeakAnnotator | None = None

    def of(self, kind: RowKind, split: str, *, key: str) -> Iterator[tuple[str, Row]]:
        """Suffix of the id and own columns of each row. Every epoch draws its dialogues afresh from ``key``.

        A tested split has one epoch, with one dialogue of each scenario where ``eval_mixture`` is given.
        """
        in_test_words = split in self.settings.test_wording
        tested = in_test_words or split in self.settings.eval_splits
        fixed = self.settings.eval_mixture if tested else []
        epochs, number = 1 if tested else self.settings.epochs, len(fixed) or self.settings.per_image
        for epoch, k in product(range(epochs), range(number)):
            rng = random.Random(f"{key}/{epoch}/{k}")
            scenario = fixed[k] if fixed else drawn_scenario(self.settings.mixture, rng)
            self.tally.scenarios[scenario] += 1
            annotator = self.annotator if kind == "instruction" else None
            for suffix, own in self._rows(self._writer(rng, in_test_words, annotator).dialogue(scenario), kind):
                yield f"{epoch}-{k}{suffix}", own

    def _writer(self, rng: random.Random, in_test_words: bool, annotator: WeakAnnotator | None) -> Writer:
        wording, counts = "test" if in_test_words else "train", self.tally.paraphrases
        return Writer(self.facts, self.rules, wording, rng, self.image_turns, self.paraphrase, counts, annotator)

    def _rows(self, dialogue: Dialogue, kind: RowKind) -> Iterator[tuple[str, Row]]:
        """One prompt row, or the instruction rows of one dialogue."""
        messages, column = transcript(dialogue), dialogue.to_json()
        if kind == "prompt":
            yield "", {"prompt": messages[:1], "answer": None, "boxes": None, "dialogue": column}
            return
        by_turn = self.settings.sft_rows == "turns"
        for number, (prompt, completion) in enumerate(halves(messages, by_turn=by_turn)):
            yield f"-{number}" if by_turn else "", {"prompt": prompt, "completion": completion, "dialogue": column}


def annotator_of(flaws: Flaws | None, split: str) -> WeakAnnotator | None:
    """Who answers in the instruction rows of a split; None where the answers are true."""
    if flaws is None or split not in flaws.splits or not (flaws.wrong_answers or flaws.yielding):
        return None
    return WeakAnnotator(flaws.wrong_answers, flaws.yielding)
