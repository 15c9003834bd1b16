"""Where the turns of a dialogue begin and end under a model's chat template.

Everything is taken from what the template renders, so that training and rollouts see the tokens that it would put.
Left out: templates that rewrite earlier turns when a later one is added (some drop earlier reasoning); refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_builders.schema import Message, assistant_turn, user_turn
from rewards.config.input_error import InputError

if TYPE_CHECKING:
    from transformers import ProcessorMixin

MARK = "\ue000"
"""Stands for an answer in a rendered conversation: a private character, which no question holds."""


def rendered(processor: "ProcessorMixin", messages: Sequence[Message], *, ask: bool = False) -> str:
    """The template's text of a conversation; with ``ask``, up to where the model's next turn begins."""
    return processor.apply_chat_template(list(messages), add_generation_prompt=ask, tokenize=False)


def after_answer(
    processor: "ProcessorMixin", messages: Sequence[Message], question: str, images: Sequence[Any] = ()
) -> dict[str, list[int]]:
    """The tokens between an answer to ``messages`` and the answer to ``question``, which ``images`` open.

    ``input_ids``, and what a processor says of each token beside. They begin with the token that ends the model's turn
    and end where its next turn begins.

    Raises: InputError if the template does not show an answer once, as it is, or has no token that ends a turn.
    """
    turn = user_turn(question, num_images=len(images))
    text = rendered(processor, [*messages, *assistant_turn(MARK), *turn], ask=True)
    _, *after = text.split(MARK)
    if len(after) != 1:
        raise InputError(f"chat template: shows an earlier answer {len(after)} times, so no dialogue can be written.")
    found = _of_each_token(processor, after[0], images)
    tokens = found["input_ids"]
    if not tokens or tokens[0] not in processor.tokenizer.all_special_ids:
        raise InputError(f"chat template: no special token ends the model's turn; after it comes {after[0][:20]!r}.")
    return found


def _of_each_token(processor: Any, text: str, images: Sequence[Any]) -> dict[str, list[int]]:
    if not images:
        return {"input_ids": processor.tokenizer.encode(text, add_special_tokens=False)}
    made = processor(text=[text], images=[list(images)], return_tensors="pt", add_special_tokens=False)
    ids = made["input_ids"]
    return {key: values[0].tolist() for key, values in made.items() if values.shape == ids.shape}


@dataclass(frozen=True)
class Piece:
    """A stretch of a rendered conversation: an answer with its end, or what stands before, between or after answers.

    ``num_images``: how many images open or stand in it.
    """

    text: str
    is_answer: bool
    num_images: int


def pieces(processor: "ProcessorMixin", prompt: Sequence[Message], completion: Sequence[Message]) -> list[Piece]:
    """The whole conversation in pieces, in order: the prompt, then answers and what is asked between them.

    Raises: InputError if the template rewrites earlier turns.
    """
    messages = [*prompt, *completion]
    whole, found, end, first = rendered(processor, messages), list[Piece](), 0, 0
    for index in range(len(prompt), len(messages)):
        if messages[index]["role"] == "assistant":
            begin, last = _span(processor, messages, index, whole)
            found.append(Piece(whole[end:begin], False, num_images(messages[first:index])))
            found.append(Piece(whole[begin:last], True, 0))
            end, first = last, index + 1
    return [*found, Piece(whole[end:], False, 0)] if end < len(whole) else found


def num_images(messages: Sequence[Message]) -> int:
    """How many image blocks stand in these messages.

    >>> num_images([*user_turn("What changed?", num_images=2), *assistant_turn("Nothing.")])
    2
    """
    return sum(
        block["type"] == "image" for m in messages if not isinstance(m["content"], str) for block in m["content"]
    )


def answer_tokens(processor: "ProcessorMixin", prompt: Sequence[Message], completion: Sequence[Message]) -> list[bool]:
    """For each token of a completion, whether it is of the model's turns rather than the clinician's.

    Raises: InputError if the template rewrites earlier turns.
    """
    messages = [*prompt, *completion]
    whole, begin = rendered(processor, messages), len(rendered(processor, prompt, ask=True))
    spans = [
        _span(processor, messages, end, whole)
        for end in range(len(prompt), len(messages))
        if messages[end]["role"] == "assistant"
    ]
    found = processor.tokenizer(whole[begin:], add_special_tokens=False, return_offsets_mapping=True)
    starts = [begin + start for start, _ in found["offset_mapping"]]
    return [any(first <= start < last for first, last in spans) for start in starts]


def _span(processor: "ProcessorMixin", messages: list[Message], index: int, whole: str) -> tuple[int, int]:
    """Where the message at a place stands in the whole text, without what opens the model's turn."""
    before = rendered(processor, messages[:index], ask=True)
    through = rendered(processor, messages[: index + 1])
    if not (whole.startswith(through) and through.startswith(before)):
        raise InputError(
            "chat template: it rewrites earlier turns, so the clinician's cannot be told apart. "
            "Build the data with dialogues.sft_rows: turns."
        )
    return len(before), len(through)
