"""A release's manifest: every file with its size and SHA-256, and whether a folder is still what it says.

Left out: rights, owners and times, which copying changes; and signatures. Whoever can
change a file can change the manifest too; keep its SHA-256 elsewhere.
"""

import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

from data_builders.digest import sha256
from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json

MANIFEST = "manifest.json"
Json = dict[str, Any]


def write_manifest(folder: Path) -> None:
    """``manifest.json`` of all files in the folder."""
    listed = {name: _fingerprint(path) for name, path in _files(folder).items()}
    (folder / MANIFEST).write_text(_as_text(listed), encoding="utf-8")


def faults_of(folder: Path) -> dict[str, str]:
    """What is not as it was released, by file: ``is missing``, ``has changed``, ``is not in the manifest``.

    So is an empty folder of which the manifest names no file: a name alone can be a patient's.

    Raises: InputError if the folder holds no manifest, or one that names files outside of it or is not readable.
    """
    manifest = folder / MANIFEST
    listed, present = _listed(manifest), _files(folder)
    found = {name: fault for name in {*listed, *present} if (fault := _fault(name, listed, present))}
    found |= dict.fromkeys(_empty_folders(folder, listed), "is not in the manifest")
    faults = dict(sorted(found.items()))
    as_written = manifest.read_text(encoding="utf-8") == _as_text(listed)
    return faults if as_written else {**faults, MANIFEST: "has changed"}


def verify(folder: Path) -> int:
    """How many files the release holds, all of them as they were when it was made.

    Raises: InputError naming every file that is missing, changed or not listed.
    """
    if faults := faults_of(folder):
        changes = "; ".join(f"{name} {fault}" for name, fault in faults.items())
        raise InputError(f"{folder}: not as it was released: {changes}. Release it again from its run.")
    return len(_files(folder))


def make_readable(folder: Path) -> None:
    """Files and folders for whom the user's umask lets read; safetensors and tempfile keep theirs to the owner."""
    umask = os.umask(0)
    os.umask(umask)
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


def _files(folder: Path) -> dict[str, Path]:
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix(): path for path in found if path != folder / MANIFEST}


def _empty_folders(folder: Path, listed: Json) -> list[str]:
    inner = [path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink()]
    names = [f"{path.relative_to(folder).as_posix()}/" for path in inner if not any(path.iterdir())]
    return [name for name in names if not any(file.startswith(name) for file in listed)]


def _fingerprint(path: Path) -> Json:
    return {"sha256": sha256(path), "bytes": path.stat().st_size}


def _fault(name: str, listed: Json, present: dict[str, Path]) -> str | None:
    if name not in listed:
        return "is not in the manifest"
    path = present.get(name)
    if path is None:
        return "is missing"
    is_same = path.is_file() and not path.is_symlink() and _fingerprint(path) == listed[name]
    return None if is_same else "has changed"


def _listed(manifest: Path) -> Json:
    if not manifest.is_file():
        raise InputError(f"{manifest}: no such file, so no release. Make one with: clinalign release RUN OUT.")
    try:
        files = read_json(manifest, "")["files"]
        outside = [name for name in files if not _is_inside(name)]
    except (InputError, KeyError, TypeError):
        raise InputError(f"{manifest}: not the manifest of a release. Release it again from its run.") from None
    if outside or not isinstance(files, dict):
        got = ascii(outside[0]) if outside else "something else"
        raise InputError(f"{manifest}: expected files of this folder, got {got}. Release it again from its run.")
    return files


def _is_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    plain = bool(parts) and not {"..", "/", ""} & {*parts} and "\\" not in name and "\0" not in name
    return plain and str(PurePosixPath(name)) == name and not PurePosixPath(name).is_absolute()


def _as_text(listed: Json) -> str:
    return json.dumps({"files": listed}, indent=2, sort_keys=True) + "\n"
