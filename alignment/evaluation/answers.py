"""The greedy answer of a model to each row; ranks share out the batches."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alignment.data.prompt_rows import Row, decoded_row
from alignment.distributed.processes import is_main_process
from alignment.distributed.ranks import over_ranks
from alignment.evaluation.controls import Blind, Response, blinded
from alignment.evaluation.dialogue_answers import dialogues_said
from alignment.evaluation.kept_answers import KeptAnswers
from alignment.models.generation import generate
from data_builders.interruptions import stands

MAX_NEW_TOKENS = {"closed": 8, "box": 32, "report": 96, "dialogue": 32}
"""By kind of task; of a dialogue, for each answer."""


def generate_answers(
    model: Any,
    processor: Any,
    rows: Sequence[Row],
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

    asked = blinded(rows, blind, seed=seed)
    answers: list[Response] = [""] * len(rows)
    was_training = model.training
    model.eval()
    condition = blind or "clean"

    def answered(batch: tuple[str, list[int]]) -> list[Response]:
        kind, places = batch
        return _said(model, processor, [decoded_row(asked[n]) for n in places], kind, max_new_tokens[kind])

    with stands(lambda: f"{kept or 'No answer is kept'}; the same command goes on."):
        missing: list[tuple[str, list[int]]] = []
        for kind, places in _batches(asked, batch_size):
            said = kept.of(condition, places) if kept else None
            if said is None:
                missing.append((kind, places))
            else:
                _enter(answers, places, said)
        told = {"description": f"answers ({condition})", "disable": not progress or not is_main_process()}
        for (_, places), said in track(over_ranks(missing, answered), total=len(missing), **told):
            if kept:
                kept.keep(condition, places, said)
            _enter(answers, places, said)
    model.train(was_training)
    return answers


def _enter(answers: list[Response], places: Sequence[int], said: Sequence[Response]) -> None:
    for place, answer in zip(places, said, strict=True):
        answers[place] = answer


def _said(model: Any, processor: Any, batch: list[Row], kind: str, max_new_tokens: int) -> list[Response]:
    if kind == "dialogue":
        return [*dialogues_said(model, processor, batch, max_answer_tokens=max_new_tokens)]
    said = generate(model, processor, batch, max_new_tokens=max_new_tokens, batch_size=len(batch))
    return [answer.strip() for (answer,) in said]


def _batches(rows: Sequence[Row], batch_size: int) -> Iterator[tuple[str, list[int]]]:
    alike: defaultdict[tuple[str, bool], list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        kind = (
            "report" if row.get("box_images") or row.get("capability") else _kind(row["task"])
        )  # boxes of several images, reasons
        alike[kind, bool(row["images"])].append(place)
    for (kind, _), places in alike.items():
        for start in range(0, len(places), batch_size):
            yield kind, places[start : start + batch_size]


def _kind(task: str) -> str:
    return task if task in ("box", "report", "dialogue") else "closed"
