"""The two filters of the command line, a line of JSON in and a line out: ``score`` and ``read``. Loads no torch."""

import asyncio
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

from rewards.config.input_error import InputError, nearest
from rewards.config.json_lines import json_lines
from rewards.config.overrides import knob_values
from rewards.dialogues.dialogue import Responses
from rewards.loading import BatchReward, Reward, load_reward
from rewards.reading.reading import read
from rewards.row_types import as_columns, column_fault, response_fault, row_faults
from rewards.rules.evidence import Evidence
from rewards.rules.faults import label_faults
from rewards.rules.rule_set import RuleSet, load_rule_set
from rewards.rules.symbols import read_symbol
from rewards.rules.valid_sets import space_size

Row = dict[str, object]


def score_lines(name: str, knobs: list[str], lines: Iterable[str | bytes]) -> Iterator[str]:
    """Each row with its ``score`` (null: cannot be judged) and ``components``.

    ``facts`` and a ``dialogue`` may be objects (as ``read`` writes them) or their JSON text.

    Raises: InputError naming the line that is not JSON, lacks ``response`` or a column of the reward, or holds in one
    of them what it cannot hold (``rewards.row_types``).
    """
    reward = load_reward(name, **knob_values(knobs))
    rows = ((number, _complete(row, number, reward)) for number, row in _some(lines, "response"))
    if isinstance(reward, BatchReward):
        yield from _score_batch(reward, [row for _, row in rows])
        return
    for number, row in rows:
        response, columns = cast(Responses, row["response"]), reward.read_of(as_columns(row))
        try:
            score, parts = reward(response, **columns), reward.components(response, **columns)
        except InputError as fault:
            raise InputError(f"line {number}: {fault}") from None
        yield json.dumps({**row, "score": score, "components": parts})


def _some(lines: Iterable[str | bytes], column: str) -> Iterator[tuple[int, Row]]:
    """The rows of standard input and their numbers.

    Raises: InputError if there is none.
    """
    number = 0
    for number, row in json_lines(lines):
        yield number, row
    if not number:
        raise InputError(f"standard input holds no row. Write JSON to it, one object a line, each with a '{column}'.")


def _complete(row: Row, number: int, reward: Reward | BatchReward) -> Row:
    lacking = [c for c in ("response", *reward.columns) if c not in row]
    if lacking:
        raise InputError(f"line {number}: '{reward.name}' reads {', '.join(lacking)}, which this row lacks.")
    fault = response_fault(row["response"], turns="dialogue" in reward.columns)
    known = (*reward.columns, *reward.optional)
    faults = row_faults(as_columns({name: row[name] for name in known if name in row}))
    if fault := fault or next(faults, None):
        raise InputError(f"line {number}: {fault}")
    return row


def _score_batch(reward: BatchReward, rows: list[Row]) -> Iterator[str]:
    """All rows judged together, as groups and concurrent calls need."""
    read = [*reward.columns, *(c for c in reward.optional if any(c in row for row in rows))]
    columns = {c: [as_columns(row).get(c) for row in rows] for c in read}
    judged = asyncio.run(reward([cast(str, row["response"]) for row in rows], **columns))
    for row, value in zip(rows, judged.scores, strict=True):
        yield json.dumps({**row, "score": value, "components": {}})


def read_lines(rule_set: str, lines: Iterable[str | bytes]) -> Iterator[str]:
    """Each row with the ``facts`` read from its ``text``, the evidence (words, and the cue that decided), the rest.

    A row with a ``node`` is an answer to that question of the decision: its ``symbol`` is read instead.
    """
    rules = load_rule_set(rule_set)
    for number, row in _some(lines, "text"):
        if "text" not in row:
            raise InputError(f"line {number}: a row needs a 'text'.")
        fault = column_fault("text", row["text"]) or column_fault("node", row.get("node"))
        if fault or not isinstance(text := row["text"], str):
            raise InputError(f"line {number}: {fault or 'its text is null; expected a text.'}")
        if "node" in row or not rules.findings:
            yield json.dumps({**row, **_symbol(text, str(row.get("node") or ""), rules, number)})
            continue
        reading = read(text, rules)
        facts = reading.facts.model_dump(exclude_defaults=True)
        evidence = {
            name: [{"words": words, "cue": cue} for words, cue in zip(mentions, reading.cues[name], strict=True)]
            for name, mentions in reading.evidence.items()
        }
        found = {"facts": facts, "evidence": evidence, "conflicts": sorted(reading.conflicts)}
        yield json.dumps({**row, **found, "unread": list(reading.unread)})


def _symbol(text: str, node: str, rules: RuleSet, number: int) -> dict[str, object]:
    nodes = rules.decision.nodes if rules.decision else {}
    if node not in nodes:
        hint = nearest(node, list(nodes)) or f" Known: {', '.join(nodes) or 'none'}."
        raise InputError(f"line {number}: {rules.id} has no node '{node}'.{hint}")
    reading = read_symbol(text, nodes[node])
    return {"reading": reading.kind, "symbol": reading.symbol, "words": list(reading.words)}


def check_rule_set(name: str, data: Path | None) -> dict[str, object]:
    """What a sound rule set rules, in figures.

    Raises: InputError with every fault of the rules or, with ``data``, of the labels in its records.
    """
    rules = load_rule_set(name)
    found: dict[str, object] = {"rule_set": rules.id, "findings": len(rules.findings)}
    if rules.staging is not None:
        found["scales"] = {name: scale.names for name, scale in rules.staging.scales.items()}
    if rules.decision is not None:
        found |= {
            "nodes": list(rules.decision.nodes),
            "classes": list(rules.decision.paths),
            "valid_tuples": len(rules.decision.tuples) if rules.decision.tuples is not None else None,
            "all_tuples": space_size(rules.decision.domains),
        }
    if data is not None:
        found["records"] = _checked_labels(rules, data)
    return found


def _checked_labels(rules: RuleSet, data: Path) -> int:
    if rules.decision is None:
        raise InputError(f"{rules.id} has no decision section, so it allows and forbids no labels.")
    from data_builders.sources.images.labelled import label_records

    records = list[tuple[str, Evidence]]()
    for number, row in enumerate(label_records(data), start=1):
        if not isinstance(row, dict):
            why = row if isinstance(row, str) else f"expected an object, got {type(row).__name__}"
            raise InputError(f"{data}: record {number}: {why.rstrip('.')}.")
        records.append((str(row.get("id") or f"record {number}"), row))
    if not records:
        raise InputError(f"{data}: holds no record. Write one a line, with an `id` and label columns.")
    faults = label_faults(rules.decision, records)
    if faults:
        raise InputError("\n".join(f"{data}: {fault}" for fault in faults))
    return len(records)
