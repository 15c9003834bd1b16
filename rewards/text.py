"""Which part of a response is its answer."""

OPEN, CLOSE = "<answer>", "</answer>"


def final_answer(response: str) -> str | None:
    """The text of the one ``<answer>...</answer>`` that ends the response, stripped; None if there is not exactly one.

    >>> final_answer("<think>dense base</think><answer> Yes </answer>")
    'Yes'
    >>> final_answer("<answer>Yes</answer><answer>No</answer>") is None
    True
    """
    if response.count(OPEN) != 1 or response.count(CLOSE) != 1:
        return None
    inside, _, after = response.partition(OPEN)[2].partition(CLOSE)
    ends_it = response.index(OPEN) < response.index(CLOSE) and not after.strip()
    return inside.strip() if ends_it else None


def answer_region(response: str) -> str:
    """Where an answer may stand: the tagged answer, or what follows the thinking, or the whole response.

    Thinking that never ends holds no answer.
    """
    if "<" not in response:
        return response
    tagged = final_answer(response)
    if tagged is not None:
        return tagged
    if "</think>" in response:
        return response.rpartition("</think>")[2]
    return response.partition("<think>")[0]
