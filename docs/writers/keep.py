"""Keeps what a finished loop found, for an evidence page: ``make evidence LOOP=recipes/loops/X.yaml [SEEDS=3]``.

Run it on the machine that ran the loop, in the same checkout: commit, seeds and versions are read from the runs'
``provenance.json``, processor and memory from the machine. No path, user or host name is kept.
"""

import json
import os
import platform
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import yaml

from docs.writers.evidence import KEPT

Json = dict[str, Any]


def keep(loop: Path, seeds: int, kept: Path = KEPT) -> Path:
    """The folder in which the effects of a finished loop and what they were made by are kept.

    Raises: SystemExit, in a sentence, where the loop is not finished or its runs are of several commits.
    """
    loop = Path(os.path.relpath(loop))
    output = Path(yaml.safe_load(loop.read_text(encoding="utf-8"))["chain"]["output"])
    effects = output / (f"effects_{seeds}_seeds.json" if seeds > 1 else "effects.json")
    command = f"clinalign run {loop}" + (f" --seeds {seeds}" if seeds > 1 else "")
    if not effects.is_file():
        sys.exit(f"{effects}: no such file. Run it first: {command}")
    found = json.loads(effects.read_text(encoding="utf-8"))
    runs = output.glob("seed*/*/provenance.json" if seeds > 1 else "*/provenance.json")
    provenances = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(runs)]
    folder = kept / (loop.stem + (f"_{seeds}_seeds" if seeds > 1 else ""))
    made = {
        "name": folder.name,
        "title": _title(loop.read_text(encoding="utf-8")),
        "command": command,
        "commit": _commit(provenances, output),
        "day": datetime.fromtimestamp(effects.stat().st_mtime, UTC).date().isoformat(),
        "seeds": _seeds(loop, seeds),
        "machine": _machine(),
        "packages": provenances[0]["packages"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "effects.json", {name: value for name, value in found.items() if name != "output"})
    _write(folder / "made.json", made)
    return folder


def _title(loop: str) -> str:
    """The first words of a loop's header, up to what explains them.

    >>> _title("# The loop on one real chest CT (LIDC-IDRI-0001): organs and a lung mass.")
    'The loop on one real chest CT'
    """
    return re.split(r" \(|: |\. |\.?\n", loop.removeprefix("# "))[0]


def _commit(provenances: list[Json], output: Path) -> str:
    commits = {str(provenance.get("git_commit")) for provenance in provenances}
    if len(commits) != 1 or "None" in commits:
        sys.exit(
            f"{output}: its runs name {len(commits)} commits ({commits}), expected one. Run the loop with --fresh."
        )
    return commits.pop()


def _seeds(loop: Path, seeds: int) -> list[int]:
    from alignment.loop.loop_file import read_loop
    from alignment.loop.steps import base_seed

    base = base_seed(read_loop(loop), loop)
    return [*range(base, base + seeds)]


def _machine() -> str:
    cores = len(os.sched_getaffinity(0))
    memory = psutil.virtual_memory().total / 2**30
    return f"{cores} {_processor()} cores, {memory:.0f} GiB, no GPU used, Python {platform.python_version()}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _write(file: Path, content: Json) -> None:
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    keep(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
