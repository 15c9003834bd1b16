"""torchrun whose ranks get the cluster's signals, and which adds no traceback to what a rank has said in a sentence.

``python -m alignment.torchrun`` takes torchrun's own options. Slurm's warning before the end (SIGUSR1) comes to
torchrun alone, which would die of it and leave its ranks behind; here it is handed on, and they write a checkpoint.
Left out: SIGTERM, which torchrun hands on itself, and then waits for 30 s.
"""

import os
import signal
import sys
from contextlib import suppress

import psutil
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as run_ranks

from data_builders.interruptions import SIGNALS

TOLD = (2, *(128 + number for number in SIGNALS))
"""Exit codes of a rank that has said why: a user's mistake, or a signal."""


def hand_on(number: int, _frame: object = None) -> None:
    """Sends the signal to every rank of this node."""
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if "RANK" in child.environ():
                child.send_signal(number)


def main() -> None:
    """Runs torchrun; the exit code is the first failed rank's where that has said why it ended."""
    signal.signal(signal.SIGUSR1, hand_on)
    try:
        run_ranks()
    except ChildFailedError as failed:
        code = failed.get_first_failure()[1].exitcode
        if code not in TOLD:
            raise
        _end(code)
    except SignalException as stopped:
        _end(128 + int(stopped.sigval))


def _end(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # past the summary that torchrun prints of every end


if __name__ == "__main__":
    main()
