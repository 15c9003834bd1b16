"""Tags of the think-then-answer format, counted one by one: a gentler slope than ``think_format``'s all or nothing."""

from rewards.answers.final_answer import visible
from rewards.answers.think_format import TAGS, has_thought, says_something

BOUNDS = (0.0, 1.0)
TASKS: tuple[str, ...] | None = None


def tag_count(response: str, *, ordered: bool = True) -> float:
    """A quarter for each of the four tags that stands in the response exactly once, in [0, 1].

    With ``ordered``, tags must come in their order: a tag before an earlier one's place earns nothing; a closing tag
    earns nothing if nothing is said before it, and ``</answer>`` nothing if something is said after it. Without, tags
    are merely counted. Tags inside code fences do not count. Says nothing of whether the answer is right: gate an
    accuracy reward with it.

    >>> tag_count("<think>a</think><answer>b</answer>"), tag_count("<think>a</think><answer>b")
    (1.0, 0.75)
    >>> tag_count("<think></think><answer></answer>"), tag_count("<think></think><answer></answer>", ordered=False)
    (0.5, 1.0)
    """
    text = visible("".join(response.split("```")[::2]))
    positions = {tag: text.index(tag) for tag in TAGS if text.count(tag) == 1}
    if ordered:
        found = list(positions.items())
        in_order = {tag: at for k, (tag, at) in enumerate(found) if at >= max((p for _, p in found[:k]), default=0)}
        positions = {tag: at for tag, at in in_order.items() if _earned(tag, at, text)}
    return 0.25 * len(positions)


def _earned(tag: str, position: int, text: str) -> bool:
    """Whether a closing tag closes something, and the last one ends the response."""
    if tag == "</think>":
        return has_thought(text[:position].rpartition("<think>")[2])
    if tag == "</answer>":
        return says_something(text[:position].rpartition("<answer>")[2]) and not text[position + len(tag) :].strip()
    return True
