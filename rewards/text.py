"""Which part of a response is its answer."""

import re

TAGGED = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>\s*\Z", re.DOTALL)


def final_answer(response: str) -> str | None:
    """The text of the one ``<answer>...</answer>`` that ends the response, stripped; None if there is not exactly one.

    >>> final_answer("<think>dense base</think><answer> Yes </answer>")
    'Yes'
    >>> final_answer("<answer>Yes</answer><answer>No</answer>") is None
    True
    """
    if response.count("<answer>") != 1 or response.count("</answer>") != 1:
        return None
    match = TAGGED.search(response)
    return match.group(1).strip() if match else None


def answer_region(response: str) -> str:
    """Where an answer may stand: the tagged answer, or what follows the thinking, or the whole response."""
    tagged = final_answer(response)
    if tagged is not None:
        return tagged
    return response.rpartition("</think>")[2] if "</think>" in response else response
