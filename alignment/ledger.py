"""Which rows each step of a run has seen: written as it trains, cut back when it resumes, and proved afterwards.

``ledger/rankR.jsonl`` has a line a step: ``step``, ``epoch``, ``rows`` (ids, one list a micro-batch), ``loss`` (summed
over micro-batches, as this process saw it), ``rss_mib`` and ``held_mib`` (``resident_memory.py``), and ``seconds``
since the last line. ``ledger/epochE.json`` has the ids in the order in which the epoch is to be seen;
``ledger/plan.json`` what one row's share of it is.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignment.checkpoints import write_whole
from alignment.resident_memory import resident_mib
from rewards.json_lines import json_value, read_json, read_json_lines, read_json_list
from rewards.strict_yaml import InputError

DAMAGED = "Add --fresh to train anew."


@dataclass(frozen=True)
class Plan:
    """``chunk`` rows are seen together, each ``per_row`` times (GRPO: answers x iterations), before the next ones."""

    processes: int
    chunk: int = 1
    per_row: int = 1


class Ledger:
    """One process' page of a run's ledger."""

    def __init__(self, folder: Path, rank: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.file = folder, folder / f"rank{rank}.jsonl"
        self._rows: list[list[str]] = []
        self._loss, self._since = 0.0, time.perf_counter()

    def cut_back(self, step: int) -> int:
        """Drops what comes after this step, a half-written last line among it; how many steps that were."""
        kept, dropped = [], 0
        for line in self.file.read_text(encoding="utf-8").splitlines(keepends=True) if self.file.is_file() else []:
            if line.endswith("\n") and json_value(line, str(self.file), DAMAGED, strict=False)["step"] <= step:
                kept.append(line)
            else:
                dropped += 1
        write_whole(self.file, "".join(kept))
        return dropped

    def saw(self, rows: Sequence[str]) -> None:
        """Notes the rows of a micro-batch."""
        self._rows.append(list(rows))

    def add_loss(self, loss: float) -> None:
        """Adds a micro-batch's loss."""
        self._loss += loss

    def close_step(self, step: int, epoch: int) -> None:
        """Writes the line of a step."""
        now = time.perf_counter()
        line = {
            "step": step, "epoch": epoch, "rows": self._rows, "loss": self._loss,
            **resident_mib(), "seconds": round(now - self._since, 4),
        }  # fmt: skip
        with self.file.open("a", encoding="utf-8") as opened:
            opened.write(json.dumps(line) + "\n")
        self._rows, self._loss, self._since = [], 0.0, now

    def plan(self, plan: Plan) -> None:
        """Writes what a row's share is."""
        write_whole(self.folder / "plan.json", json.dumps(asdict(plan)))

    def plan_epoch(self, epoch: int, rows: Sequence[str]) -> None:
        """Writes the order of an epoch.

        Raises: InputError if the epoch was begun in another order: data or settings are not what they were.
        """
        file = self.folder / f"epoch{epoch}.json"
        if file.is_file() and read_json_list(file, DAMAGED) != list(rows):
            raise InputError(
                f"{file}: this epoch was begun with other rows or another order. Put the data back as they were, "
                "or add --fresh to begin anew."
            )
        write_whole(file, json.dumps(list(rows)))


def read_lines(folder: Path) -> list[list[dict[str, Any]]]:
    """The lines of each process of a run's ledger folder.

    Raises: InputError if there is none.
    """
    files = sorted(folder.glob("rank*.jsonl"), key=lambda file: int(file.stem[4:]))
    if not files or not (folder / "plan.json").is_file():
        raise InputError(f"{folder}: holds no ledger. `clinalign train` writes one for sft, dpo and grpo.")
    return [read_json_lines(file, DAMAGED) for file in files]


def proof(run: Path) -> dict[str, int]:
    """What a run's ledger shows: steps, rows skipped and repeated against the plan, steps missing or done twice.

    ``filled_up``: rows seen again because the last batch of an epoch must be full on every process.
    """
    folder = run / "ledger"
    ranks = read_lines(folder)
    plan = Plan(**read_json(folder / "plan.json", DAMAGED))
    steps = [[line["step"] for line in lines] for lines in ranks]
    last = max(found[-1] for found in steps if found) if any(steps) else 0
    counts = Counter(step for found in steps for step in found)
    wrong = sum(abs(counts[step] - plan.processes) for step in range(1, last + 1))
    result = {"steps": last, "processes": len(ranks), "steps_missing_or_twice": wrong}
    skipped = repeated = filled = rows = 0
    for epoch, seen in _seen_by_epoch(ranks).items():
        planned = read_json_list(folder / f"epoch{epoch}.json", DAMAGED)
        found = _differences(seen, planned, plan)
        skipped, repeated, filled, rows = skipped + found[0], repeated + found[1], filled + found[2], rows + len(seen)
    return {**result, "rows_seen": rows, "rows_skipped": skipped, "rows_repeated": repeated, "filled_up": filled}


def _seen_by_epoch(ranks: list[list[dict[str, Any]]]) -> dict[int, list[str]]:
    """The ids of each epoch in the order of the sampler: step, micro-batch, process."""
    seen: dict[int, list[str]] = {}
    for lines in zip(*ranks, strict=False):
        for batches in zip(*(line["rows"] for line in lines), strict=False):
            seen.setdefault(lines[0]["epoch"], []).extend(row for batch in batches for row in batch)
    return seen


def _differences(seen: list[str], planned: list[str], plan: Plan) -> tuple[int, int, int]:
    """(skipped, repeated, filled up) of one epoch, chunk by chunk; in an unfinished chunk only repeats can show."""
    skipped = repeated = 0
    whole = len(planned) * plan.per_row
    for want, got, complete in _chunks(seen[:whole], planned, plan):
        skipped += (want - got).total() if complete else 0
        repeated += (got - want).total()
    return skipped, repeated, max(0, len(seen) - whole)


def _chunks(seen: list[str], planned: list[str], plan: Plan) -> Iterator[tuple[Counter[str], Counter[str], bool]]:
    size = plan.chunk * plan.per_row
    for k in range(0, len(seen), size):
        rows = planned[k // plan.per_row : k // plan.per_row + plan.chunk]
        got = seen[k : k + size]
        yield Counter({row: plan.per_row for row in rows}), Counter(got), len(got) == len(rows) * plan.per_row
