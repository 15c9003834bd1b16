"""Overlap with a reference report as a reward, held to the facts where a row has them.

Overlap of words is blind to negation: the same report with every polarity turned shares nearly all of them. So it is
paid only as far as the findings agree. CIDEr-D needs the document frequencies of a corpus and is for evaluation only
(``report_metrics``).
"""

from typing import Literal

from rewards.answers.final_answer import answer_region
from rewards.reports.finding_f1 import finding_f1
from rewards.reports.report_metrics import rouge_l_f1, sentence_bleu
from rewards.rules.facts import Facts

BOUNDS = (0.0, 1.0)
TASKS = ("report", "open")
MAX_CHARACTERS = 20_000


def report_overlap(
    response: str,
    answer: str | None,
    facts: str | None = None,
    *,
    metric: Literal["rouge_l", "bleu"] = "rouge_l",
    held_to_facts: bool = True,
) -> float | None:
    """ROUGE-L F1, or BLEU / 100, of the answer against the reference, in [0, 1]; None without a reference.

    With ``held_to_facts`` and facts whose findings can be read in the reference, it is multiplied by how well the
    answer agrees with them: its ``finding_f1`` over the reference's own, at most 1. Without, words alone are paid, as
    is usual, and the reward is blind to negation. Beyond 20,000 characters a response is cut.

    >>> truth = '{"rule_set":"chest_xray@1","findings":{"effusion":{"polarity":"absent"}}}'
    >>> report_overlap("No effusion.", "No effusion.", truth), report_overlap("Effusion.", "No effusion.", truth)
    (1.0, 0.0)
    >>> report_overlap("Effusion.", "No effusion.", truth, held_to_facts=False) > 0.5
    True
    """
    if not answer:
        return None
    text = answer_region(response)[:MAX_CHARACTERS]
    score = rouge_l_f1(text, answer) if metric == "rouge_l" else sentence_bleu(text, answer) / 100
    agreement = _agreement(text, answer, facts) if facts and held_to_facts else 1.0
    return min(1.0, max(0.0, score * agreement))


def _agreement(text: str, answer: str, facts: str) -> float:
    """How well a text agrees with the facts beside the reference; 1 where the reference tells none of them."""
    best = finding_f1(answer, facts) if Facts.told(facts).findings else None
    return min(1.0, (finding_f1(text, facts) or 0.0) / best) if best else 1.0
