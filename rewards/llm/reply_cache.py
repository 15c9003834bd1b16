"""Append-only files of JSON lines that survive a kill in mid write and several processes at once.

A line is written whole, under a file lock, with a checksum; a torn or damaged line is skipped and counted, never
trusted. Left out: compaction (a file only grows) and network file systems without locks.
"""

import json
import os
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rewards.config.json_lines import json_reply


class AppendLog:
    """One file of checksummed JSON lines. ``damaged``: lines that were skipped."""

    def __init__(self, path: Path) -> None:
        from filelock import FileLock  # as in data_builders.locks: only where something is locked

        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.damaged = 0
        self._offset = 0
        self._lock = FileLock(f"{path}.lock")

    @contextmanager
    def locked(self) -> Generator[None, None, None]:
        """Nobody else appends inside this block."""
        with self._lock:
            yield

    def append(self, entry: dict[str, Any]) -> None:
        """Adds one entry and syncs it to disk. A torn last line of a killed writer is closed first."""
        body = json.dumps(entry, sort_keys=True)
        line = f"{zlib.crc32(body.encode()):08x} {body}\n".encode()
        with self.locked():
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                torn = _is_torn(file)
                os.write(file, (b"\n" if torn else b"") + line)
                os.fsync(file)
            finally:
                os.close(file)

    def unread(self) -> Iterator[dict[str, Any]]:
        """The entries that any process has added since the last call, in order; whole lines only."""
        if not self.path.is_file() or self.path.stat().st_size == self._offset:
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            content = file.read()
        whole = content.rfind(b"\n") + 1
        self._offset += whole
        for line in content[:whole].splitlines():
            entry = _entry(line)
            if entry is not None:
                yield entry
            elif line.strip():
                self.damaged += 1


def _is_torn(file: int) -> bool:
    size = os.fstat(file).st_size
    return size > 0 and os.pread(file, 1, size - 1) != b"\n"


def _entry(line: bytes) -> dict[str, Any] | None:
    checksum, _, body = line.partition(b" ")
    if checksum != f"{zlib.crc32(body):08x}".encode():
        return None
    entry = json_reply(body)
    return entry if isinstance(entry, dict) else None


class ReplyCache:
    """Entries by content hash, in one append-only file; what another process adds is seen at the next look."""

    def __init__(self, path: Path) -> None:
        self.log = AppendLog(path)
        self._entries: dict[str, dict[str, Any]] = {}

    def get(self, key: str) -> dict[str, Any] | None:
        """The entry of a key, or None."""
        if key not in self._entries:
            self._refresh()
        return self._entries.get(key)

    def put(self, key: str, entry: dict[str, Any]) -> None:
        """Keeps an entry; the first one of a key stays."""
        if self.get(key) is None:
            self.log.append({"key": key, "entry": entry})
            self._refresh()

    def _refresh(self) -> None:
        for line in self.log.unread():
            self._entries.setdefault(line["key"], line["entry"])
