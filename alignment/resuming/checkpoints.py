"""Checkpoints that are whole or not there: sealed by a manifest with the size and SHA-256 of every file, written last.

A checkpoint without its manifest was killed half way; one whose files differ from it was damaged later. Both are
named in one line and passed over for the one before. With several processes each hashes its share, and all decide
alike. A seal shows damage, not who wrote a file; that no file of another's runs anything is ``plain_pickles.py``'s.
Left out: folders that each node keeps for itself; the checkpoints of all ranks lie in one shared folder.
"""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment.reward_functions.combined import gathered, process_index
from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json

MANIFEST = "complete.json"
logger = logging.getLogger(__name__)
Digest = tuple[int, str]
"""A file's size in bytes and its SHA-256."""


def seal(folder: Path, *, step: int, begun_with: int | None = None) -> None:
    """Writes the manifest of a checkpoint, after every process has written its files. Called by all processes.

    ``begun_with``: how many processes the run was begun with, where they are not these.
    """
    processes = len(gathered(None))
    # each process sees its own files at once; those of another node a network's disk may show later
    files = sorted({name for names in gathered(_files_in(folder)) for name in names})
    found = {name: digest for part in gathered(_digests(folder, files)) for name, digest in part.items()}
    if process_index() == 0:
        begun: Any = {"step": step, "processes": processes, "begun_with": begun_with or processes}
        content = {**begun, "files": found}
        write_whole(folder / MANIFEST, json.dumps(content, indent=1))
    gathered(None)


def _files_in(folder: Path) -> list[str]:
    return [str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file() and f.name != MANIFEST]


def _digests(folder: Path, files: Sequence[str]) -> dict[str, Digest]:
    """The digests of this process' share of the files, each of which is on the disk after this."""
    processes, mine = len(gathered(None)), process_index()
    return {name: _digest(folder / name) for name in files[mine::processes]}


def _digest(file: Path) -> Digest:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        return file.stat().st_size, hashlib.file_digest(opened, "sha256").hexdigest()


def write_whole(file: Path, text: str) -> None:
    """Replaces a file in one step, and on the disk: a killed process leaves the old one or the new one."""
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    with unfinished.open("w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    unfinished.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def fault(folder: Path) -> str | None:
    """What keeps a run from going on from this checkpoint; None for a whole one. Called by all processes."""
    files = gathered(_listed_or_fault(folder / MANIFEST))[0]  # as rank 0 reads it
    if isinstance(files, str):
        return files
    mine = list(files)[process_index() :: len(gathered(None))]
    faults = [f for part in gathered([_file_fault(folder / name, *files[name]) for name in mine]) for f in part if f]
    return faults[0] if faults else None


def _listed_or_fault(manifest: Path) -> dict[str, Digest] | str:
    if not manifest.is_file():
        return f"was not finished (no {MANIFEST})"
    try:
        return _listed(manifest)
    except InputError as unreadable:
        return f"is damaged: {unreadable}"


def _listed(manifest: Path) -> dict[str, Digest]:
    """The files of a checkpoint. Raises: InputError if the manifest is not one."""
    content = read_json(manifest, "")
    files = content.get("files")
    if not isinstance(files, dict) or not isinstance(content.get("processes"), int):
        raise InputError(f"{manifest.name} lists no files")
    if not all(isinstance(digest, list) and len(digest) == 2 for digest in files.values()):
        raise InputError(f"{manifest.name} lists no sizes")
    return {name: (digest[0], digest[1]) for name, digest in files.items()}


def _file_fault(file: Path, size: int, sha256: str) -> str | None:
    if not file.is_file():
        return f"lacks {file.name}"
    if file.stat().st_size != size:
        return f"is torn: {file.name} has {file.stat().st_size} bytes of {size}"
    return None if _digest(file)[1] == sha256 else f"is damaged: {file.name} is not what was written"


def last_whole(folder: Path, *, inexact: bool = False) -> Path | None:
    """The newest checkpoint in a run's ``checkpoints`` folder that is whole; the others are named in the log.

    Called by all processes. Raises: InputError if it was written by another number of processes, unless ``inexact``.
    """
    for checkpoint in gathered(newest_first(folder))[0]:  # as rank 0 sees them
        if found := fault(checkpoint):
            if process_index() == 0:
                logger.warning("%s %s; the one before it is used.", checkpoint, found)
            continue
        if not inexact:
            _check_processes(checkpoint)
        return checkpoint
    return None


def newest_first(folder: Path) -> list[Path]:
    """The checkpoints in a run's ``checkpoints`` folder, whole or not."""
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir() and path.name.split("-")[1].isdigit()]
    return sorted(found, key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """The optimizer step after which a checkpoint was written."""
    return int(checkpoint.name.split("-")[1])


def goes_on_from(folder: Path) -> str:
    """What stands of a run, in a sentence."""
    if (folder / "model").is_dir():
        return f"{folder} is finished."
    sealed = [file.parent for file in (folder / "checkpoints").glob(f"checkpoint-*/{MANIFEST}")]
    last = max(sealed, key=step_of, default=None)
    whole = f"{last} (step {step_of(last)}) is whole" if last else f"{folder} has no checkpoint yet"
    return f"{whole}. The same command goes on from {last.name if last else 'its start'}."


def written_by(checkpoint: Path) -> int:
    """How many processes have written a whole checkpoint."""
    return int(read_json(checkpoint / MANIFEST, "")["processes"])


def _check_processes(checkpoint: Path) -> None:
    if (written := written_by(checkpoint)) != (now := len(gathered(None))):
        raise InputError(
            f"{checkpoint}: written by {written} processes, and this run has {now}: it cannot go on exactly. "
            f"Start it with {written}, add --inexact to go on with {now} (weights, optimizer, schedule and order of "
            "rows are kept, random states are not), or add --fresh to begin anew."
        )
