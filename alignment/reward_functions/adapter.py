"""The one adapter between clinalign rewards and TRL's batched reward functions.

A plain reward (one response, one number) is called row by row; a batch reward (a judge) is awaited, beside the others.
A row of a task that a reward does not pay for gets None, and what a reward gives must lie within its bounds.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from alignment.config.reward_entry import RewardEntry, loaded_reward
from data_builders.schema import Message
from rewards.boxes.coordinate_space import BoxSpace
from rewards.config.input_error import InputError
from rewards.dialogues.dialogue import Responses
from rewards.judges.reward_model import RewardModel, Scorer
from rewards.llm.client import Backend
from rewards.llm.spec import LlmSpec
from rewards.loading import BatchReward, Reward
from rewards.tasks import Tasks, pays_for

Completion = str | list[Message]
"""A prompt or a completion, as TRL hands it over."""
Columns = dict[str, Any]
"""What TRL hands over beside the completions, by name: of each column a list, and its own objects."""
Log = Callable[[str, float], None]
"""Takes a figure under its name."""
ROUNDING = 1e-6
"""How far beyond its bounds a reward may lie for the sake of rounding."""


def response_text(completion: Completion) -> str:
    """The text of a completion, as TRL hands it over: a string or a list of messages.

    >>> response_text([{"role": "assistant", "content": "Yes"}])
    'Yes'
    """
    if isinstance(completion, str):
        return completion
    return "".join(_content_text(message.get("content") or "") for message in completion)


def _content_text(content: str | Sequence[Mapping[str, str | None]]) -> str:
    return content if isinstance(content, str) else "".join(block.get("text") or "" for block in content)


def responses_to(completions: Sequence[Completion], columns: Columns, *, by_turn: bool) -> list[Responses]:
    """What is judged: the text of each completion; of a dialogue, the model's turns without the clinician's words.

    ``by_turn``: as a list of turns, for a reward that reads the dialogue; else as one text.
    """
    turns = columns.get("model_turns")
    if turns is None:
        return [response_text(completion) for completion in completions]
    return turns if by_turn else ["\n".join(turn_texts) for turn_texts in turns]


def within_bounds(reward: Reward | BatchReward, score: float | None, row: str) -> float | None:
    """The score, where it is None or a number that the reward may give. ``row``: what the row is called.

    Raises: InputError for any other, which would train every weight to nonsense.
    """
    low, high = reward.bounds
    if score is None or low - ROUNDING <= score <= high + ROUNDING:
        return score
    raise InputError(
        f"reward '{reward.name}' gave {score} to an answer to row {row}; its bounds are {low:g} to {high:g}. Nothing "
        "can be trained on that: mend the reward, or its BOUNDS."
    )


def _row_name(columns: Columns, index: int) -> str:
    ids = columns.get("id")
    return f"'{ids[index]}'" if ids else f"{index} of its batch"


def _paid_rows(tasks: Tasks, columns: Columns, number: int) -> list[bool]:
    """Of each row of a batch, whether it is of one of the tasks."""
    known = columns.get("task") or [None] * number
    return [pays_for(tasks, task) for task in known]


def _check_read(reward: Reward | BatchReward, columns: Columns) -> None:
    """Raises InputError where the rows lack a column that the reward reads."""
    if missing := [c for c in reward.columns if c not in columns]:
        there = ", ".join(name for name, values in columns.items() if isinstance(values, list))
        raise InputError(
            f"reward '{reward.name}' reads the column '{missing[0]}', but the rows have: {there}. Add or rename one."
        )


class TrlReward:
    """A reward in TRL's form: ``f(completions, **columns) -> list[float | None]``, logged under its own name.

    Its components, where it has some, are logged as ``NAME/COMPONENT``. None means "not applicable to this row", and
    stands for a row of another task than ``tasks`` (a recipe's, else the reward's own) and for a dialogue that stopped
    for want of room.
    """

    def __init__(self, reward: Reward, tasks: Tasks = None) -> None:
        self.reward, self.tasks = reward, tasks or reward.tasks
        self.__name__ = reward.name

    def __call__(
        self, completions: Sequence[Completion], log_metric: Log | None = None, **columns: Any
    ) -> list[float | None]:
        """One number a completion."""
        texts = responses_to(completions, columns, by_turn="dialogue" in self.reward.columns)
        _check_read(self.reward, columns)
        read = self.reward.read_of(columns)
        rows = [{c: read[c][i] for c in read} for i in range(len(texts))]
        stopped = columns.get("overlong") or [False] * len(texts)
        paid = _paid_rows(self.tasks, columns, len(texts))
        scores = [
            within_bounds(self.reward, self.reward(texts[k], **rows[k]), _row_name(columns, k))
            if paid[k] and not stopped[k]
            else None
            for k in range(len(texts))
        ]
        if log_metric:
            self._log_components(texts, rows, scores, log_metric)
        return scores

    def _log_components(
        self, texts: Sequence[Responses], rows: list[dict[str, object]], scores: list[float | None], log: Log
    ) -> None:
        judged = [(t, r) for t, r, s in zip(texts, rows, scores, strict=True) if s is not None]
        parts = [self.reward.components(text, **row) for text, row in judged]
        for name in dict.fromkeys(name for part in parts for name in part):
            values = [part[name] for part in parts if name in part]
            log(f"{self.reward.name}/{name}", sum(values) / len(values))


class TrlBatchReward:
    """A batch reward in TRL's asynchronous form; its figures are logged as ``NAME/FIGURE``."""

    def __init__(self, reward: BatchReward, tasks: Tasks = None) -> None:
        self.reward = reward.with_local(local_scorer if reward.name == "reward_model" else local_backend)
        self.tasks, self.__name__ = tasks or reward.tasks, reward.name

    async def __call__(
        self,
        prompts: Sequence[Completion],
        completions: Sequence[Completion],
        log_metric: Log | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """One number a completion; None where it cannot be judged."""
        texts = cast(list[str], responses_to(completions, columns, by_turn=False))
        indices = [k for k, paid in enumerate(_paid_rows(self.tasks, columns, len(texts))) if paid]
        given = columns | {"prompt": prompts}
        _check_read(self.reward, given)
        read = {c: [given[c][k] for k in indices] for c in self.reward.columns}
        scores: list[float | None] = [None] * len(texts)
        if not indices:
            return scores
        judged = await self.reward([texts[k] for k in indices], **read)
        for name, value in judged.metrics.items() if log_metric else ():
            log_metric(f"{self.reward.name}/{name}", value)  # pyright: ignore[reportOptionalCall]
        for k, score in zip(indices, judged.scores, strict=True):
            scores[k] = within_bounds(self.reward, score, _row_name(columns, k))
        return scores


class AwaitedReward:
    """A batch reward for those who call rewards row by row or in between: waits for each batch."""

    def __init__(self, function: TrlBatchReward) -> None:
        self.function, self.reward = function, function.reward
        self.__name__ = function.__name__

    def __call__(
        self, completions: Sequence[Completion], log_metric: Log | None = None, **columns: Any
    ) -> list[float | None]:
        """One number a completion. Prompts come as ``prompts`` from TRL, as ``prompt`` from an audit."""
        singular = columns.pop("prompt", None)
        prompts = columns.pop("prompts", singular)
        return asyncio.run(self.function(prompts=prompts, completions=completions, log_metric=log_metric, **columns))


def local_backend(spec: LlmSpec) -> Backend:
    """The backend of a recipe's local judge; torch is loaded here and not before."""
    from alignment.models.local_llm import LocalModel

    return LocalModel(spec.model, batch_size=spec.concurrency)


def local_scorer(spec: RewardModel) -> Scorer:
    """The scorer of a recipe's reward model; torch is loaded here and not before."""
    from functools import partial

    from alignment.models.reward_model import scores_of
    from alignment.models.reward_model_files import load_reward_model

    return partial(scores_of, *load_reward_model(spec.path), batch_size=spec.batch_size)


def trl_rewards(
    entries: list[RewardEntry], box_space: BoxSpace = "grid"
) -> tuple[list[TrlReward | TrlBatchReward], list[float]]:
    """The reward functions of a recipe and their weights. ``box_space``: what the model writes."""
    loaded = [(loaded_reward(entry, box_space), entry.tasks) for entry in entries]
    functions = [TrlBatchReward(r, t) if isinstance(r, BatchReward) else TrlReward(r, t) for r, t in loaded]
    return functions, [entry.weight for entry in entries]
