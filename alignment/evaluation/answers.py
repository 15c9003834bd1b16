"""The greedy answer of a model to each row; ranks share out the batches."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from alignment.data.prompt_rows import decoded_row
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

MAX_NEW_TOKENS = {"closed": 8, "box": 32, "report": 96, "dialogue": 32}
"""By kind of task; of a dialogue, for each answer."""


def generate_answers(
    model: "PreTrainedModel",
    processor: "ProcessorMixin",
    rows: Sequence[EvaluatedRow],
    *,
    batch_size: int = 32,
    max_new_tokens: Mapping[str, int] = MAX_NEW_TOKENS,
    blind: Blind | None = None,
    seed: int = 0,
    progress: bool = False,
    kept: KeptAnswers | None = None,
) -> list[Response]:
    """The greedy answer to each row (in a dialogue, the model's turns), in the order of the rows.

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

    def answered(batch: tuple[str, list[int]]) -> list[Response]:
        kind, indices = batch
        return _responses(model, processor, [decoded_row(questions[n]) for n in indices], kind, max_new_tokens[kind])

    with stands(lambda: f"{kept or 'No answer is kept'}; the same command goes on."):
        missing: list[tuple[str, list[int]]] = []
        for kind, indices in _batches(questions, batch_size):
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


def _enter(answers: list[Response], indices: Sequence[int], responses: Sequence[Response]) -> None:
    for index, response in zip(indices, responses, strict=True):
        answers[index] = response


def _responses(
    model: "PreTrainedModel", processor: "ProcessorMixin", batch: list[EvaluatedRow], kind: str, max_new_tokens: int
) -> list[Response]:
    if kind == "dialogue":
        return [*dialogue_responses(model, processor, batch, max_answer_tokens=max_new_tokens)]
    generated = generate(model, processor, batch, max_new_tokens=max_new_tokens, batch_size=len(batch))
    return [response.strip() for (response,) in generated]


def _batches(rows: Sequence[EvaluatedRow], batch_size: int) -> Iterator[tuple[str, list[int]]]:
    alike: defaultdict[tuple[str, bool], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        kind = (
            "report" if row.get("box_images") or row.get("capability") else _kind(row["task"])
        )  # boxes of several images, reasons
        alike[kind, bool(row["images"])].append(index)
    for (kind, _), indices in alike.items():
        for start in range(0, len(indices), batch_size):
            yield kind, indices[start : start + batch_size]


def _kind(task: str) -> str:
    return task if task in ("box", "report", "dialogue") else "closed"
