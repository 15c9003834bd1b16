"""Batches by a budget of tokens instead of a number of rows, and the largest batch first.

Rows of like length are batched together; a batch costs its rows times its longest row, images and padding counted.
Which rows share a batch stays the same over the epochs, so that their number does; the order of batches is drawn
from seed and epoch. Processes get batches of like cost at the same time. Left out: GRPO, whose batches are groups.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers.trainer_pt_utils import BatchRebalanceSampler

from alignment.data.row_order import Order
from rewards.config.input_error import InputError


def batches_within(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Places of rows, in batches of at most ``budget`` tokens after padding, the largest batch first.

    >>> batches_within([2, 5, 2, 1], 6)
    [[2, 0, 3], [1]]
    """
    order = sorted(range(len(lengths)), key=lambda k: (-lengths[k], -k))
    batches: list[list[int]] = []
    for place in order:
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= budget:
            batches[-1].append(place)
        else:
            batches.append([place])
    return sorted(batches, key=lambda batch: -cost(batch, lengths))


def cost(batch: Sequence[int], lengths: Sequence[int]) -> int:
    """Tokens of a batch after padding."""
    return len(batch) * max(lengths[place] for place in batch)


def split_to_multiple(batches: list[list[int]], processes: int) -> list[list[int]]:
    """The batches, some of them halved, so that every process gets equally many.

    Raises: InputError if there are fewer rows than that takes.
    """
    while len(batches) % processes:
        widest = max(range(len(batches)), key=lambda k: len(batches[k]))
        if len(batches[widest]) < 2:
            raise InputError("data.batch_tokens: fewer rows than the processes need for equally many batches each.")
        rows = batches.pop(widest)
        batches += [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    return batches


class TokenBatches(BatchRebalanceSampler):
    """This process' batches of an epoch; transformers takes its class for one that knows of processes itself.

    ``epoch`` is set from outside. ``begun_with``: how many processes the batches were made for, where they are not
    these: the same batches are dealt out in the same order.

    Raises: InputError for a row longer than the budget, and for batches that cannot be dealt out alike.
    """

    def __init__(
        self, lengths: Sequence[int], budget: int, *, ids: Sequence[str], processes: int, rank: int, seed: int,
        begun_with: int | None = None,
    ) -> None:  # fmt: skip
        if too_long := [f"{ids[k]} ({count})" for k, count in enumerate(lengths) if count > budget]:
            raise InputError(f"data.batch_tokens: {budget} is less than one row takes: {', '.join(too_long[:10])}.")
        self.processes, self.rank, self.seed, self.epoch = processes, rank, seed, 0
        first = begun_with or processes
        whole = split_to_multiple(batches_within(lengths, budget), first)
        if len(whole) % processes:
            raise InputError(
                f"data.batch_tokens: the {len(whole)} batches of an epoch were made for {first} processes, and "
                f"{processes} cannot share them alike. Start it with {first}, or add --fresh to begin anew."
            )
        whole.sort(key=lambda batch: -cost(batch, lengths))
        self.rounds = [whole[k : k + first] for k in range(0, len(whole), first)]

    def rounds_of(self, epoch: int) -> list[list[list[int]]]:
        """What the processes of the start get, round by round; the first round of the first epoch is the largest."""
        generator = torch.Generator()
        generator.manual_seed(self.seed + epoch)
        order = torch.randperm(len(self.rounds), generator=generator).tolist()
        if epoch == 0:
            order.insert(0, order.pop(order.index(0)))
        return [self.rounds[k] for k in order]

    def planned(self, epoch: int) -> list[int]:
        """The rows of an epoch, as all processes together see them."""
        return [place for batches in self.rounds_of(epoch) for batch in batches for place in batch]

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        dealt = [batch for batches in self.rounds_of(self.epoch) for batch in batches]
        return iter(dealt[self.rank :: self.processes])

    def __len__(self) -> int:
        return sum(map(len, self.rounds)) // self.processes


def longest_first(order: Order, lengths: Sequence[int], count: int) -> Order:
    """An order whose first epoch begins with the ``count`` longest rows: no later batch of as many is larger.

    Rows of equal length keep the order's turn, so that rows all alike come as they would have.
    """

    def found(epoch: int) -> Sequence[int]:
        places = list(order(epoch))
        if epoch:
            return places
        first = sorted(places, key=lambda place: -lengths[place])[:count]
        taken = set(first)
        return first + [place for place in places if place not in taken]

    return found
