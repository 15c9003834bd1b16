"""One process at a time at an output: the second is told so at once, and the lock of a killed one is gone with it.

The lock is a file beside the folder (``.NAME.lock``), so that the folder itself can be replaced while it is held. Left
out: waiting for the other one, and file systems without locks, on which a warning takes the lock's place.
"""

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from rewards.config.input_error import InputError

if TYPE_CHECKING:
    from filelock import FileLock

NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
logger = logging.getLogger(__name__)


def lock_file(output: Path) -> Path:
    """Where the lock of an output lies; within the folder where nothing can be written beside it, as in a mount."""
    place = output.resolve()
    within = place.is_dir() and not os.access(place.parent, os.W_OK)
    return place / ".lock" if within else place.parent / f".{place.name}.lock"


@contextlib.contextmanager
def only_one(output: Path) -> Generator[None]:
    """Nobody else writes to ``output`` within this block. Ranks of one launch are one run: only rank 0 asks.

    Raises: InputError if another process is in such a block, or nothing can be written there.
    """
    from filelock import FileLock  # only where something is locked: a command starts the sooner

    file = lock_file(output)
    lock = FileLock(file)
    held = _taken(lock, file, output)
    try:
        yield
    finally:
        if held:
            file.unlink(missing_ok=True)  # while it is held: whoever opened it before looks for a new one
            lock.release()


def _taken(lock: "FileLock", file: Path, output: Path) -> bool:
    """True once the lock is ours, False where the file system has none."""
    from filelock import Timeout

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT))  # filelock takes one that cannot be made for one that is held
        lock.acquire(blocking=False)
        file.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
    except Timeout:
        raise InputError(
            f"{output}: {_holder(file)} is writing there now. Wait for its end, or name another output."
        ) from None
    except OSError as fault:
        if lock.is_locked:  # and nothing could be written into it, as on a full disk
            file.unlink(missing_ok=True)
            lock.release()
        if fault.errno in NO_LOCKS_HERE:
            logger.warning("%s: this file system has no locks; see that nothing else writes there.", output)
            return False
        raise InputError(f"{output}: nothing can be written there ({fault.strerror}). Name another output.") from None
    return True


def _holder(file: Path) -> str:
    with contextlib.suppress(OSError):
        return file.read_text(encoding="utf-8").strip() or "another process"
    return "another process"
