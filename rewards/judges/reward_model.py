"""A trained reward model (``method: reward_model``) as a reward by name: ``{name: reward_model, path: runs/x/rm}``.

Frozen, batched, shown the images of the row and the answer alone, without the thinking. Left out: updating it while the
policy trains; a policy can learn what pleases it, so set a verifiable reward beside it and keep another for evaluation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rewards.answers.final_answer import answer_region
from rewards.config.knobs import Number
from rewards.loading import Judged

BOUNDS = (-20.0, 20.0)
TASKS: tuple[str, ...] | None = None
Scorer = Callable[[list[dict[str, Any]]], list[list[float]]]
"""Rows of ``images``, ``prompt`` and ``answers`` to a score, in nats, for each answer of each."""


@dataclass(frozen=True)
class RewardModel:
    """The reward model's score of each response, in nats, clipped to [-20, 20]; its differences are log odds.

    ``path``: the run's folder. ``batch_size``: answers in one forward. Answers to one prompt share its forward.
    """

    path: str = ""
    batch_size: Number = 64
    local: Callable[["RewardModel"], Scorer] | None = field(default=None, repr=False, metadata={"knob": False})

    @property
    def columns(self) -> tuple[str, ...]:
        """What is read of a row."""
        return ("prompt", "images")

    @cached_property
    def opened(self) -> Scorer:
        """The model, loaded at its first use."""
        assert self.local is not None, "this floor loads no torch: alignment opens the model"
        return self.local(self)

    async def __call__(self, responses: Sequence[str], **columns: list[Any]) -> Judged:
        """One score for each response."""
        images: list[Any] = columns.get("images") or [[] for _ in responses]
        answers = [answer_region(response).strip() for response in responses]
        groups = same_prompt(columns["prompt"], images)
        rows = [
            {"images": images[p[0]] or [], "prompt": columns["prompt"][p[0]], "answers": [answers[k] for k in p]}
            for p in groups
        ]
        scores: list[float | None] = [None] * len(responses)
        for group, group_scores in zip(groups, self.opened(rows), strict=True):
            for k, score in zip(group, group_scores, strict=True):
                scores[k] = min(BOUNDS[1], max(BOUNDS[0], score))
        return Judged(scores)


def same_prompt(prompts: Sequence[Any], images: Sequence[Sequence[Any] | None]) -> list[list[int]]:
    """Places of neighbours that share their prompt and the very same image objects: a GRPO group.

    >>> same_prompt(["a", "a", "b", "a"], [[], [], [], []])
    [[0, 1], [2], [3]]
    """
    groups: list[list[int]] = []
    for k, (prompt, pictures) in enumerate(zip(prompts, images, strict=True)):
        last = groups[-1][-1] if groups else None
        same = last is not None and prompts[last] == prompt and _ids(images[last]) == _ids(pictures)
        if same:
            groups[-1].append(k)
        else:
            groups.append([k])
    return groups


def _ids(images: Sequence[Any] | None) -> list[int]:
    return [id(image) for image in images or ()]
