"""Dialogues taken turn by turn: the model answers, and the scripted clinician asks on.

The token ids of an answer are kept as they were sampled; only the clinician's words are ever tokenised. What the
clinician tells may depend on what the model has said so far. Left out: images in later turns (refused before training).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from alignment.dialogues.turns import after_answer
from alignment.models.generation import model_inputs
from data_builders.schema import Message, assistant_turn, user_turn
from rewards.dialogues.dialogue import Dialogue, clinician_says, read_dialogue, readings

CLINICIAN = -1
"""In ``turn_of_token``: a token that the model did not sample."""
PER_TOKEN = ("token_type_ids", "mm_token_type_ids")
"""What some processors give for each token of the prompt; the tokens of a dialogue after it have 0."""


@dataclass
class Conversation:
    """One dialogue as it grows. ``prompt`` is the clinician's first turn, which ``images`` open.

    ``turn_of_token``: for each token of the completion, the turn (from 0) whose answer it belongs to, or ``CLINICIAN``.
    ``overlong``: there was no room for the next turn, so the dialogue stopped; nothing of it is cut off.
    """

    prompt: list[Message]
    script: Dialogue
    prompt_ids: list[int]
    images: list[Any] = field(default_factory=list[Any])
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
        question = clinician_says(self.script.turns[len(self.answers)], self._symbols())
        question_ids = after_answer(processor, [*self.prompt, *self.messages[:-1]], question)
        if self.completion_ids[-1] == question_ids[0]:  # the model ended its turn by itself
            question_ids = question_ids[1:]
        if len(self.completion_ids) + len(question_ids) + max_answer_tokens > max_tokens:
            self.overlong = True
            return
        self.messages += user_turn(question, num_images=0)
        self._add(question_ids, [0.0] * len(question_ids), CLINICIAN)

    def take(self, answer_ids: list[int], logprobs: list[float], text: str) -> None:
        """Adds an answer as it was sampled."""
        self._add(answer_ids, logprobs, len(self.answers))
        self.answers.append(text)
        self.messages += assistant_turn(text)

    def _add(self, token_ids: list[int], logprobs: list[float], turn: int) -> None:
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
    inputs = model_inputs(processor, list(rows))
    return [
        Conversation(row["prompt"], read_dialogue(row["dialogue"]), ids[kept.bool()].tolist(), list(row["images"]))
        for row, ids, kept in zip(rows, inputs["input_ids"], inputs["attention_mask"], strict=True)
    ]


def inputs_so_far(processor: Any, talks: Sequence[Conversation]) -> Any:
    """What the model is given to go on: all tokens so far, padded on the left, and the pixels of the prompts."""
    inputs = model_inputs(processor, [{"prompt": talk.prompt, "images": talk.images} for talk in talks])
    known = inputs["attention_mask"].bool()
    for key in set(PER_TOKEN) & inputs.keys():
        rows = [row[kept].tolist() for row, kept in zip(inputs[key], known, strict=True)]
        inputs[key] = _left([row + [0] * len(t.completion_ids) for row, t in zip(rows, talks, strict=True)], 0)
    inputs["input_ids"] = _left([talk.token_ids for talk in talks], processor.tokenizer.pad_token_id)
    inputs["attention_mask"] = _left([[1] * len(talk.token_ids) for talk in talks], 0)
    return inputs


def _left(rows: Sequence[list[int]], value: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([[value] * (width - len(row)) + row for row in rows])


def num_sampled(token_ids: Sequence[int], ends: Sequence[int]) -> int:
    """How many tokens an answer has, its end included: what generation puts after it is padding.

    >>> num_sampled([7, 8, 2, 0, 0], [2]), num_sampled([7, 8, 9], [2])
    (3, 3)
    """
    return next((k for k, token in enumerate(token_ids, start=1) if token in ends), len(token_ids))
