"""The order in which rows are trained on: a pure function of seed and epoch, so that a killed run finds its place.

An ``Order`` maps an epoch (from 0) to the places of its rows, and keeps nothing from call to call: whoever writes
another one (a curriculum, weights) gives it to the trainer as ``order``, and resuming and the ledger hold for it too.
The orders here are those of TRL's own samplers for the first run of a seed. Left out: data without a length.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

Order = Callable[[int], Sequence[int]]


def shuffled(num_rows: int, seed: int) -> Order:
    """Every row once, in an order drawn from ``seed + epoch``."""
    return lambda epoch: torch.randperm(num_rows, generator=_seeded(seed + epoch)).tolist()


def redrawn(num_rows: int, seed: int) -> Order:
    """Every row once; epoch e has the (e+1)-th draw of one generator, as TRL's GRPO draws them."""

    def order(epoch: int) -> list[int]:
        generator = _seeded(seed)
        for _ in range(epoch):
            torch.randperm(num_rows, generator=generator)
        return torch.randperm(num_rows, generator=generator).tolist()

    return order


def by_length(lengths: Sequence[int], batch_size: int, seed: int) -> Order:
    """Every row once, rows of like length together and the longest first (``batch_size``: rows of a step)."""
    return lambda epoch: get_length_grouped_indices(list(lengths), batch_size, generator=_seeded(seed + epoch))


def unshuffled(num_rows: int) -> Order:
    """The rows as they stand."""
    return lambda _epoch: range(num_rows)


def _seeded(seed: int) -> torch.Generator:
    generator = torch.Generator()
    generator.manual_seed(seed)
    return generator


class EpochSampler(Sampler[int]):
    """The places of one epoch, set from outside before it begins.

    For GRPO, ``chunk`` rows make a generation batch (what is over at the end of an epoch is left out), each row stands
    ``copies`` times in it, and it comes ``times`` times.
    """

    def __init__(self, order: Order, *, chunk: int = 1, copies: int = 1, times: int = 1) -> None:
        self.order, self.chunk, self.copies, self.times = order, chunk, copies, times
        self.epoch = 0

    def planned(self, epoch: int) -> list[int]:
        """The rows of an epoch that are trained on, each once."""
        places = list(self.order(epoch))
        return places[: len(places) - len(places) % self.chunk]

    def set_epoch(self, epoch: int) -> None:
        """As transformers and accelerate set it, where they reach the sampler."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        places = self.planned(self.epoch)
        for start in range(0, len(places), self.chunk):
            for _ in range(self.times):
                for place in places[start : start + self.chunk]:
                    yield from [place] * self.copies

    def __len__(self) -> int:
        return len(self.planned(0)) * self.copies * self.times
