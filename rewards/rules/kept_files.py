"""Rule sets of the user's own beside what was made by them: copied into a folder, and known again when it is opened.

A folder's card, provenance or evaluation lists them as ``{"rule_sets/hospital@1.yaml": SHA-256}``. So the folder can
go to another machine and needs nothing else; a file that is not as listed is refused. Left out: the shipped ones.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rewards.config.input_error import InputError
from rewards.rules.known_files import KEPT, KnownFile, known_file, read_file
from rewards.rules.rule_set import register

NAME = re.compile(r"(rule_sets|curricula|column_maps)/[^/\\]+\.ya?ml")
Listed = dict[str, str]
"""SHA-256 by the name of the file in its folder."""


def files_of(rule_sets: Iterable[str]) -> dict[str, KnownFile]:
    """The files of the user's own among rule sets of these ids, by the name that they have in a folder."""
    found = {f"{KEPT}/{name}.yaml": known_file(name) for name in sorted(set(rule_sets))}
    return {name: file for name, file in found.items() if file is not None}


def keep(folder: Path, files: Mapping[str, KnownFile]) -> Listed:
    """Writes the files into the folder, in place of those of the same names, and lists them."""
    for name, file in files.items():
        kept = folder / name
        kept.parent.mkdir(parents=True, exist_ok=True)
        fresh = kept.with_name(f".{kept.name}.unfinished")
        fresh.write_bytes(file.content)
        fresh.replace(kept)
    return {name: file.sha256 for name, file in files.items()}


def check_kept(folder: Path, files: Mapping[str, KnownFile]) -> None:
    """Raises InputError if the folder keeps another content by the name of one of the files: it made what is there."""
    for name, file in files.items():
        kept = folder / name
        if kept.is_file() and read_file(kept).sha256 != file.sha256:
            raise InputError(
                f"{kept}: differs from {file.path}, and what lies beside it was made by it. Give the changed one "
                "another version, name another output, or add --fresh."
            )


def _checked(folder: Path, listed: Any, cure: str) -> Listed:
    if listed is None:
        return {}
    if not isinstance(listed, dict) or not all(isinstance(digest, str) for digest in listed.values()):
        raise InputError(f"{folder}: its list of rules is none of files and their SHA-256. {cure}")
    return listed


def known_in(folder: Path, listed: Any, *, cure: str) -> dict[str, KnownFile]:
    """The files that a folder keeps, each as it is listed; its rule sets are known from now on.

    ``cure``: how the folder is made anew. Raises: InputError if a file is missing or has changed, or another file with
    other content has the id of one.
    """
    found: dict[str, KnownFile] = {}
    for name, digest in _checked(folder, listed, cure).items():
        if not NAME.fullmatch(name):
            raise InputError(f"{folder}: keeps no rule set, curriculum or column map by the name '{name}'. {cure}")
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: is missing, and rows name what is ruled there. Put it back. {cure}")
        found[name] = file = read_file(folder / name)
        if file.sha256 != digest:
            raise InputError(f"{file.path}: has changed since it was kept there (its SHA-256 is another). {cure}")
        if name.startswith(f"{KEPT}/"):
            register(file.path)
    return found
