"""The digest by which a file is known: in cards of data, provenance of runs, evaluations and manifests of releases."""

import hashlib
from pathlib import Path


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex.

    Raises: FileNotFoundError if there is no such file.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
