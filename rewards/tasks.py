"""The tasks by which rows name what they ask, and their families: what a reward pays for (``TASKS``) is said in them.

Left out: the tasks of curricula, which their files name; a recipe's ``tasks`` says which rewards pay for those.
"""

from collections.abc import Sequence

CLOSED = ("presence", "side", "size", "count", "closed")
"""One right answer out of few."""
WORDED = (*CLOSED, "choice", "open", "change", "measurement", "place")
"""Questions that a word, a number or a phrase answers."""
SEQUENCES = (
    "sequence", "registered_difference", "non_registered_difference", "multi_view", "object_tracking",
    "visual_concept", "visual_patch", "cross_modal", "referring",
)  # fmt: skip
"""Boxes in one of several images: MedSG-Bench's eight, and any other."""
BOXED = ("box", *SEQUENCES)
KNOWN = tuple(dict.fromkeys((*WORDED, *BOXED, "report", "dialogue")))


Tasks = Sequence[str] | None


def pays_for(tasks: Tasks, task: str | None) -> bool:
    """Whether a reward that pays for ``tasks`` (None: all) pays for a row of this task; one without a task is of all.

    >>> pays_for(("box",), "box"), pays_for(("box",), "report"), pays_for(("box",), None), pays_for(None, "report")
    (True, False, True, True)
    """
    return tasks is None or task is None or task in tasks
