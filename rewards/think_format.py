"""The think-then-answer format (DeepSeek-R1, 2025, section 2.2.2). Says nothing of whether the answer is right."""

import re

BOUNDS = (0.0, 1.0)
TASKS: tuple[str, ...] | None = None
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
WHOLE = re.compile(r"\s*<think>(.*?)</think>\s*<answer>(.*?)</answer>\s*\Z", re.DOTALL)


def think_format(response: str) -> float:
    """1.0 if the whole response is one non-empty ``<think>`` and then one non-empty ``<answer>``, else 0.0.

    >>> think_format("<think>dense base</think><answer>Yes</answer>"), think_format("<answer>Yes</answer>")
    (1.0, 0.0)
    """
    match = WHOLE.match(response)
    once = all(response.count(tag) == 1 for tag in TAGS)
    return float(bool(match and once and match.group(1).strip() and match.group(2).strip()))
