"""Which rows each step of a run has seen: written as it trains, cut back when it resumes, and proved afterwards.

``ledger/rankR.jsonl`` has a line a step: ``step``, ``epoch``, ``rows`` (ids, one list a micro-batch), ``loss`` (summed
over micro-batches, as this process saw it), ``rss_mib`` and ``held_mib`` (``resident_memory.py``), and ``seconds``
since the last line. ``ledger/epochE.json`` has the ids in the order in which the epoch is to be seen;
``ledger/plan.json`` what one row's share of it is, and where the run went on under another number of processes.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypedDict, cast

from pydantic import TypeAdapter, ValidationError

from alignment.resuming.checkpoints import write_whole
from alignment.resuming.resident_memory import resident_mib
from rewards.config.input_error import InputError
from rewards.config.json_lines import json_value, read_json, read_json_lines, read_json_list

DAMAGED = "Add --fresh to train anew."


@dataclass(frozen=True)
class Stretch:
    """The steps up to ``step`` that so many processes made."""

    step: int
    processes: int


@dataclass(frozen=True)
class Plan:
    """``chunk`` rows are seen together, each ``per_row`` times (GRPO: answers x iterations), before the next ones.

    ``before``: the stretches that other numbers of processes made, in the order of their steps.
    """

    processes: int
    chunk: int = 1
    per_row: int = 1
    before: list[Stretch] = field(default_factory=list)

    def processes_at(self, step: int) -> int:
        """How many processes made a step."""
        return next((part.processes for part in self.before if step <= part.step), self.processes)

    def goes_on_under(self, processes: int, step: int) -> list[Stretch]:
        """``before`` of the plan of a run that goes on from ``step`` under so many processes."""
        made = [part for part in self.before if part.step < step]
        made += [Stretch(step, self.processes_at(step))] if step else []
        return made[:-1] if made and made[-1].processes == processes else made


class LedgerLine(TypedDict):
    """A step as one process did it; ``rows``: the ids of each micro-batch."""

    step: int
    epoch: int
    rows: list[list[str]]
    loss: float
    seconds: float
    rss_mib: float
    held_mib: float


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

    def cut_back_others(self, step: int, processes: int) -> None:
        """Does so with the pages of ranks that there are no longer; those of which nothing is left go."""
        for file in self.folder.glob("rank*.jsonl"):
            if (rank := int(file.stem[4:])) >= processes:
                Ledger(self.folder, rank).cut_back(step)
                if not file.stat().st_size:
                    file.unlink()

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
            "step": step,
            "epoch": epoch,
            "rows": self._rows,
            "loss": self._loss,
            **resident_mib(),
            "seconds": round(now - self._since, 4),
        }
        with self.file.open("a", encoding="utf-8") as opened:
            opened.write(json.dumps(line) + "\n")
        self._rows, self._loss, self._since = [], 0.0, now

    def plan(self, plan: Plan) -> None:
        """Writes what a row's share is."""
        write_whole(self.folder / "plan.json", json.dumps(asdict(plan)))

    def planned(self) -> Plan | None:
        """What was written last; None where nothing was."""
        file = self.folder / "plan.json"
        return read_plan(self.folder) if file.is_file() else None

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


def read_plan(folder: Path) -> Plan:
    """The plan in a run's ledger folder.

    Raises: InputError if it is none.
    """
    file = folder / "plan.json"
    content = read_json(file, DAMAGED)
    try:
        return TypeAdapter(Plan).validate_python(content)
    except ValidationError as fault:
        raise InputError(f"{file}: is no plan of a ledger. {DAMAGED}") from fault


def read_lines(folder: Path) -> list[list[LedgerLine]]:
    """The lines of each process of a run's ledger folder.

    Raises: InputError if there is none.
    """
    files = sorted(folder.glob("rank*.jsonl"), key=lambda file: int(file.stem[4:]))
    if not files or not (folder / "plan.json").is_file():
        raise InputError(f"{folder}: holds no ledger. `clinalign train` writes one for sft, dpo and grpo.")
    return [cast(list[LedgerLine], read_json_lines(file, DAMAGED)) for file in files]


def proof(run: Path) -> dict[str, int]:
    """What a run's ledger shows: steps, rows skipped and repeated against the plan, steps missing or done twice.

    ``filled_up``: rows seen again because the last batch of an epoch must be full on every process. Where the run went
    on under another number of processes, also how often (``inexact_resumes``), and of how many rows that cannot be
    proved: those of a generation batch that was begun by the one and made anew by the others (``rows_made_anew``).
    """
    folder = run / "ledger"
    ranks = read_lines(folder)
    plan = read_plan(folder)
    counts = Counter(line["step"] for lines in ranks for line in lines)
    last = max(counts, default=0)
    wrong = sum(abs(counts[step] - plan.processes_at(step)) for step in range(1, last + 1))
    result = {"steps": last, "processes": plan.processes, "steps_missing_or_twice": wrong}
    found, cuts = Counter[str](), _Cuts(plan)
    for epoch, seen in _seen_by_epoch(ranks, cuts).items():
        planned = read_json_list(folder / f"epoch{epoch}.json", DAMAGED)
        found.update(_differences(seen, planned, plan, cuts.chunks(epoch)))
        found["rows_seen"] += len(seen)
    shown = ("rows_seen", "rows_skipped", "rows_repeated", "filled_up")
    result |= {name: found[name] for name in shown}
    if plan.before:
        result |= {"inexact_resumes": len(plan.before), "rows_made_anew": found["rows_made_anew"]}
    return result


class _Cuts:
    """Where a run went on under another number of processes, in rows of the epoch that it was in."""

    def __init__(self, plan: Plan) -> None:
        self.steps, self.size = {part.step for part in plan.before}, plan.chunk * plan.per_row
        self._found: dict[int, set[int]] = {}

    def note(self, step: int, epoch: int, num_rows: int) -> None:
        """Takes in how many rows of the epoch were seen after a step."""
        if step in self.steps and num_rows % self.size:
            self._found.setdefault(epoch, set()).add(num_rows // self.size)

    def chunks(self, epoch: int) -> set[int]:
        """The chunks of an epoch that were cut in two."""
        return self._found.get(epoch, set())


def _seen_by_epoch(ranks: list[list[LedgerLine]], cuts: _Cuts) -> dict[int, list[str]]:
    """The ids of each epoch in the order of the sampler: step, micro-batch, process."""
    by_step: dict[int, list[LedgerLine]] = {}
    for line in (line for lines in ranks for line in lines):
        by_step.setdefault(line["step"], []).append(line)
    seen: dict[int, list[str]] = {}
    for step, lines in sorted(by_step.items()):
        rows = seen.setdefault(lines[0]["epoch"], [])
        for batches in zip(*(line["rows"] for line in lines), strict=False):
            rows.extend(row for batch in batches for row in batch)
        cuts.note(step, lines[0]["epoch"], len(rows))
    return seen


def _differences(seen: list[str], planned: list[str], plan: Plan, cut: set[int]) -> Counter[str]:
    """What is wrong in one epoch, chunk by chunk; in an unfinished one only repeats show, in a ``cut`` one nothing."""
    found, whole = Counter[str](), len(planned) * plan.per_row
    for k, (want, got, complete) in enumerate(_chunks(seen[:whole], planned, plan)):
        if k in cut:
            found["rows_made_anew"] += len(want)
            continue
        found["rows_skipped"] += (want - got).total() if complete else 0
        found["rows_repeated"] += (got - want).total()
    found["filled_up"] = max(0, len(seen) - whole)
    return found


def _chunks(seen: list[str], planned: list[str], plan: Plan) -> Iterator[tuple[Counter[str], Counter[str], bool]]:
    size = plan.chunk * plan.per_row
    for k in range(0, len(seen), size):
        rows = planned[k // plan.per_row : k // plan.per_row + plan.chunk]
        got = seen[k : k + size]
        yield Counter({row: plan.per_row for row in rows}), Counter(got), len(got) == len(rows) * plan.per_row
