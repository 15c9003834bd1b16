"""A run that is killed again and again beside one that never was: their losses, their rows, and what memory does.

Both are ordinary runs of one recipe (`clinalign train`, under torchrun for several processes), watched through their
ledgers. Whoever is killed gets SIGKILL at a random step, wherever in it that falls: training, or writing a
checkpoint. Left out: machines that vanish from the network; torchrun ends such runs after its own time-out.
"""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import psutil

from alignment.resuming.checkpoints import MANIFEST, step_of
from alignment.resuming.ledger import LedgerLine, proof, read_lines
from alignment.resuming.resident_memory import memory
from data_builders.output_folders import recover, remove
from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json_lines
from rewards.config.overrides import written

POLL_S = 0.05
ENDS_S = 20.0
"""How long a run that is asked to end may write its checkpoint."""
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": str(128 * 2**10)}
"""glibc's own default, which it else raises: what is freed in blocks of this size goes back to the system at once.

Else the allocator keeps some 100 MiB of freed blocks, more or less from step to step, and would hide a leak.
"""
TIMED = (
    "step_time",
    "train_runtime",
    "train_samples_per_second",
    "train_steps_per_second",
    "train_loss",
    "time/reward_share",
)


@dataclass(frozen=True)
class Run:
    """How a run of the recipe is started, and where it writes."""

    recipe: Path
    overrides: list[str]
    folder: Path
    processes: int = 1

    @contextlib.contextmanager
    def started(self) -> "Generator[subprocess.Popen[str]]":
        """The started process, which ends with the block at the latest; what it says goes to ``log``."""
        process = self._start()
        try:
            yield process
        finally:
            end(process)

    def _start(self) -> "subprocess.Popen[str]":
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(self.processes)]
        command = [sys.executable, *(torchrun if self.processes > 1 else []), "-m", "alignment", "train"]
        env = {"OMP_NUM_THREADS": "1", **GIVES_BACK, **os.environ}
        with self.log.open("a", encoding="utf-8") as log:
            return subprocess.Popen(
                [*command, str(self.recipe), *self.overrides, written("output", str(self.folder))],
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    @property
    def log(self) -> Path:
        """Everything its processes said."""
        return self.folder.with_suffix(".log")

    def step(self) -> int:
        """The last step that its ledger holds; 0 before the first."""
        lines = _last_lines(self.folder / "ledger" / "rank0.jsonl")
        return max((int(found[1]) for line in lines if (found := re.match(r'\{"step": (\d+),', line))), default=0)


def _last_lines(file: Path, size: int = 1 << 18) -> list[str]:
    if not file.is_file():
        return []
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - size))
        return opened.read().decode(errors="replace").splitlines()


@dataclass
class Killing:
    """What the killed run went through. ``ends_s``: seconds from a kill until the whole run had ended."""

    kills: list[int] = field(default_factory=list[int])
    resumed_at: list[int] = field(default_factory=list[int])
    ends_s: list[float] = field(default_factory=list[float])


def soak(
    recipe: Path, overrides: list[str], *, folder: Path, steps: int, kills: int, processes: int = 1, seed: int = 0
) -> dict[str, object]:
    """Runs the recipe whole and killed ``kills`` times, and compares.

    Raises: InputError if a run ends by itself before it is done, with the last lines it said.
    """
    save = max(1, steps // 10)
    settings = [f"trainer.max_steps={steps}", f"trainer.save_steps={save}", "trainer.save_strategy=steps"]
    settings += ["trainer.logging_steps=1", "trainer.disable_tqdm=true", *overrides]
    recover(folder)
    remove(folder)
    folder.mkdir(parents=True)
    whole = Run(recipe, settings, folder / "whole", processes)
    broken = Run(recipe, settings, folder / "broken", processes)
    finish(whole)
    draw = random.Random(seed)
    gone_through = kill_again_and_again(broken, sorted(draw.sample(range(1, steps), min(kills, steps - 1))), draw)
    return compared(whole.folder, broken.folder, gone_through)


def finish(run: Run) -> None:
    """Runs it to its end.

    Raises: InputError if it fails.
    """
    with run.started() as process:
        code = process.wait()
    if code:
        raise InputError(f"soak: a run {ending(code)}; {run.log} ends with: {' / '.join(_last_lines(run.log)[-3:])}")


def kill_again_and_again(run: Run, at_steps: list[int], draw: random.Random) -> Killing:
    """Kills the run (one of its processes) when it reaches each of the steps, and then lets it finish."""
    found = Killing()
    for at in at_steps:
        with run.started() as process:
            if not _reaches(run, process, at):
                break
            since = time.perf_counter()
            _worker(process.pid, run.processes, draw).send_signal(signal.SIGKILL)
            process.wait()
        found.kills.append(run.step())
        found.ends_s.append(round(time.perf_counter() - since, 1))
        found.resumed_at.append(last_step_kept(run.folder))
    finish(run)
    return found


def _reaches(run: Run, process: "subprocess.Popen[str]", at: int) -> bool:
    """True once the run is at the step, and has done one; False where it ended before."""
    before = run.step()
    while process.poll() is None and (run.step() < at or run.step() == before):
        time.sleep(POLL_S)
    return process.poll() is None


def end(process: "subprocess.Popen[str]") -> None:
    """Ends a process that still runs, with all that it started: by SIGTERM, and by SIGKILL if that takes too long.

    It has a session of its own, so that a terminal's Ctrl-C does not come to it. A second one here kills it.
    """
    if process.poll() is not None:
        return
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    process.terminate()
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ENDS_S)
    finally:
        for left in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
        process.wait()
        psutil.wait_procs(family[1:], timeout=ENDS_S)


def _worker(pid: int, processes: int, draw: random.Random) -> psutil.Process:
    """The process to kill: the run's own, or one of its ranks."""
    if processes == 1:
        return psutil.Process(pid)
    ranks = [child for child in psutil.Process(pid).children() if "RANK" in _environment(child)]
    return draw.choice(ranks)


def _environment(process: psutil.Process) -> dict[str, str]:
    with contextlib.suppress(psutil.Error):
        return process.environ()
    return {}


def last_step_kept(folder: Path) -> int:
    """The step of the last checkpoint with a manifest: where the run goes on; 0 without one."""
    sealed = [file.parent for file in (folder / "checkpoints").glob(f"checkpoint-*/{MANIFEST}")]
    return max(map(step_of, sealed), default=0)


def ending(code: int) -> str:
    """How a process ended, in words.

    >>> ending(-9), ending(1), ending(0)
    ('was killed by SIGKILL', 'ended with exit code 1', 'ended well')
    """
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}" if code else "ended well"


def compared(whole: Path, broken: Path, killing: Killing) -> dict[str, object]:
    """The figures of a soak: losses and log entries that differ, the ledger's proof, memory growth of the whole run."""
    pairs = list(zip(read_lines(whole / "ledger"), read_lines(broken / "ledger"), strict=True))
    proved = proof(broken)
    return {
        "steps": proved["steps"],
        "kills": len(killing.kills),
        "resumes": len(killing.resumed_at),
        "killed_after_steps": killing.kills,
        "resumed_after_steps": killing.resumed_at,
        "slowest_end_after_a_kill_s": max(killing.ends_s, default=0.0),
        "differing_losses": sum(differing(one, other, "loss") for one, other in pairs),
        "differing_rows": sum(differing(one, other, "rows") for one, other in pairs),
        "differing_log_entries": differing_logs(whole, broken),
        **{name: proved[name] for name in ("rows_seen", "rows_skipped", "rows_repeated", "steps_missing_or_twice")},
        **memory([one for one, _ in pairs]),
        "ms_per_step": round(1000 * float(np.median([line["seconds"] for line in pairs[0][0]])), 1),
    }


def differing(one: Sequence[LedgerLine], other: Sequence[LedgerLine], key: Literal["loss", "rows"]) -> int:
    """Steps at which two ledgers say different things, bit for bit, or which only one of them has."""
    found, wanted = ({line["step"]: line[key] for line in lines} for lines in (one, other))
    return sum(found.get(step) != wanted.get(step) for step in found.keys() | wanted.keys())


def differing_logs(whole: Path, broken: Path) -> int:
    """Lines of ``log.jsonl`` that differ in anything but time."""
    one, other = (
        [{k: v for k, v in line.items() if k not in TIMED} for line in read_json_lines(log, "Soak again.")]
        for log in (whole / "log.jsonl", broken / "log.jsonl")
    )
    return sum(a != b for a, b in zip(one, other, strict=False)) + abs(len(one) - len(other))
