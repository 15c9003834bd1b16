"""Overlap of answers with the texts that were written: BLEU-1 to BLEU-4, ROUGE-L, CIDEr-D, METEOR, by task.

They reward wording and are blind to negation: read the findings' figures beside them. Each row holds counts that add
up, so that an interval by patient and a paired difference hold for BLEU too, which is no mean over rows. METEOR is
told only where WordNet is on the machine. Left out: further accepted answers (``answers``); the first is the reference.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from alignment.metrics.evaluated_row import EvaluatedRow
from rewards.answers.final_answer import final_words
from rewards.reports.cider import document_frequency, item_score
from rewards.reports.report_metrics import BLEU_ORDER, bleu_counts, bleu_of, has_wordnet, meteor, rouge_l_f1

TASKS = ("report", "open")
"""Whose answers are texts; a figure's group, as ``rouge_l[report]``."""
MEANS = ("rouge_l", "cider_d", "meteor")
BLEUS = tuple(f"bleu_{order}" for order in range(1, BLEU_ORDER + 1))
METRICS = (*BLEUS, *MEANS)
"""By group. BLEU, ROUGE-L and METEOR are in [0, 1], CIDEr-D in [0, 10]."""


@dataclass(frozen=True)
class Bleu:
    """BLEU of n-grams up to an order over the rows of a task (Papineni et al. 2002), in [0, 1], as sacrebleu counts.

    Lower case, 13a tokens, exponential smoothing.
    """

    order: int
    group: str

    @property
    def counts(self) -> tuple[str, ...]:
        """The counts it is made of, as ``bleu_counts`` names them."""
        matched = [f"bleu_{kind}_{n}" for kind in ("matches", "ngrams") for n in range(1, self.order + 1)]
        return tuple(f"{name}[{self.group}]" for name in (*matched, "bleu_words", "bleu_reference_words"))

    def value(self, sums: np.ndarray) -> np.ndarray:
        """BLEU of sums of the counts (draws, counts); NaN where no row is of this group."""
        return np.array([bleu_of(row, self.order) if row[-1] else np.nan for row in sums])


def text_counts(rows: Sequence[EvaluatedRow], answers: Sequence[str | list[str]]) -> list[dict[str, float]]:
    """For each row the counts of its overlap with its reference; none where it has no text to be held against.

    CIDEr-D weighs n-grams by their rarity in the references of a task, so it is told of two or more rows.
    """
    found: list[dict[str, float]] = [{} for _ in rows]
    of_task: defaultdict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if row["task"] in TASKS and not row.get("box_images") and re.search(r"\w", row["answer"] or ""):
            of_task[row["task"]].append(index)
    with_meteor = has_wordnet() if of_task else False
    for task, indices in of_task.items():
        references = [rows[index]["answer"] or "" for index in indices]
        frequency = document_frequency(references)
        for index, reference in zip(indices, references, strict=True):
            words = final_words(str(answers[index]))
            counts = {"texts": 1.0, "rouge_l": rouge_l_f1(words, reference), **bleu_counts(words, reference)}
            if len(references) > 1:
                counts["cider_d"] = item_score(words, reference, frequency, len(references))
            if with_meteor:
                counts["meteor"] = meteor(words, reference)
            found[index] = {f"{name}[{task}]": count for name, count in counts.items()}
    return found


def names_in(counts: Iterable[Mapping[str, float]]) -> dict[str, list[str]]:
    """The metrics of texts that there are, by task."""
    known = {name for row in counts for name in row}
    tasks = [task for task in TASKS if f"texts[{task}]" in known]
    return {task: [*BLEUS, *(name for name in MEANS if f"{name}[{task}]" in known)] for task in tasks}
