"""What is done once for a whole set of preference rows: lengths balanced, scores made weights, both measured.

The mean of the scores is known only when all rows are there, so this goes over the written files a second time, a
row group at a time.
"""

# pyarrow comes without types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_builders.build_spec import BuildSpec, Relevance
from data_builders.card import Tally
from data_builders.hallucination_checks import brevity_report, length_balanced
from data_builders.llm_rows import LlmTally, judged_scores, with_llm_answers
from data_builders.relevance import Weights, grouped_weights, scaled_scores, weight_report
from data_builders.schema import message_text
from rewards.strict_yaml import InputError

IMAGE_SIDE = "lesion_noise"
LIGHT = ("id", "task", "kind", "weight", "facts", "rule_set", "prompt", "chosen", "rejected")
"""The columns that are read whole; images are not among them."""
Row = dict[str, Any]


def finished(folder: Path, spec: BuildSpec, tally: Tally) -> dict[str, Any]:
    """Balances and weighs the preference rows under ``folder``; the figures of each split, for the card.

    Raises: InputError for scores that are missing or out of range.
    """
    return {file.stem: _finished(file, spec, tally) for file in sorted(folder.glob("preference/*.parquet"))}


def _finished(file: Path, spec: BuildSpec, tally: Tally) -> dict[str, Any]:
    written = pq.read_table(file, columns=list(LIGHT)).to_pylist()
    llm = LlmTally()
    rows = with_llm_answers(written, spec.llm, llm) if spec.llm else written
    kept = _kept(rows, spec)
    for place in set(range(len(rows))) - set(kept):
        tally.rows["preference", file.stem, rows[place]["task"]] -= 1
    left = [rows[place] for place in kept]
    transcripts = file.parent.parent / f"relevance-{file.stem}.jsonl"
    weights = _weights(left, spec.relevance, transcripts, llm)
    final = {
        place: {**row, "score": row["weight"], "weight": weight}
        for place, row, weight in zip(kept, left, weights.tolist(), strict=True)
    }
    if len(left) < len(rows) or rows != written or any(row["score"] != row["weight"] for row in final.values()):
        _rewrite(file, final)
    asked = {"llm": llm.report()} if spec.llm or spec.relevance.judges else {}
    return {**figures(left, weights), **asked, "dropped_to_balance": len(rows) - len(left)}


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


def _weights(rows: list[Row], relevance: Relevance, transcripts: Path, llm: LlmTally) -> Weights:
    scores = [float(row["weight"]) for row in rows]
    if relevance.scores is not None or relevance.judges:
        judged = [place for place, row in enumerate(rows) if row["kind"] in relevance.kinds]
        ids = [rows[place]["id"] for place in judged]
        verdicts = _verdicts([rows[place] for place in judged], relevance, transcripts, llm)
        found = scaled_scores(ids, verdicts, scale=relevance.scale, missing=relevance.missing)
        for place, score in zip(judged, found, strict=True):
            scores[place] = score
    if relevance.reading == "raw":
        return np.asarray(scores, np.float64)
    return grouped_weights(scores, [row["kind"] for row in rows], relevance.reading)


def _verdicts(rows: list[Row], relevance: Relevance, transcripts: Path, llm: LlmTally) -> dict[str, float | None]:
    if relevance.scores is not None:
        return read_scores(Path(relevance.scores))
    held = judged_scores(rows, relevance.judges, max_rounds=relevance.max_rounds, out=transcripts, tally=llm)
    return {row["id"]: debate.score for row, debate in zip(rows, held, strict=True)}


def read_scores(path: Path) -> dict[str, float | None]:
    """Scores by row id from a JSON file.

    Raises: InputError if there is no such file or it holds something else.
    """
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise InputError(f"relevance.scores: {path}: not readable as JSON ({fault}).") from None
    fits = isinstance(scores, dict) and all(
        score is None or (isinstance(score, int | float) and not isinstance(score, bool)) for score in scores.values()
    )
    if not fits:
        raise InputError(f'relevance.scores: {path}: expected row ids and numbers, such as {{"p1-0-report": 0.8}}.')
    return scores


def figures(rows: list[Row], weights: Weights) -> dict[str, Any]:
    """Weights of each kind of pair, and how far length alone tells the text-side answers apart."""
    kinds = Counter(row["kind"] for row in rows)
    own = {kind: [w for row, w in zip(rows, weights, strict=True) if row["kind"] == kind] for kind in sorted(kinds)}
    text = [row for row in rows if row["kind"] != IMAGE_SIDE]
    return {
        "weights": {kind: weight_report(found) for kind, found in own.items()},
        "brevity": brevity_report(*_texts(text)),
    }


def _rewrite(file: Path, final: dict[int, Row]) -> None:
    """The file with only the rows at these places, as they are now; the score stays in the row's provenance."""
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
    notes = [json.loads(note) for note in table["provenance"].to_pylist()]
    told = [json.dumps({**n, "score": row["score"]}, sort_keys=True) for n, row in zip(notes, rows, strict=True)]
    columns = {"provenance": told, **{name: [row[name] for row in rows] for name in ("weight", "rejected", "kind")}}
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    return table
