"""Tags of the think-then-answer format, counted one by one: a gentler slope than ``think_format``'s all or nothing."""

from rewards.think_format import TAGS

BOUNDS = (0.0, 1.0)
TASKS: tuple[str, ...] | None = None


def tag_count(response: str, *, ordered: bool = True) -> float:
    """A quarter for each of the four tags that stands in the response exactly once, in [0, 1].

    With ``ordered``, tags must come in their order: a tag before an earlier one's place earns nothing. Tags inside
    code fences do not count. Says nothing of what stands between them: gate an accuracy reward with it.

    >>> tag_count("<think>a</think><answer>b</answer>"), tag_count("<think>a</think><answer>b")
    (1.0, 0.75)
    """
    text = "".join(response.split("```")[::2])
    places = [text.index(tag) for tag in TAGS if text.count(tag) == 1]
    if ordered:
        places = [place for k, place in enumerate(places) if place >= max(places[:k], default=0)]
    return 0.25 * len(places)
