"""The answer of a model to each row, greedy unless it is to be sampled; ranks share out the batches."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from alignment.config.generation_section import GenerationSection, Kind, kind_of
from alignment.data.prompt_rows import decoded_row
from alignment.data.row_tokens import counted
from alignment.distributed.processes import is_main_process
from alignment.distributed.ranks import over_ranks
from alignment.evaluation.controls import Blind, Response, blinded
from alignment.evaluation.dialogue_answers import dialogue_responses
from alignment.evaluation.kept_answers import KeptAnswers
from alignment.metrics.evaluated_row import EvaluatedRow
from alignment.models.generation import generate
from data_builders.interruptions import stands

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

GREEDY = GenerationSection()


def generate_answers(
    model: "PreTrainedModel",
    processor: "ProcessorMixin",
    rows: Sequence[EvaluatedRow],
    *,
    generation: GenerationSection = GREEDY,
    blind: Blind | None = None,
    seed: int = 0,
    progress: bool = False,
    kept: KeptAnswers | None = None,
) -> list[Response]:
    """The answer to each row (in a dialogue, the model's turns), in the order of the rows.

    One batch holds rows of one kind of task. Ranks share them out, and each is given all answers.

    ``blind``: each image replaced by ``noise`` of its size, or by another patient's with other facts
    (``shuffled``). ``kept``: where answers are kept as they come, and taken from.
    """
    from rich.progress import track

    questions = blinded(rows, blind, seed=seed)
    answers: list[Response] = [""] * len(rows)
    was_training = model.training
    model.eval()
    condition = blind or "clean"

    def answered(batch: tuple[Kind, list[int]]) -> list[Response]:
        kind, indices = batch
        with sampled_by(generation, condition, indices):
            return _responses(model, processor, [decoded_row(questions[n]) for n in indices], kind, generation)

    with stands(lambda: f"{kept or 'No answer is kept'}; the same command goes on."):
        missing: list[tuple[Kind, list[int]]] = []
        for kind, indices in _batches(processor, questions, generation):
            responses = kept.of(condition, indices) if kept else None
            if responses is None:
                missing.append((kind, indices))
            else:
                _enter(answers, indices, responses)
        bar = {"description": f"answers ({condition})", "disable": not progress or not is_main_process()}
        for (_, indices), responses in track(over_ranks(missing, answered), total=len(missing), **bar):
            if kept:
                kept.keep(condition, indices, responses)
            _enter(answers, indices, responses)
    model.train(was_training)
    return answers


@contextmanager
def sampled_by(how: GenerationSection, condition: str, indices: Sequence[int]) -> Generator[None]:
    """Draws by the section's seed and the batch's rows alone, so that a resumed or shared evaluation is the same."""
    if how.temperature is None:
        yield
        return
    import torch

    digest = hashlib.sha256(json.dumps([how.seed, condition, *indices]).encode()).digest()
    with torch.random.fork_rng():
        torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        yield


def _enter(answers: list[Response], indices: Sequence[int], responses: Sequence[Response]) -> None:
    for index, response in zip(indices, responses, strict=True):
        answers[index] = response


def _responses(
    model: "PreTrainedModel", processor: "ProcessorMixin", batch: list[EvaluatedRow], kind: Kind, how: GenerationSection
) -> list[Response]:
    if kind == "dialogue":
        return [*dialogue_responses(model, processor, batch, max_answer_tokens=how.bound(kind))]
    generated = generate(
        model,
        processor,
        batch,
        max_new_tokens=how.bound(kind),
        batch_size=len(batch),
        temperature=how.temperature,
    )
    return [response.strip() for (response,) in generated]


def _batches(
    processor: "ProcessorMixin", rows: Sequence[EvaluatedRow], how: GenerationSection
) -> Iterator[tuple[Kind, list[int]]]:
    """Indices of rows in batches of one kind of task, with images or without, within the bounds of a batch."""
    alike: defaultdict[tuple[Kind, bool], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        alike[kind_of(row), bool(row["images"])].append(index)
    for (kind, _), indices in alike.items():
        lengths = _lengths(processor, [rows[n] for n in indices], kind, how)
        for part in within(lengths, most_rows=how.batch_size, most_tokens=how.batch_tokens):
            yield kind, [indices[k] for k in part]


def _lengths(
    processor: "ProcessorMixin", rows: Sequence[EvaluatedRow], kind: Kind, how: GenerationSection
) -> list[int]:
    """Tokens of each row, its answer's bound included; 0 where batches are not made by tokens."""
    if how.batch_tokens is None:
        return [0] * len(rows)
    return [length + how.bound(kind) for length in counted(processor, rows, ()).longest()]


def within(lengths: Sequence[int], *, most_rows: int, most_tokens: int | None) -> Iterator[list[int]]:
    """Indices in batches, in their order: a batch is as wide as its longest row. A row too long stands alone.

    >>> list(within([5, 5, 9, 3], most_rows=3, most_tokens=20))
    [[0, 1], [2, 3]]
    """
    batch: list[int] = []
    for index in range(len(lengths)):
        longer = [*batch, index]
        tokens = len(longer) * max(lengths[k] for k in longer)
        if batch and (len(longer) > most_rows or (most_tokens is not None and tokens > most_tokens)):
            yield batch
            longer = [index]
        batch = longer
    if batch:
        yield batch
