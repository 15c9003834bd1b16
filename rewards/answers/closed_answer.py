"""Closed questions: yes/no and multiple choice.

Left out: synonyms ("present" for "yes"). A reward that guesses meaning can be gamed.
"""

from rewards.answers.final_answer import final_answer
from rewards.tasks import WORDED

BOUNDS = (0.0, 1.0)
TASKS = WORDED


def closed_answer(response: str, answer: str | None, *, tagged: bool = True, casefold: bool = True) -> float | None:
    """1.0 if the response's answer equals the reference, 0.0 if not, None without a reference.

    ``tagged``: exactly one ``<answer>...</answer>`` must end the response; none, two, or text after it score 0.0.
    Otherwise the whole response, without a final full stop, is the answer.

    >>> closed_answer("<think>dense left base</think><answer>Yes</answer>", "yes")
    1.0
    >>> closed_answer("Yes.", "yes", tagged=False)
    1.0
    """
    if not answer:
        return None
    final = final_answer(response) if tagged else response.strip().removesuffix(".").strip()
    if final is None:
        return 0.0
    return float(final.casefold() == answer.casefold() if casefold else final == answer)
