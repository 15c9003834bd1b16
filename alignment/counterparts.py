"""Answers of named models to a data set's prompts, asked once: the pool that CRPO compares with.

A model is a local VLM (a run's folder, a hub name) or an endpoint (a YAML file that holds an ``LlmSpec``). Answers are
kept by content beside the output as they come, so a killed run goes on and a second one asks nothing.
"""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Image as ImageFeature
from datasets import List, Value
from rich.progress import track

from alignment.engine import is_main_process, wait_for
from alignment.generation import generate
from alignment.models import load_for_inference, model_folder
from alignment.recipe import Chain, Stage, columns_of, parquet
from alignment.reward_functions import local_backend
from alignment.row_cache import borrowed_rows
from data_builders.digest import sha256
from data_builders.locks import only_one
from data_builders.output_folders import check_file, unfinished
from data_builders.row_checks import Check, check_rows
from rewards.cases import cases, image_bytes, prompt_text
from rewards.judge_spec import JudgeSpec, open_judge
from rewards.llm import Completion, LlmClient, ask
from rewards.llm_cache import ReplyCache
from rewards.llm_spec import LlmSpec, open_llm
from rewards.overrides import Override, with_overrides
from rewards.strict_yaml import InputError, nearest, read_yaml, validated
from rewards.tally import Tally
from rewards.tournament import tournament

COLUMN = List({"model": Value("string"), "text": Value("string")})
CHUNK = 8
DAY_S = 86_400


def write_counterparts(
    data: str,
    out: str,
    models: dict[str, str],
    *,
    tasks: list[str] | None = None,
    limit: int | None = None,
    max_new_tokens: int = 96,
    batch_size: int = 64,
) -> dict[str, Any]:
    """Writes the rows of ``data`` with a column ``counterparts`` to ``out``; says how many answers each model gave.

    ``models``: by the name that recipes use for them. ``tasks``: only rows of these. A row that an endpoint failed on
    lacks that model's answer, and is counted. Raises: InputError if a model or the data are not there, or a model
    answered nothing.
    """
    file, target = parquet(data), Path(out) if out.endswith(".parquet") else Path(f"{out}.parquet")
    check_file(target, kinds=(".parquet",), inputs=[file])
    _refuse_rows_of_others(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    check_rows(file, Check(("id", "images", "prompt", *(("task",) if tasks else ()))))
    with only_one(target), borrowed_rows(file, target.with_suffix(".rows")) as every:
        rows = _asked_rows(every, data, tasks, limit)
        return _write_pool(data, rows, target, models, max_new_tokens, batch_size)


def _asked_rows(rows: Any, data: str, tasks: list[str] | None, limit: int | None) -> Any:
    """The rows of the wanted tasks, at most ``limit`` of them.

    Raises: InputError if a task has none, or none are left.
    """
    if unknown := sorted({*(tasks or ())} - {*rows["task"]}) if tasks else []:
        known = sorted({*rows["task"]})
        raise InputError(
            f"{data}: no rows of task {unknown[0]}.{nearest(unknown[0], known)} There: {', '.join(known)}."
        )
    if tasks:
        rows = rows.select([k for k, task in enumerate(rows["task"]) if task in tasks])
    rows = rows.select(range(min(limit, len(rows)))) if limit else rows
    if not len(rows):
        raise InputError(f"{data}: no rows to answer.")
    return rows


def _refuse_rows_of_others(target: Path) -> None:
    """Raises: InputError if what would be replaced is no pool."""
    if target.is_file() and "counterparts" not in columns_of(str(target)):
        raise InputError(f"{target}: holds rows that are no pool of answers and is not replaced. Name another output.")


def _write_pool(
    data: str, rows: Any, target: Path, models: dict[str, str], max_new_tokens: int, batch_size: int
) -> dict[str, Any]:
    cache = ReplyCache(target.with_suffix(".counterparts.jsonl"))
    pool: list[list[dict[str, str]]] = [[] for _ in range(len(rows))]
    card: dict[str, Any] = {"data": data, "rows": len(rows), "max_new_tokens": max_new_tokens, "models": {}}
    for name, path in models.items():
        version, answers = _answers(path, rows, cache, max_new_tokens, batch_size)
        if all(answer is None for answer in answers):
            raise InputError(
                f"--model {name}={path}: answered none of {len(rows)} rows. Check that the endpoint works."
            )
        card["models"][name] = {"path": path, "version": version, "answers": sum(a is not None for a in answers)}
        for own, answer in zip(pool, answers, strict=True):
            own.extend([{"model": name, "text": answer}] if answer is not None else [])
    _write(rows, pool, target)
    target.with_suffix(".counterparts.json").write_text(json.dumps(card, indent=2), encoding="utf-8")
    return {"written": str(target), **card}


def pool_of_stage(chain: Chain, stage: Stage, file: Path, wiring: list[Override]) -> str:
    """The data entry that holds the stage's training rows with the answers of its ``counterparts``; made once."""
    section = with_overrides(read_yaml(file), [*wiring, *stage.overrides])["data"]
    out = f"{chain.output}/{stage.name}_pool/align"
    card = Path(f"{out}.counterparts.json")
    if not is_main_process():
        wait_for(card, limit_s=DAY_S)
    elif not card.is_file():
        models = {name: f"{chain.output}/{name}" for name in stage.counterparts}
        write_counterparts(section["train"], out, models, tasks=section.get("tasks"), limit=section.get("limit"))
    return out


def _write(rows: Any, pool: list[list[dict[str, str]]], target: Path) -> None:
    """The rows with their pool, whole or not at all."""
    if "counterparts" in rows.column_names:
        rows = rows.remove_columns("counterparts")
    raw = rows.cast_column("images", List(ImageFeature(decode=False)))
    scratch = unfinished(target)
    raw.add_column("counterparts", pool, feature=COLUMN).cast_column("images", List(ImageFeature())).to_parquet(scratch)
    scratch.replace(target)


def _answers(
    path: str, rows: Any, cache: ReplyCache, max_new_tokens: int, batch_size: int
) -> tuple[str, list[str | None]]:
    """The model's version and its answer to each row; None where an endpoint failed."""
    if path.endswith((".yaml", ".yml")):
        spec = validated(LlmSpec, read_yaml(Path(path)), where=Path(path))
        return spec.model, _from_endpoint(open_llm(spec, local=local_backend), rows, max_new_tokens)
    version = weights_version(path)
    keys = list(_keys(version, rows, max_new_tokens))
    missing = [k for k, key in enumerate(keys) if cache.get(key) is None]
    if missing:
        model, processor = load_for_inference(path)
        size = CHUNK * batch_size
        for start in track(range(0, len(missing), size), description=f"answers of {path}"):
            chunk = missing[start : start + size]
            texts = generate(
                model, processor, [rows[k] for k in chunk], max_new_tokens=max_new_tokens, batch_size=batch_size
            )
            for k, (text,) in zip(chunk, texts, strict=True):
                cache.put(keys[k], {"text": text})
    kept = [cache.get(key) for key in keys]
    return version, [entry["text"] if entry else None for entry in kept]


def _from_endpoint(client: LlmClient, rows: Any, max_new_tokens: int) -> list[str | None]:
    requests = [
        ask(
            prompt_text(row["prompt"]),
            images=tuple(image_bytes(image) for image in row["images"]),
            max_tokens=max_new_tokens,
            version="counterpart",
        )
        for row in rows
    ]
    replies = asyncio.run(client.complete(requests))
    return [reply.text if isinstance(reply, Completion) else None for reply in replies]


def weights_version(path: str) -> str:
    """SHA-256 over the weights and adapters of a folder; a hub name as it is.

    Raises: InputError if ``path`` is a folder without a checkpoint.
    """
    folder = Path(model_folder(path))
    if not folder.is_dir():
        return path
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*config.json")]):
        digest.update(bytes.fromhex(sha256(file)))
    return digest.hexdigest()


def _keys(version: str, rows: Any, max_new_tokens: int) -> Iterator[str]:
    """A content hash for each row: model, limit, prompt and the bytes of the images."""
    raw = rows.cast_column("images", List(ImageFeature(decode=False)))
    for row in raw:
        digest = hashlib.sha256(json.dumps([version, max_new_tokens, row["prompt"]], sort_keys=True).encode())
        for image in row["images"]:
            digest.update(hashlib.sha256(image["bytes"]).digest())
        yield digest.hexdigest()


def pool_tournament(
    pool: str, *, judge: str = "facts", models: list[str] | None = None, trained_against: list[str] | None = None
) -> dict[str, Any]:
    """Win rates and ratings between the models of a pool, as the command line shows them.

    ``judge``: ``facts`` or a YAML file that holds a ``JudgeSpec``. Raises: InputError as ``tournament`` does, and where
    the judge decided nothing.
    """
    columns = ["prompt", "counterparts", "facts" if judge == "facts" else "images"]
    check_rows(parquet(pool), Check(("prompt",)))
    if lacking := [column for column in columns if column not in columns_of(pool)]:
        raise InputError(f"{pool}: no column {', '.join(lacking)}. A pool is written with: clinalign counterparts.")
    spec = "facts" if judge == "facts" else validated(JudgeSpec, read_yaml(Path(judge)), where=Path(judge))
    opened = open_judge(spec, local=local_backend)
    content = pq.read_table(parquet(pool), columns=columns).to_pydict()
    found = asyncio.run(
        tournament(
            opened, cases(content), content["counterparts"], models=models, trained_against=trained_against or []
        )
    )
    if not found.elo:
        games = sum(own.failed for own in found.tallies.values())
        cure = "facts knows rows with facts and a rule set" if judge == "facts" else "its replies may be unreadable"
        raise InputError(f"{pool}: judge {judge} decided none of {games} comparisons; {cure}.")
    tallies = {f"{a} against {b}": _figures(own) for (a, b), own in found.tallies.items()}
    elo = {name: [round(v, 1) for v in (r.value, r.low, r.high)] for name, r in found.elo.items()}
    return {
        "rows": len(content["prompt"]), "judge": judge, "tallies": tallies, "elo (95 % interval)": elo,
        "position_bias": round(found.position_bias[0], 4), "intransitive_share": found.intransitive,
    }  # fmt: skip


def _figures(own: Tally) -> dict[str, Any]:
    score, low, high = (round(v, 4) for v in own.score)
    return {**asdict(own), "win_rate": round(own.win_rate, 4), "score": score, "interval": [low, high]}
