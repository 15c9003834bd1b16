"""What may be replaced, and how: a folder of ours and no other, by a new one that is whole, recoverable at any moment.

A new folder grows under ``.NAME.unfinished``. Then the old one is moved to ``.NAME.replaced``, the new one to its
place, and the old one removed. Whoever holds the lock (``locks.py``) is alone, so what lies under these names when it
comes was left by a killed process: the old folder is put back where the new one is missing, the rest is removed.
"""

import contextlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

from data_builders.interruptions import stands
from rewards.config.input_error import InputError

OUTPUTS = ("output", "output_dir", "logging_dir")
"""Keys of recipes and specs under which results go, so that they name nothing that is read."""
OF_LOCKS = ".lock"
NOBODYS = (OF_LOCKS, ".DS_Store", "Thumbs.db")
"""Names that nobody misses: of locks, and of what file managers leave."""
SHOWN = 3
logger = logging.getLogger(__name__)


def unfinished(folder: Path) -> Path:
    """Where a folder grows until it is whole."""
    return _beside(folder, "unfinished")


def replaced(folder: Path) -> Path:
    """Where the old folder lies while the new one takes its place."""
    return _beside(folder, "replaced")


def removed(folder: Path) -> Path:
    """Where a folder that is to go lies until all of it is gone."""
    return _beside(folder, "removed")


def _beside(folder: Path, what: str) -> Path:
    place = folder.resolve()
    return place.parent / f".{place.name}.{what}"


def recover(folder: Path) -> None:
    """Sets right what a killed process left at this output; to be called under its lock.

    The old folder is put back where a kill fell between the two renames; half-made copies are removed, and named.
    """
    if replaced(folder).exists() and not folder.exists():
        replaced(folder).rename(folder.resolve())
        logger.warning("%s: put back as it was; a killed process had moved it aside.", folder)
    for left in (unfinished(folder), replaced(folder), removed(folder)):
        if left.exists():
            shutil.rmtree(left)
            logger.warning("%s: removed; a killed process had left it behind.", left)


@contextlib.contextmanager
def new_folder(folder: Path) -> Generator[Path]:
    """A place to build a folder, which replaces the one that is there in one step when the block ends well.

    To be called under the folder's lock. Whatever stops it, Ctrl-C between the renames too, the old folder stays.
    """
    recover(folder)
    place = folder.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    grown, old = unfinished(folder), replaced(folder)
    as_it_was = f"{folder} is as it was before." if place.exists() else f"Nothing was written to {folder}."
    try:
        with stands(lambda: f"{as_it_was} The same command begins anew."):
            grown.mkdir()
            yield grown
            if place.exists():
                place.rename(old)
            grown.rename(place)
    finally:
        if old.exists() and not place.exists():
            old.rename(place)
        for left in (grown, old):
            shutil.rmtree(left, ignore_errors=True)


def remove(folder: Path) -> None:
    """Removes a folder; one that was killed half way is gone all the same, and its rest goes with the next start."""
    place, aside = folder.resolve(), removed(folder)
    if place.exists():
        place.rename(aside)
        shutil.rmtree(aside)


def check_writable(folder: Path) -> None:
    """Before anything is computed for it: the folder is there or can be made, and something can be written in it.

    Raises: InputError if not, or if it is a file.
    """
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            return
    except OSError as fault:
        at = "" if there == folder.absolute() else f", {there}"
        raise InputError(f"{folder}: nothing can be written there ({fault.strerror}{at}). Name another.") from None


def check_file(
    file: Path,
    *,
    kinds: Collection[str],
    inputs: Iterable[Path] = (),
    is_own: Callable[[Path], bool] = lambda _: True,
) -> None:
    """Before anything is computed for it: a file of one of these kinds can be written there, and none is lost by it.

    ``inputs``: what is read. ``is_own``: whether the command itself wrote the file that is there.
    Raises: InputError if not.
    """
    if file.suffix.lower() not in kinds:
        raise InputError(f"{file}: expected a name that ends in {' or '.join(kinds)}. Name such a file.")
    if file.is_dir():
        raise InputError(f"{file}: is a folder. Name a file in it.")
    if file.exists() and any(read.exists() and file.samefile(read) for read in inputs):
        raise InputError(f"{file}: is read, and would be written over. Name another file.")
    if file.exists() and not is_own(file):
        raise InputError(f"{file}: is there already, and not of this command; it is not replaced. Name another file.")
    check_writable(file.parent)
    if file.exists() and not os.access(file, os.W_OK):
        raise InputError(f"{file}: is there already and may not be written over. Name another file.")


def refuse_foreign(folder: Path, *, mark: str, kind: str, besides: Iterable[str] = ()) -> None:
    """Refuses an output that holds something else than a ``kind``, which is known by its file ``mark``.

    ``besides``: names that may be there before that file is.
    """
    if folder.name in ("", ".."):
        raise InputError(f"output: '{folder}' names no folder of its own; write one such as data/phantom_chest.")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output: {folder} is a file; name a folder.")
    if not folder.is_dir() or (folder / mark).is_file():
        return
    begun = re.compile(rf"{re.escape(mark)}\.\d+\.tmp")  # as ``write_whole`` names it
    names = sorted(p.name for p in folder.iterdir())
    if found := [name for name in names if name not in {*besides, OF_LOCKS} and not begun.fullmatch(name)]:
        raise InputError(
            f"output: {folder} holds files ({', '.join(found[:3])}{', ...' * (len(found) > 3)}) but no {mark}, so it "
            f"is not {kind} and is not replaced. Name another folder, or empty this one."
        )


def refuse_others(folder: Path, *, is_own: Callable[[str], bool], kind: str) -> None:
    """Refuses to replace a ``kind`` in whose folder files of somebody else lie; to be called before anything is made.

    ``is_own``: whether a path in it is of the ``kind``. Raises: InputError naming the others.
    """
    found = [name for name in _files_in(folder) if not is_own(name) and Path(name).name not in NOBODYS]
    if found:
        named = ", ".join(found[:SHOWN]) + f" and {len(found) - SHOWN} more" * (len(found) > SHOWN)
        raise InputError(
            f"output: {folder} also holds {named}, which {kind} did not write; it is not replaced. Move what is yours "
            "elsewhere, or name another output."
        )


def _files_in(folder: Path) -> list[str]:
    """Every file and link in the folder; a link to a folder is not followed."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def refuse_needed(folder: Path, inputs: Iterable[Path] = ()) -> None:
    """Refuses to replace a folder that holds the working directory, the home, or one of ``inputs``.

    Raises: InputError naming what would be lost.
    """
    place = folder.resolve()
    needed = {Path.cwd(): "the working directory", Path(os.path.expanduser("~")): "your home folder"}
    needed |= {file: f"{file}, which is read" for file in inputs}
    for path, what in needed.items():
        if path.resolve().is_relative_to(place):
            raise InputError(f"output: {folder} holds {what}; it is not replaced. Name another output.")


def refuse_nested(folder: Path) -> None:
    """Refuses to replace a folder in which another run, release or checkout lies.

    Raises: InputError naming it.
    """
    place = folder.resolve()
    for name in ("recipe.resolved.yaml", "manifest.json", ".git"):
        if within := next((p for p in place.rglob(name) if p.parent != place), None):
            inner = within.parent.relative_to(place)
            raise InputError(f"output: {folder} also holds {inner} ({name}); it is not replaced. Name another output.")


def named_files(content: Any) -> Iterator[Path]:
    """The files and folders that a recipe or spec (as JSON) names and that are there.

    >>> list(named_files({"method": "sft", "output": "/tmp", "data": {"train": "/"}}))
    [PosixPath('/')]
    """
    if isinstance(content, dict):
        for key, value in content.items():
            if key not in OUTPUTS:
                yield from named_files(value)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from named_files(value)
    elif isinstance(content, str) and (os.sep in content or "." in content):
        for name in (content, f"{content}.parquet", content.rpartition(":")[0]):
            with contextlib.suppress(OSError, ValueError):  # a text that can be no name: too long, a null byte
                if name and Path(name).exists():
                    yield Path(name)
