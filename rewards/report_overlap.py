"""Overlap with a reference report as a reward, for comparison: it rewards wording and is blind to negation.

CIDEr-D needs the document frequencies of a corpus and is for evaluation only (``report_metrics``).
"""

from typing import Literal

from rewards.report_metrics import rouge_l_f1, sentence_bleu
from rewards.text import answer_region

BOUNDS = (0.0, 1.0)
TASKS = ("report", "open")
MAX_CHARACTERS = 20_000


def report_overlap(
    response: str, answer: str | None, *, metric: Literal["rouge_l", "bleu"] = "rouge_l"
) -> float | None:
    """ROUGE-L F1, or BLEU / 100, of the answer against the reference, in [0, 1]; None without a reference.

    Beyond 20,000 characters a response is cut.

    >>> report_overlap("No effusion.", "No effusion."), report_overlap("Effusion.", "No effusion.") > 0.5
    (1.0, True)
    """
    if not answer:
        return None
    said = answer_region(response)[:MAX_CHARACTERS]
    score = rouge_l_f1(said, answer) if metric == "rouge_l" else sentence_bleu(said, answer) / 100
    return min(1.0, max(0.0, score))
