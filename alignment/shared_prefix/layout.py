"""One prompt, many answers, computed once; exact to rounding.

A row is laid out as ``[prompt | answer 1 | ... | answer G | padding]`` and goes through the model once: an answer's
positions go on from the prompt's last one, and its tokens attend to the prompt and to themselves only. Every number
equals that of the repeated layout (the prompt once for each answer), which is the same layout with one answer a row.

Kernels that take no mask (flash attention) get the same from a cache (``shared_prefix/key_value_cache.py``).
Shape suffixes: B rows, L columns, A answers of the batch, N answer tokens of the batch.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from alignment.shared_prefix.key_value_cache import TOKEN_FIELDS
from rewards.config.input_error import InputError

Batch = dict[str, torch.Tensor]
PADDING = -1
OWN_FIELDS = ("segments", "answer_positions", "answer_labels", "answer_lengths")


def packed(
    prompt: Batch, answers: Sequence[Sequence[Sequence[int]]], *, pad_token_id: int, max_length: int | None = None
) -> Batch:
    """The packed batch of prompts (padded on the right, with their pixels) and the token ids of each row's answers.

    Gains ``segments`` (B, L): 0 prompt, k answer k of the row, -1 padding; ``answer_positions`` (N): the flat index of
    the position that predicts a token; ``answer_labels`` (N); ``answer_lengths`` (A): tokens of every answer in turn.

    Args:
        prompt: what the processor gives for the prompts alone.
        answers: for each row, one or more answers. An empty answer has log-probability 0.
        pad_token_id: fills the columns behind a row's last answer.
        max_length: prompt and answer together are cut to this many tokens, as TRL does.

    Raises: InputError if a prompt alone is longer than ``max_length``.
    """
    lengths = prompt["attention_mask"].sum(dim=1).tolist()
    answers = [[_cut(a, length, max_length) for a in row] for row, length in zip(answers, lengths, strict=True)]
    width = max(length + sum(map(len, row)) for row, length in zip(answers, lengths, strict=True))
    batch = {k: v for k, v in prompt.items() if k != "attention_mask"}
    for name in ("input_ids", *(f for f in TOKEN_FIELDS if f in prompt)):
        fill = pad_token_id if name == "input_ids" else 0
        batch[name] = _widened(prompt[name], prompt["attention_mask"], width, fill)
    segments_BL = torch.full((len(lengths), width), PADDING)
    positions: list[torch.Tensor] = []
    for b, (row, length) in enumerate(zip(answers, lengths, strict=True)):
        segments_BL[b, :length] = 0
        start = length
        for k, answer in enumerate(row, 1):
            stop = start + len(answer)
            batch["input_ids"][b, start:stop] = torch.tensor(answer, dtype=torch.long)
            segments_BL[b, start:stop] = k
            before = torch.tensor([length - 1, *range(start, stop - 1)][: len(answer)], dtype=torch.long)
            positions.append(b * width + before)
            start = stop
    flat = [token for row in answers for answer in row for token in answer]
    return batch | {
        "segments": segments_BL,
        "answer_positions": torch.cat(positions),
        "answer_labels": torch.tensor(flat, dtype=torch.long),
        "answer_lengths": torch.tensor([len(answer) for row in answers for answer in row]),
    }


def _cut(answer: Sequence[int], prompt_length: int, max_length: int | None) -> Sequence[int]:
    if max_length is None:
        return answer
    if prompt_length > max_length:
        raise InputError(
            f"trainer.max_length: {max_length} is shorter than a prompt ({prompt_length} tokens); give more, or None."
        )
    return answer[: max_length - prompt_length]


def _widened(values: torch.Tensor, mask: torch.Tensor, width: int, fill: int) -> torch.Tensor:
    """The prompt's columns in ``width`` columns, everything behind the prompt filled."""
    out = values.new_full((len(values), width), fill)
    columns = min(width, values.shape[1])
    out[:, :columns] = values.masked_fill(mask == 0, fill)[:, :columns]
    return out


def answer_sums(token_values_N: torch.Tensor, answer_lengths_A: torch.Tensor) -> torch.Tensor:
    """Sums over each answer's tokens (A).

    >>> answer_sums(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1, 0, 2])).tolist()
    [1.0, 0.0, 6.0]
    """
    answer_N = torch.repeat_interleave(
        torch.arange(len(answer_lengths_A), device=answer_lengths_A.device), answer_lengths_A
    )
    return token_values_N.new_zeros(len(answer_lengths_A)).index_add(0, answer_N, token_values_N)


def by_answer(token_values_N: torch.Tensor, answer_lengths_A: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The values as a table (A, T), padded with 0, and its mask (A, T): for terms that look at single tokens."""
    parts = token_values_N.split(answer_lengths_A.tolist())
    table = torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
    columns = torch.arange(table.shape[1], device=table.device)
    return table, columns < answer_lengths_A[:, None]


def tokens_computed(batch: Batch) -> tuple[int, int]:
    """Tokens that went through the model, and tokens that the repeated layout would have added."""
    segments_BL = batch["segments"]
    prompt_B = (segments_BL == 0).sum(dim=1)
    answers_B = segments_BL.amax(dim=1)
    return int((segments_BL != PADDING).sum()), int((prompt_B * (answers_B - 1).clamp(min=0)).sum())


def repeated(rows: Iterable[tuple[Any, Sequence[Any]]]) -> list[tuple[Any, list[Any]]]:
    """The repeated layout: one row for each answer, in the order of the answers.

    >>> repeated([("p", ["a", "b"]), ("q", ["c"])])
    [('p', ['a']), ('p', ['b']), ('q', ['c'])]
    """
    return [(prompt, [answer]) for prompt, answers in rows for answer in answers]
