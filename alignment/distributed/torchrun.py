"""torchrun whose ranks get the cluster's signals, and which adds no traceback to what a rank has said in a sentence.

``python -m alignment.distributed.torchrun`` takes torchrun's own options. Slurm's warning before the end (SIGUSR1)
comes to torchrun alone, which would die of it and leave its ranks behind; here it is handed on, and they write a
checkpoint. Of several nodes each says in a sentence when the first one is gone, and none starts its ranks a second
time: a launch ends as one, and the same command goes on. Left out: SIGTERM, which torchrun hands on itself, and then
waits for 30 s.
"""

import os
import signal
import sys
from contextlib import suppress

import psutil
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous.api import RendezvousConnectionError, RendezvousError
from torch.distributed.run import main as run_ranks

from data_builders.interruptions import SIGNALS

REPORTED = (2, *(128 + number for number in SIGNALS))
"""Exit codes of a rank that has said why: a user's mistake, or a signal."""


def hand_on(number: int, _frame: object = None) -> None:
    """Sends the signal to every rank of this node."""
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if "RANK" in child.environ():
                child.send_signal(number)


def refuse_restart(*_: object) -> None:
    """In place of starting the ranks anew, beside which they would find what the first ones said at their store.

    Raises: RendezvousError.
    """
    raise RendezvousError("another node has begun anew while this one was still running")


def main() -> None:
    """Runs torchrun; the exit code is the first failed rank's where that has said why it ended."""
    signal.signal(signal.SIGUSR1, hand_on)
    # torch 2.11 to 2.14 restart ranks, whatever --max-restarts says, when a node comes back
    LocalElasticAgent._restart_workers = refuse_restart  # pyright: ignore
    try:
        run_ranks()
    except ChildFailedError as failed:
        code = failed.get_first_failure()[1].exitcode
        if code not in REPORTED:
            raise
        _end(code)
    except SignalException as stopped:
        _end(128 + int(stopped.sigval))
    except RendezvousError as lost:
        gone = isinstance(lost, RendezvousConnectionError)
        why = "the launcher of the first node cannot be reached; it, or its node, has ended" if gone else str(lost)
        sys.stderr.write(
            f"error: {why.rstrip('.')}. The processes of this node have ended too. Start the same command on every "
            "node: the run goes on from its last checkpoint.\n"
        )
        _end(1)


def _end(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # past the summary that torchrun prints of every end


if __name__ == "__main__":
    main()
