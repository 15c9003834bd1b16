"""Answers of named models to a data set's prompts, asked once: the pool that CRPO compares with.

A model is a local VLM (a run's folder, a hub name) or an endpoint (a YAML file that holds an ``LlmSpec``). Answers are
kept by content beside the output as they come, so a killed run goes on and a second one asks nothing. Ranks share out
the batches of a local model; rank 0 alone keeps answers, asks endpoints and writes.
"""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Image as ImageFeature
from datasets import List, Value
from rich.progress import track

from alignment.config.chain import Chain, Stage
from alignment.config.checkpoint_folders import model_folder
from alignment.config.data_entries import columns_of, parquet
from alignment.data.row_cache import borrowed_rows
from alignment.distributed.processes import is_main_process
from alignment.distributed.ranks import agreed, alone_at, from_all, over_ranks
from alignment.distributed.shared_folder import check_shared
from alignment.models.generation import generate, like_batches
from alignment.models.loading import load_for_inference
from alignment.reward_functions.adapter import local_backend
from data_builders.cards import POOL, RULES, rules_of_rows
from data_builders.digest import sha256
from data_builders.entries import file_of_entry
from data_builders.output_folders import check_file, unfinished
from data_builders.row_checks import Check, check_rows
from rewards.config.input_error import InputError, nearest
from rewards.config.overrides import Override, with_overrides
from rewards.config.strict_yaml import read_yaml, validated
from rewards.judges.cases import cases, image_bytes, prompt_text
from rewards.judges.judge_spec import JudgeSpec, open_judge
from rewards.llm.client import Completion, LlmClient, ask
from rewards.llm.reply_cache import ReplyCache
from rewards.llm.spec import LlmSpec, open_llm
from rewards.ratings.tally import Tally
from rewards.ratings.tournament import tournament
from rewards.rules.kept_files import keep
from rewards.rules.known_files import KEPT, KnownFile

COLUMN = List({"model": Value("string"), "text": Value("string")})


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
    target = file_of_entry(out)
    file = agreed(lambda: _checked(data, target, needed=["task"] if tasks else []))
    with alone_at(target):
        check_shared(target.with_suffix(".rows"))  # where the rows are borrowed from
        with borrowed_rows(file, target.with_suffix(".rows")) as every:
            rows = agreed(lambda: _task_rows(every, data, tasks, limit))
            pool = _Pool(rows, target, max_new_tokens, batch_size)
            card = {
                "data": data,
                "rows": len(rows),
                "max_new_tokens": max_new_tokens,
                "models": pool.answer_counts(models),
            }
            if is_main_process():
                pool.write(card, rules_of_rows(file))
            return from_all({"written": str(target), **card})[0]  # once rank 0 has written


def _checked(data: str, target: Path, *, needed: list[str]) -> Path:
    """The file of the rows. Rank 0 looks at every one of them, and at what would be replaced.

    Raises: InputError as ``write_counterparts`` does.
    """
    file = parquet(data)
    if is_main_process():
        check_file(target, kinds=(".parquet",), inputs=[file])
        _refuse_rows_of_others(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        check_rows(file, Check(("id", "images", "prompt", *needed)))
    return file


def _task_rows(rows: Any, data: str, tasks: list[str] | None, limit: int | None) -> Any:
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


@dataclass
class _Pool:
    """The rows that are answered, and the answers so far: of each row those of every model; in rank 0 alone."""

    rows: Any
    target: Path
    max_new_tokens: int
    batch_size: int

    def __post_init__(self) -> None:
        self.answers: list[list[dict[str, str]]] = [[] for _ in range(len(self.rows))]

    def answer_counts(self, models: dict[str, str]) -> dict[str, Any]:
        """What the card says of each model, once all have answered.

        Raises: InputError if a model answered nothing.
        """
        return {name: self._answered(name, path) for name, path in models.items()}

    def _answered(self, name: str, path: str) -> dict[str, Any]:
        version, answers = self._of_endpoint(path) if path.endswith((".yaml", ".yml")) else self._of_model(path)
        if is_main_process() and all(answer is None for answer in answers):
            raise InputError(
                f"--model {name}={path}: answered none of {len(self.rows)} rows. Check that the endpoint works."
            )
        for row_answers, answer in zip(self.answers, answers, strict=True):
            row_answers.extend([{"model": name, "text": answer}] if answer is not None else [])
        return {"path": path, "version": version, "answers": sum(a is not None for a in answers)}

    def _of_endpoint(self, path: str) -> tuple[str, list[str | None]]:
        """The model's version and its answers, for which rank 0 alone asks; None where it failed."""
        spec = agreed(lambda: validated(LlmSpec, read_yaml(Path(path)), where=Path(path)))
        if not is_main_process():
            return spec.model, [None] * len(self.rows)
        return spec.model, _from_endpoint(open_llm(spec, local=local_backend), self.rows, self.max_new_tokens)

    def _of_model(self, path: str) -> tuple[str, list[str | None]]:
        """The model's version and its answers; those that rank 0 has kept are not asked for again."""
        version = weights_version(path) if is_main_process() else ""
        cache = ReplyCache(self.target.with_suffix(".counterparts.jsonl")) if is_main_process() else None
        keys = list(_keys(version, self.rows, self.max_new_tokens)) if cache else []
        batches = from_all(self._missing(keys, cache) if cache else None)[0]
        if batches:
            model, processor = agreed(lambda: load_for_inference(path))

            def texts(batch: list[int]) -> list[list[str]]:
                rows = [self.rows[k] for k in batch]
                return generate(model, processor, rows, max_new_tokens=self.max_new_tokens, batch_size=len(batch))

            done = over_ranks(batches, texts)
            bar = {"description": f"answers of {path}", "disable": not is_main_process()}
            for batch, responses in track(done, total=len(batches), **bar):
                for k, (text,) in zip(batch, responses, strict=True):
                    if cache:
                        cache.put(keys[k], {"text": text})
        kept = [cache.get(key) for key in keys] if cache else [None] * len(self.rows)
        return version, [entry["text"] if entry else None for entry in kept]

    def _missing(self, keys: list[str], cache: ReplyCache) -> list[list[int]]:
        """Batches of the rows that are not answered yet, with images and without."""
        left = [k for k, key in enumerate(keys) if cache.get(key) is None]
        raw = self.rows.cast_column("images", List(ImageFeature(decode=False))) if left else []
        shown = [{"images": bool(raw[k]["images"])} for k in left]
        return [[left[n] for n in batch] for batch, _ in like_batches(shown, self.max_new_tokens, self.batch_size)]

    def write(self, card: dict[str, Any], rules: dict[str, KnownFile]) -> None:
        """The rows with their pool, whole or not at all; beside them the rule sets that they name, and the card."""
        rows = self.rows
        if "counterparts" in rows.column_names:
            rows = rows.remove_columns("counterparts")
        raw = rows.cast_column("images", List(ImageFeature(decode=False))).add_column(
            "counterparts", self.answers, feature=COLUMN
        )
        scratch = unfinished(self.target)
        raw.cast_column("images", List(ImageFeature())).to_parquet(scratch)
        scratch.replace(self.target)
        kept = keep(self.target.parent, {name: file for name, file in rules.items() if name.startswith(KEPT)})
        content = card | ({RULES: kept} if kept else {})
        self.target.with_suffix(POOL).write_text(json.dumps(content, indent=2), encoding="utf-8")


def pool_of_stage(chain: Chain, stage: Stage, file: Path, wiring: list[Override]) -> str:
    """The data entry that holds the stage's training rows with the answers of its ``counterparts``; made once."""
    section = with_overrides(read_yaml(file), [*wiring, *stage.overrides])["data"]
    out = f"{chain.output}/{stage.name}_pool/align"
    if not from_all(Path(f"{out}.counterparts.json").is_file())[0]:
        models = {name: f"{chain.output}/{name}" for name in stage.counterparts}
        write_counterparts(section["train"], out, models, tasks=section.get("tasks"), limit=section.get("limit"))
    return out


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
        games = sum(tally.failed for tally in found.tallies.values())
        cure = "facts knows rows with facts and a rule set" if judge == "facts" else "its replies may be unreadable"
        raise InputError(f"{pool}: judge {judge} decided none of {games} comparisons; {cure}.")
    tallies = {f"{a} against {b}": _figures(tally) for (a, b), tally in found.tallies.items()}
    elo = {name: [round(v, 1) for v in (r.value, r.low, r.high)] for name, r in found.elo.items()}
    return {
        "rows": len(content["prompt"]),
        "judge": judge,
        "tallies": tallies,
        "elo (95 % interval)": elo,
        "position_bias": round(found.position_bias[0], 4),
        "intransitive_share": found.intransitive,
    }


def _figures(tally: Tally) -> dict[str, Any]:
    score, low, high = (round(v, 4) for v in tally.score)
    return {**asdict(tally), "win_rate": round(tally.win_rate, 4), "score": score, "interval": [low, high]}
