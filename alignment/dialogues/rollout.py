"""Dialogues taken turn by turn: the model answers, and the scripted clinician asks on.

The token ids of an answer are kept as they were sampled; only the clinician's words are ever tokenised. What the
clinician tells may depend on what the model has said so far. Left out: images in later turns under GRPO (refused before
training).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from alignment.dialogues.turns import after_answer, num_images
from alignment.models.generation import model_inputs
from data_builders.schema import Message, assistant_turn, user_turn
from rewards.dialogues.dialogue import Dialogue, clinician_says, read_dialogue, readings

CLINICIAN = -1
"""In ``turn_of_token``: a token that the model did not sample."""
PER_TOKEN = ("token_type_ids", "mm_token_type_ids")
"""What some processors give for each token of the prompt; the words of a dialogue after it have 0."""
NOTHING: Mapping[str, list[int]] = {}


@dataclass
class Conversation:
    """One dialogue as it grows. ``prompt`` is the clinician's first turn, which the first of the ``images`` open.

    ``images``: those shown so far; ``waiting``: those that open later turns. ``per_token``: what the processor says of
    each token, of the prompt too.

    ``turn_of_token``: for each token of the completion, the turn (from 0) whose answer it belongs to, or ``CLINICIAN``.
    ``overlong``: there was no room for the next turn, so the dialogue stopped; nothing of it is cut off.
    """

    prompt: list[Message]
    script: Dialogue
    prompt_ids: list[int]
    images: list[Any] = field(default_factory=list[Any])
    waiting: list[Any] = field(default_factory=list[Any])
    per_token: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    completion_ids: list[int] = field(default_factory=list[int])
    logprobs: list[float] = field(default_factory=list[float])
    turn_of_token: list[int] = field(default_factory=list[int])
    answers: list[str] = field(default_factory=list[str])
    messages: list[Message] = field(default_factory=list[Message])
    overlong: bool = False

    @property
    def is_over(self) -> bool:
        """Whether every question was answered, or there was no room for the next."""
        return self.overlong or len(self.answers) == len(self.script.turns)

    @property
    def token_ids(self) -> list[int]:
        """All tokens so far."""
        return self.prompt_ids + self.completion_ids

    @property
    def loss_mask(self) -> list[int]:
        """1 for the model's tokens, 0 for the clinician's; all 0 for a dialogue that stopped early."""
        return [int(turn != CLINICIAN and not self.overlong) for turn in self.turn_of_token]

    def ask(self, processor: Any, *, max_answer_tokens: int, max_tokens: int) -> None:
        """Puts the next question, unless it and a whole answer do not fit into ``max_tokens`` of completion."""
        if not self.answers:
            return
        turn = self.script.turns[len(self.answers)]
        question, images = clinician_says(turn, self._symbols()), self.waiting[: turn.images]
        tokens = after_answer(processor, [*self.prompt, *self.messages[:-1]], question, images)
        if self.completion_ids[-1] == tokens["input_ids"][0]:  # the model ended its turn by itself
            tokens = {key: values[1:] for key, values in tokens.items()}
        question_ids = tokens.pop("input_ids")
        if len(self.completion_ids) + len(question_ids) + max_answer_tokens > max_tokens:
            self.overlong = True
            return
        self.messages += user_turn(question, num_images=len(images))
        self.images, self.waiting = [*self.images, *images], self.waiting[len(images) :]
        self._add(question_ids, [0.0] * len(question_ids), CLINICIAN, tokens)

    def take(self, answer_ids: list[int], logprobs: list[float], text: str) -> None:
        """Adds an answer as it was sampled."""
        self._add(answer_ids, logprobs, len(self.answers))
        self.answers.append(text)
        self.messages += assistant_turn(text)

    def _add(
        self, token_ids: list[int], logprobs: list[float], turn: int, known: Mapping[str, list[int]] = NOTHING
    ) -> None:
        for key in self.per_token:
            self.per_token[key] += known.get(key, [0] * len(token_ids))
        self.completion_ids += token_ids
        self.logprobs += logprobs
        self.turn_of_token += [turn] * len(token_ids)

    def _symbols(self) -> dict[str, str]:
        """What the model's answers so far say, where they were understood."""
        answered = zip(self.script.turns, readings(self.answers, self.script)[: len(self.answers)], strict=False)
        return {turn.node: reading.stated for turn, reading in answered if reading.stated is not None}


Sampled = tuple[list[int], list[float]]
"""The token ids of an answer (its end included, where it was sampled) and their log-probabilities."""
Answer = Callable[[list[Conversation]], list[Sampled]]


def roll_out(
    conversations: Sequence[Conversation],
    answer: Answer,
    processor: Any,
    *,
    max_answer_tokens: int,
    max_tokens: Callable[[Conversation], int],
    num_rounds: int | None = None,
) -> None:
    """Takes every conversation to its end, all of them turn by turn together.

    ``max_tokens``: of a conversation's completion. ``num_rounds``: how often ``answer`` is called (by default as often
    as the longest script needs); where all is said already it is given one conversation, and its answer is dropped.
    """
    longest = max(len(talk.script.turns) for talk in conversations)
    for _ in range(num_rounds or longest):
        for talk in _open(conversations):
            talk.ask(processor, max_answer_tokens=max_answer_tokens, max_tokens=max_tokens(talk))
        talking = _open(conversations)
        replies = answer(talking or list(conversations[:1]))
        for talk, (token_ids, logprobs) in zip(talking, replies if talking else [], strict=True):
            talk.take(token_ids, logprobs, processor.tokenizer.decode(token_ids, skip_special_tokens=True).strip())


def _open(conversations: Sequence[Conversation]) -> list[Conversation]:
    return [talk for talk in conversations if not talk.is_over]


def opened(processor: Any, rows: Sequence[Mapping[str, Any]]) -> list[Conversation]:
    """The conversations of rows (``prompt``, ``images``, ``dialogue``), none of them answered yet."""
    firsts = [num_images(row["prompt"]) for row in rows]
    shown = [{**row, "images": list(row["images"])[:first]} for row, first in zip(rows, firsts, strict=True)]
    inputs = model_inputs(processor, shown)
    kept = inputs["attention_mask"].bool()

    def tokens(key: str, k: int) -> list[int]:
        return inputs[key][k][kept[k]].tolist()

    return [
        Conversation(
            row["prompt"],
            read_dialogue(row["dialogue"]),
            tokens("input_ids", k),
            list(row["images"])[:first],
            list(row["images"])[first:],
            {key: tokens(key, k) for key in PER_TOKEN if key in inputs},
        )
        for k, (row, first) in enumerate(zip(rows, firsts, strict=True))
    ]


def inputs_so_far(processor: Any, talks: Sequence[Conversation]) -> Any:
    """What the model is given to go on: all tokens so far, padded on the left, and the pixels of all images so far."""
    inputs = model_inputs(processor, [{"prompt": _showing_images(talk), "images": talk.images} for talk in talks])
    for key in set(PER_TOKEN) & inputs.keys():
        inputs[key] = _left([talk.per_token[key] for talk in talks], 0)
    inputs["input_ids"] = _left([talk.token_ids for talk in talks], processor.tokenizer.pad_token_id)
    inputs["attention_mask"] = _left([[1] * len(talk.token_ids) for talk in talks], 0)
    return inputs


def _showing_images(talk: Conversation) -> list[Message]:
    """Messages that show all images so far: the prompt, and what was said up to the last turn with an image."""
    later = [k for k, message in enumerate(talk.messages) if num_images([message])]
    return [*talk.prompt, *talk.messages[: later[-1] + 1]] if later else talk.prompt


def _left(rows: Sequence[list[int]], value: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([[value] * (width - len(row)) + row for row in rows])


def num_sampled(token_ids: Sequence[int], ends: Sequence[int]) -> int:
    """How many tokens an answer has, its end included: what generation puts after it is padding.

    >>> num_sampled([7, 8, 2, 0, 0], [2]), num_sampled([7, 8, 9], [2])
    (3, 3)
    """
    return next((k for k, token in enumerate(token_ids, start=1) if token in ends), len(token_ids))
