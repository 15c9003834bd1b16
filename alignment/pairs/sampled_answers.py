"""A model's own sampled answers, by turns of the ranks of a launch: the same texts for any number of ranks.

What a row is answered depends on its whole batch: on how far its prompt is padded, and on the random numbers, which
the rows of a batch draw in turn. So the batch is the unit of work: its draws follow from ``sampling.seed`` and its
number alone, and what is sampled changes with ``sampling.batch_size``. Left out: a row's answers apart from its batch,
which would take a stream of random numbers for each row of the sampler.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from rich.progress import track

from alignment.config.data_entries import parquet
from alignment.config.recipe import Recipe
from alignment.data.processor_checks import check_file
from alignment.distributed.processes import is_main_process
from alignment.distributed.ranks import agreed, over_ranks
from alignment.models.generation import generate
from alignment.models.loading import load_for_inference
from data_builders.seeds import seeded

Row = dict[str, Any]


@dataclass
class SampledAnswers:
    """The model of a ``pairs`` recipe, loaded once by each rank, on a card of its own where there are GPUs."""

    recipe: Recipe

    def to(self, indices: Sequence[int], shown: Callable[[Sequence[int]], list[Row]], *, name: str) -> list[list[str]]:
        """Several answers to the row at each index, in this order. All ranks come by here, and are given all.

        ``shown``: the rows at some indices as the model is to see them; asked by each rank for its own batches only.
        ``name``: of these questions; others draw other random numbers.

        Raises: InputError if the model is not there, or refuses a row.
        """
        agreed(self._check)
        size = self.recipe.sampling.batch_size
        batches = [(k, indices[start : start + size]) for k, start in enumerate(range(0, len(indices), size))]
        done = over_ranks(batches, lambda batch: self._answers(shown(batch[1]), seed_of(self.recipe, name, batch[0])))
        tracked = track(done, "sampling own answers", total=len(batches), disable=not is_main_process())
        return [answers for _, some in tracked for answers in some]

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        return load_for_inference(self.recipe.model.path, max_pixels=self.recipe.model.max_pixels)

    def _check(self) -> None:
        _, processor = self._model
        if is_main_process():
            check_file(processor, parquet(self.recipe.data.train))

    def _answers(self, rows: list[Row], seed: int) -> list[list[str]]:
        options = self.recipe.sampling
        torch.manual_seed(seed)
        return generate(
            *self._model,
            rows,
            max_new_tokens=options.max_new_tokens,
            batch_size=options.batch_size,
            num_samples=options.num_samples,
            temperature=options.temperature,
        )


def seed_of(recipe: Recipe, name: str, batch: int) -> int:
    """Where torch's random numbers start for one batch."""
    return int(seeded("own answers", recipe.sampling.seed, name, batch).integers(2**63))
