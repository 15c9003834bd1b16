"""Rule sets in files of the user's own that this process knows by their ids: each file, its SHA-256 and its bytes.

A file is known once its path was named: in a spec, a recipe or an option, or by the folder of the rows that name its
id. Nothing is handed to other processes; each rank reads the same spec, recipe or folder before its first row.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from rewards.config.input_error import InputError
from rewards.config.strict_yaml import regular, unreadable

KEPT = "rule_sets"
"""The folder in a built set, a run, an evaluation and a release that holds the files of rule sets."""


@dataclass(frozen=True)
class KnownFile:
    """A file as it was when it was read."""

    path: Path
    sha256: str
    content: bytes = field(compare=False, repr=False)


_known: dict[str, KnownFile] = {}


def read_file(path: Path) -> KnownFile:
    """The file as it is now.

    Raises: InputError if it cannot be read.
    """
    try:
        content = regular(path).read_bytes()
    except FileNotFoundError as fault:
        here = "" if path.is_absolute() else f" Relative paths are looked for from the working directory, {Path.cwd()}."
        raise InputError(unreadable(path, fault) + here) from None
    except OSError as fault:
        raise InputError(unreadable(path, fault)) from None
    return KnownFile(path, hashlib.sha256(content).hexdigest(), content)


def remember(name: str, file: KnownFile) -> None:
    """Lets the file be found as the rule set ``name`` (``hospital@1``) from now on; the same content twice is one.

    Raises: InputError naming both files if another content is known by this name.
    """
    check_same_rules(name, _known.setdefault(name, file), file)


def check_same_rules(name: str, first: KnownFile, other: KnownFile) -> None:
    """Raises InputError naming both files if their contents differ: one id would stand for two rule sets."""
    if first.sha256 == other.sha256:
        return
    if first.path == other.path:
        raise InputError(
            f"{other.path}: has changed since it was read as {name}. Give it another version, or start Python anew."
        )
    raise InputError(
        f"rule set {name} is in two files that differ, {first.path} and {other.path}. Name only one of them, or give "
        "one another name or version."
    )


def known_file(name: str) -> KnownFile | None:
    """The file of an id (``hospital@1``), or of a name (``hospital``) with one known version; None if there is none.

    Raises: InputError if several versions of a bare name are known.
    """
    if name in _known or "@" in name:
        return _known.get(name)
    versions = [one for one in _known if one.partition("@")[0] == name]
    if len(versions) > 1:
        raise InputError(f"rule set '{name}' is known in several versions; name one of {', '.join(sorted(versions))}.")
    return _known[versions[0]] if versions else None


def known_ids() -> list[str]:
    """The ids of all files that are known."""
    return sorted(_known)
