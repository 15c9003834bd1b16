"""What is said where a signal or a full disk ends a command: what stands, and how to go on.

Whoever knows what stands says it in a ``stands`` block; the innermost one counts. Left out: SIGKILL, after which the
next start sets right what was left (``output_folders.py``, and the checkpoints of a run).
"""

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Callable, Generator
from types import FrameType

from rewards.config.input_error import InputError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C, what a cluster sends at the end, and what Slurm's ``--signal=USR1`` sends before it."""
FULL = (errno.ENOSPC, errno.EDQUOT)
OF_A_FULL_DISK = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed writing")
"""What safetensors and torch say, which hand on no error number."""
Handler = Callable[[int, FrameType | None], None]


class Stopped(BaseException):
    """A signal has asked this process to end. ``stands``: what is there now, in a sentence."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.name, self.exit_code, self.stands = signal.Signals(number).name, 128 + number, ""


@contextlib.contextmanager
def handled_by(handler: Handler) -> Generator[None]:
    """Within the block ``handler`` gets the signals; not in forked children, which SIGTERM ends as ever.

    Ctrl-C and SIGUSR1, which a terminal or a cluster sends to all, are for the parent, which ends its children itself.
    """
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            handler(number, frame)
        elif number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    if threading.current_thread() is not threading.main_thread():  # where no handler may be set
        yield
        return
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before or signal.SIG_DFL)


def stop(number: int, frame: FrameType | None = None) -> None:
    """The handler that ends a command where it is.

    Raises: Stopped.
    """
    raise Stopped(number)


@contextlib.contextmanager
def stands(say: Callable[[], str]) -> Generator[None]:
    """``say``: what stands where the block is stopped by a signal, or by a disk that is full.

    Raises: InputError in place of the error of a full disk.
    """
    try:
        yield
    except Stopped as stopped:
        stopped.stands = stopped.stands or say()
        raise
    except Exception as fault:  # safetensors' error is an Exception and no more; what is not of a full disk goes on
        if isinstance(fault, InputError) or not is_of_a_full_disk(fault):
            raise
        name = getattr(fault, "filename", None)
        where = f" ({name})" if name else ""
        raise InputError(f"the disk is full{where}. {say()} Free some space before.") from fault


def is_of_a_full_disk(fault: Exception) -> bool:
    """Whether this error says that nothing more can be written.

    >>> is_of_a_full_disk(OSError(errno.ENOSPC, "")), is_of_a_full_disk(OSError(errno.EACCES, ""))
    (True, False)
    """
    return getattr(fault, "errno", None) in FULL or any(sign in str(fault) for sign in OF_A_FULL_DISK)
