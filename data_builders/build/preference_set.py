"""What is done once for a whole set of preference rows: lengths balanced, relevance made weights, both measured.

The mean of the relevance is known only when all rows are there, so this goes over the written files a second time, a
row group at a time. A ``pairs`` run weighs its rows by the same ``weighted``.
"""

# pyarrow comes without types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_builders.build.build_spec import BuildSpec
from data_builders.build.tally import Tally
from data_builders.pairs.hallucination_checks import brevity_report, length_balanced
from data_builders.pairs.llm_rows import LlmTally, check_written, judged_scores, with_llm_answers
from data_builders.pairs.relevance import grouped_weights, scaled_scores, weight_report
from data_builders.pairs.settings import IMAGE_SIDE, Relevance
from data_builders.schema import message_text
from rewards.config.input_error import InputError
from rewards.config.json_lines import json_value
from rewards.config.strict_yaml import read_text
from rewards.llm.spec import LocalBackend

CHANGED = ("relevance", "weight", "rejected", "kind")
"""The columns that this may change."""
LIGHT = ("id", "source", "task", "facts", "rule_set", "prompt", "chosen", *CHANGED)
"""The columns that are read whole; images are not among them."""
Row = dict[str, Any]


def finished(folder: Path, spec: BuildSpec, tally: Tally) -> dict[str, Any]:
    """Balances and weighs the preference rows under ``folder``; the figures of each split, for the card.

    Raises: InputError for scores that are missing or out of range, or if the language model wrote nothing at all.
    """
    llms: dict[str, LlmTally] = {}
    done = {
        file.stem: _finished(file, spec, tally, llms.setdefault(file.stem, LlmTally()))
        for file in sorted(folder.glob("preference/*.parquet"))
    }
    if spec.llm:
        dropped = sum((llm.dropped for llm in llms.values()), Counter[str]())
        check_written(sum(llm.written for llm in llms.values()), dropped, llm=spec.llm.model)
    return done


def _finished(file: Path, spec: BuildSpec, tally: Tally, llm: LlmTally) -> dict[str, Any]:
    written = pq.read_table(file, columns=list(LIGHT)).to_pylist()
    rows = with_llm_answers(written, spec.llm, llm) if spec.llm else written
    kept = _kept(rows, spec)
    for place in set(range(len(rows))) - set(kept):
        tally.rows["preference", file.stem, rows[place]["task"]] -= 1
    left = [rows[place] for place in kept]
    transcripts = file.parent.parent / f"relevance-{file.stem}.jsonl"
    final = weighted(left, spec.relevance, transcripts=transcripts, tally=llm)
    if final != written:
        _rewrite(file, dict(zip(kept, final, strict=True)))
    asked = {"llm": llm.report()} if spec.llm or spec.relevance.judges else {}
    return {**figures(final), **asked, "dropped_to_balance": len(rows) - len(left)}


def _kept(rows: list[Row], spec: BuildSpec) -> list[int]:
    """Places of the rows that stay; pairs whose two answers are one are never dropped."""
    if not spec.balance_lengths:
        return list(range(len(rows)))
    text = [place for place, row in enumerate(rows) if row["kind"] != IMAGE_SIDE]
    ids = [rows[place]["id"] for place in text]
    stay = length_balanced(ids, *_texts([rows[place] for place in text]))
    return sorted({*range(len(rows))} - {*text} | {text[place] for place in stay})


def _texts(rows: list[Row]) -> tuple[list[str], list[str]]:
    chosen, rejected = ([message_text(row[key]) for row in rows] for key in ("chosen", "rejected"))
    return chosen, rejected


def weighted(
    rows: list[Row], relevance: Relevance, *, transcripts: Path, tally: LlmTally, local: LocalBackend | None = None
) -> list[Row]:
    """The rows with their final ``relevance`` in [0, 1] and the ``weight`` that it becomes.

    Under ``raw`` a weight that came with a row stands, unless the row was scored anew; the other readings treat a row
    whose relevance is not known as ``missing`` says. ``transcripts``: where the judges' debates are kept. ``local``
    makes the backend of a judge without an endpoint.

    Raises: InputError for scores that are missing or out of range.
    """
    scores = _rescored(rows, relevance, transcripts, tally, local)
    if relevance.reading == "raw":
        return [_weighing_its_score(row, score) for row, score in zip(rows, scores, strict=True)]
    ids, groups = [row["id"] for row in rows], [(row["source"], row["kind"]) for row in rows]
    told = scaled_scores(ids, dict(zip(ids, scores, strict=True)), missing=relevance.missing)
    weights = grouped_weights(told, groups, relevance.reading).tolist()
    return [
        {**row, "relevance": score, "weight": weight} for row, score, weight in zip(rows, told, weights, strict=True)
    ]


def _weighing_its_score(row: Row, score: float | None) -> Row:
    came_with_it = row["weight"] is not None and score == row["relevance"]
    return {**row, "relevance": score, "weight": row["weight"] if came_with_it else score}


def _rescored(
    rows: list[Row], relevance: Relevance, transcripts: Path, tally: LlmTally, local: LocalBackend | None
) -> list[float | None]:
    """The relevance of each row, that of a file or of judges where these are asked."""
    scores: list[float | None] = [row["relevance"] for row in rows]
    judged = [place for place, row in enumerate(rows) if relevance.rescores(row["kind"])]
    if judged:
        some = [rows[place] for place in judged]
        verdicts = _verdicts(some, relevance, transcripts, tally, local)
        found = scaled_scores([row["id"] for row in some], verdicts, scale=relevance.scale, missing=relevance.missing)
        for place, score in zip(judged, found, strict=True):
            scores[place] = score
    return scores


def _verdicts(
    rows: list[Row], relevance: Relevance, transcripts: Path, tally: LlmTally, local: LocalBackend | None
) -> dict[str, float | None]:
    if relevance.scores is not None:
        return read_scores(Path(relevance.scores))
    judges, rounds = relevance.judges, relevance.max_rounds
    held = judged_scores(rows, judges, max_rounds=rounds, out=transcripts, tally=tally, local=local)
    return {row["id"]: debate.score for row, debate in zip(rows, held, strict=True)}


def read_scores(path: Path) -> dict[str, float | None]:
    """Scores by row id from a JSON file.

    Raises: InputError if there is no such file or it holds something else.
    """
    try:
        scores = json_value(read_text(path), str(path), "Write row ids and numbers.")
    except InputError as fault:
        raise InputError(f"relevance.scores: {fault}") from None
    fits = isinstance(scores, dict) and all(
        score is None or (isinstance(score, int | float) and not isinstance(score, bool)) for score in scores.values()
    )
    if not fits:
        raise InputError(f'relevance.scores: {path}: expected row ids and numbers, such as {{"p1-0-report": 0.8}}.')
    return scores


def figures(rows: list[Row]) -> dict[str, Any]:
    """Relevance (where known) and weights of each kind of pair, and how far length alone tells the answers apart."""
    text = [row for row in rows if row["kind"] != IMAGE_SIDE]
    return {
        "relevance": _by_kind(rows, "relevance"),
        "weights": _by_kind(rows, "weight"),
        "brevity": brevity_report(*_texts(text)),
    }


def _by_kind(rows: list[Row], column: str) -> dict[str, dict[str, float]]:
    kinds = sorted({row["kind"] for row in rows})
    values = {kind: [row[column] for row in rows if row["kind"] == kind] for kind in kinds}
    return {kind: weight_report([v for v in own if v is not None]) for kind, own in values.items()}


def _rewrite(file: Path, final: dict[int, Row]) -> None:
    """The file with only the rows at these places, as they are now."""
    fresh, source, start = file.with_suffix(".fresh"), pq.ParquetFile(file), 0
    with pq.ParquetWriter(fresh, source.schema_arrow, compression="zstd", use_dictionary=True) as writer:
        for group in range(source.num_row_groups):
            table = source.read_row_group(group)
            here = [place for place in range(table.num_rows) if start + place in final]
            if here:
                writer.write_table(_changed(table.take(pa.array(here)), [final[start + place] for place in here]))
            start += table.num_rows
    source.close()
    fresh.replace(file)


def _changed(table: pa.Table, rows: list[Row]) -> pa.Table:
    for name in CHANGED:
        place, column = table.schema.get_field_index(name), [row[name] for row in rows]
        table = table.set_column(place, table.schema.field(name), pa.array(column, table.schema.field(name).type))
    return table
