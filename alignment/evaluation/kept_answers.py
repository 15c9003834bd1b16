"""Answers of an evaluation, kept as they come: an interrupted one goes on, and its figures are those of a whole one.

They lie in ``answers.unfinished.jsonl`` beside the results until these are written, under what they depend on: model,
data and settings. Others are begun anew. The probe of ``blindness.py`` keeps its own there too. Of several ranks only
rank 0 reads and writes the file; what is kept it tells the others, which need not see its disk.
"""

import copy
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from alignment.distributed.processes import is_main_process
from alignment.distributed.ranks import agreed, from_all
from alignment.evaluation.controls import Response
from alignment.metrics.evaluated_row import EvaluatedRow
from data_builders.output_folders import check_writable
from rewards.config.input_error import InputError
from rewards.llm.reply_cache import AppendLog

FILE = "answers.unfinished.jsonl"
RESULTS = ("answers.jsonl", "report.html", "pictures", "blindness.json")
Indices = Sequence[int]
logger = logging.getLogger(__name__)


class _KeptBatch(TypedDict):
    """A line of the file behind its first one."""

    condition: str
    places: list[int]
    answers: list[Any]


class KeptAnswers:
    """The answers of one evaluation by condition and index of the row; the same in every rank."""

    def __init__(self, out: Path, settings: Mapping[str, object]) -> None:
        self.file, self._answers, self._of = out / FILE, dict[str, dict[int, Any]](), ""
        for line in from_all(agreed(lambda: self._opened(settings)))[0]:
            self._enter(line["condition"], line["places"], line["answers"])
        if self._answers and is_main_process():
            logger.warning("%s: goes on; %s.", out, self)

    def _opened(self, settings: Mapping[str, object]) -> list[_KeptBatch]:
        """What the file holds of an evaluation with these settings; begun where there is none. Read by rank 0 alone."""
        if not is_main_process():
            return []
        content = [*AppendLog(self.file).unread()]
        if content and content[0].get("settings") != settings:
            logger.warning("%s: of another model, data or settings; all rows are asked anew.", self.file)
            self.file.unlink()
            content = []
        self._log = AppendLog(self.file)
        if not content:
            self._log.append({"settings": dict(settings)})
        return cast(list[_KeptBatch], content[1:])

    def under(self, name: str) -> "KeptAnswers":
        """The same file for other questions, told apart by this name."""
        others = copy.copy(self)
        others._of = f" ({name})"
        return others

    def _enter(self, condition: str, indices: Indices, answers: Sequence[Any]) -> None:
        self._answers.setdefault(condition, {}).update(zip(indices, answers, strict=True))

    def of(self, condition: str, indices: Indices) -> list[Any] | None:
        """The answers of a batch, as JSON has them; None if it has not been answered."""
        kept = self._answers.get(condition + self._of, {})
        return [kept[index] for index in indices] if kept.keys() >= set(indices) else None

    def keep(self, condition: str, indices: Indices, answers: Sequence[Response] | Sequence[tuple[float, int]]) -> None:
        """Writes the answers of a batch; they are on rank 0's disk after this."""
        name = condition + self._of
        if is_main_process():
            self._log.append({"condition": name, "places": list(indices), "answers": list(answers)})
        self._enter(name, indices, answers)

    def remove(self) -> None:
        """To be called once the results are written."""
        for file in (self.file, Path(f"{self.file}.lock")) if is_main_process() else ():
            file.unlink(missing_ok=True)

    def __str__(self) -> str:
        """What is kept, in a sentence.

        Empty conditions are not named.
        """
        counts = ", ".join(f"{len(kept)} {condition}" for condition, kept in self._answers.items())
        return f"answers kept in {self.file}: {counts or 'none'}"


def check_out(out: Path) -> None:
    """Checks the folder of an evaluation before anything is asked.

    Raises: InputError if it cannot be, or holds results that are no evaluation's.
    """
    others = [name for name in RESULTS if (out / name).exists()]
    if others and not any((out / name).is_file() for name in ("evaluation.json", FILE)):
        raise InputError(
            f"{out}: holds {others[0]} but no evaluation.json, so it is no evaluation and is not replaced. "
            "Name another --out."
        )
    check_writable(out)


def evaluation_folder(run: str) -> Path:
    """Where a model's evaluation goes by default: into a run's folder, else into one of ours (``beside``).

    Raises: InputError if there is no such run.
    """
    from alignment.config.checkpoint_folders import model_folder

    model_folder(run)
    return beside(run) / "evaluation" if is_run(run) else beside(run)


def is_run(run: str) -> bool:
    """Whether this names the folder of a run of ours, rather than a release, another model's folder or a hub name."""
    return (Path(run) / "recipe.resolved.yaml").is_file()


def beside(run: str) -> Path:
    """What an evaluation of a model lies in or beside: its run's folder, else a folder of ours under its name.

    Nothing is written into a release or into a model's folder of others: rows of patients would go along with it.

    >>> beside("Qwen/Qwen2.5-VL-7B-Instruct").as_posix()
    'evaluations/Qwen--Qwen2.5-VL-7B-Instruct'
    """
    name = run.strip("./").replace("/", "--") or Path(run).resolve().name
    return Path(run) if is_run(run) else Path("evaluations") / name


def is_finished(out: Path) -> bool:
    """Whether an evaluation was made there to its end."""
    return (out / "evaluation.json").is_file() and not (out / FILE).exists()


def weights_stamp(*paths: str) -> list[list[str | int]]:
    """Name, size and time of every file of weights and settings in these folders (or in a run's ``model``)."""
    folders = [folder for path in dict.fromkeys(paths) for folder in (Path(path) / "model", Path(path))]
    files = [file for folder in folders for kind in ("*.safetensors", "*.json") for file in sorted(folder.glob(kind))]
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def rows_digest(rows: Sequence[EvaluatedRow]) -> str:
    """SHA-256 of the rows' ids in their order."""
    return hashlib.sha256(json.dumps([row["id"] for row in rows]).encode()).hexdigest()
