"""One preference pair, whatever file it comes from, and what is known to be weak in many of them.

Left out: how a file writes it down (``preference_formats.py`` reads, ``preference_writing.py`` writes).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from data_builders.formats.record_images import RecordImage
from data_builders.pairs.hallucination_checks import META_TEXT, brevity_report, fault_of_rejected, same_polarity
from data_builders.pairs.relevance import weight_report
from data_builders.schema import Message, message_text, user_turn


@dataclass(frozen=True)
class Pair:
    """One preference pair. Images are names of files, or pictures that stand in the record itself.

    ``turns``: all messages before the answer, where they are more than ``question`` behind the images (see
    ``prompt``); ``question`` is then all their words. No ``rejected_images``: the same images. ``relevance`` in
    [0, 1], before normalisation (None: not known); ``weight`` after it (None: not known, which counts as 1).
    ``patient``: None where the record names none. ``location``: where it stands in its file, and
    ``split``: in which of the file's own splits.
    """

    id: str
    images: tuple[RecordImage, ...]
    question: str
    chosen: str
    rejected: str
    weight: float | None = 1.0
    rejected_images: tuple[RecordImage, ...] = ()
    relevance: float | None = None
    turns: tuple[Message, ...] = ()
    patient: str | None = None
    location: str = field(default="", compare=False)
    split: str | None = field(default=None, compare=False)

    @property
    def prompt(self) -> list[Message]:
        """The messages before the answer, an image block where each image stands."""
        return list(self.turns) or user_turn(self.question, num_images=len(self.images))

    @property
    def is_identical(self) -> bool:
        """Whether both sides are one: such a pair has no gradient."""
        return self.chosen.strip() == self.rejected.strip() and self.rejected_images in ((), self.images)


def words_of(prompt: Sequence[Message], num_images: int) -> tuple[str, tuple[Message, ...]]:
    """A prompt as ``Pair`` holds it: its question, and its turns where they say more than that.

    >>> words_of(user_turn("Is it?", num_images=2), 2)
    ('Is it?', ())
    """
    question = message_text(list(prompt))
    plain = list(prompt) == user_turn(question, num_images=num_images)
    return question, () if plain else tuple(prompt)


def survey(pairs: Sequence[Pair]) -> dict[str, Any]:
    """What is known to be weak in pairs, counted: identical, repeated, contained, leaked, without weight."""
    questions = Counter((pair.images, pair.question) for pair in pairs)
    text = [pair for pair in pairs if not pair.rejected_images]
    faults = Counter(fault_of_rejected(pair.chosen, pair.rejected, limit=None) for pair in text)
    return {
        "pairs": len(pairs),
        "identical": sum(pair.is_identical for pair in pairs),
        "repeated": sum(number - 1 for number in questions.values()),
        "contains_truth": faults["contains the truth"],
        "same_polarity": sum(same_polarity(pair.chosen, pair.rejected) for pair in text if not pair.is_identical),
        "meta_text": sum(bool(META_TEXT.search(pair.rejected)) for pair in text),
        "weights": weight_report([1.0 if pair.weight is None else pair.weight for pair in pairs]),
        "brevity": brevity_report([pair.chosen for pair in text], [pair.rejected for pair in text]),
    }
