"""Every process of a launch gives a sign every few seconds, so that none waits for ever for one that is gone.

A process that crashes or is killed is missed by its launcher, and by its peers as soon as a connection breaks. Missed
by nobody are one whose node has lost its power or its network, and, on another node, one that ended by an error of the
program while the others wait in NCCL. Each process looks after the next one, so that all are looked after at little
cost. Long work is no silence: the signs are given by a thread.
"""

import atexit
import os
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from data_builders.interruptions import handled_by
from rewards.config.input_error import InputError

if TYPE_CHECKING:
    from torch.distributed import Store

FAULT = "fault"
SILENT = "CLINALIGN_SILENT_S"
SILENT_S = 600.0
"""How long a process may give no sign. A machine that is busy beyond measure gives one late."""
PERIOD_S = 5.0
GRACE_S = 20.0
"""How long a process that has been told of a fault may take to end by itself, before it is ended."""


def silent_s() -> float:
    """The limit in seconds: ``CLINALIGN_SILENT_S``, or ten minutes.

    Raises: InputError if it is no number above 0.
    """
    text = os.environ.get(SILENT, str(SILENT_S))
    with suppress(ValueError):
        if 0 < (value := float(text)) < threading.TIMEOUT_MAX:
            return value
    raise InputError(f"{SILENT}: got '{text}'; expected seconds above 0, such as 600.")


def give_signs(store: "Store", rank: int, ranks: int) -> None:
    """Starts to give signs, and to look for those of the next process; says at the end of this one that it ends."""
    signs = _Signs(store, rank, ranks, silent_s())
    store.set(f"host {rank}", socket.gethostname())
    signs.thread.start()
    atexit.register(signs.end)


class _Signs:
    def __init__(self, store: "Store", rank: int, ranks: int, limit_s: float) -> None:
        self.store, self.rank, self.ranks, self.limit_s = store, rank, ranks, limit_s
        self.period_s = min(PERIOD_S, limit_s / 4)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.give, daemon=True, name="signs of life")

    def give(self) -> None:
        """Until this process ends, or is to end."""
        try:
            self._give()
        except RuntimeError:  # the store is gone, with whom all should end
            if not self.over.wait(self.limit_s):
                _leave(lost_store())

    def _give(self) -> None:
        following, last, silent = self.rank, -1, 0.0
        while not self.over.wait(self.period_s):
            self._answered(lambda: self.store.add(f"sign {self.rank}", 1))
            if self.store.check([FAULT]):
                return self._end_with_the_fault()
            if following == self.rank or self.store.check([f"ended {following}"]):
                following, last = self._next_after(following), -1
            signs = self.store.add(f"sign {following}", 0)
            # turns are counted, not the time between them: all processes may have been suspended together
            last, silent = signs, (silent + self.period_s if signs == last else 0.0)
            if silent > self.limit_s and following != self.rank:
                self._tell(following)

    def _next_after(self, rank: int) -> int:
        others = [(rank + k) % self.ranks for k in range(1, self.ranks + 1)]
        return next((k for k in others if k == self.rank or not self.store.check([f"ended {k}"])), self.rank)

    def _answered(self, ask: Callable[[], object]) -> None:
        """Ends this process if the store does not answer in time, as where its node has no network any more."""
        watch = threading.Timer(self.limit_s, _leave, [lost_store()])
        watch.daemon = True
        watch.start()
        try:
            ask()
        finally:
            watch.cancel()

    def _tell(self, silent: int) -> None:
        host = self.store.get(f"host {silent}").decode() if self.store.check([f"host {silent}"]) else "another node"
        self._raise(f"rank {silent} on {host} has given no sign of life for {self.limit_s:g} s ({SILENT}). {AGAIN}")

    def _raise(self, fault: str) -> None:
        self.store.compare_set(FAULT, "", f"{self.rank}\n{fault}")

    def _end_with_the_fault(self) -> None:
        """Leaves the main thread time to end with what it waits in; one that waits in a library is ended."""
        if self.over.wait(GRACE_S):
            return
        owner, _, fault = self.store.get(FAULT).decode().partition("\n")
        _leave(fault if owner == str(self.rank) else "")

    def end(self) -> None:
        """Says that no more signs are to be expected, and why if it is an error of the program."""
        self.over.set()
        with handled_by(lambda *_: None), suppress(RuntimeError):  # a signal to end comes too late to be obeyed
            self.thread.join(self.period_s)  # within the store it would abort the process that Python takes down
            if (error := getattr(sys, "last_value", None)) is not None:
                first = next(iter(str(error).splitlines()), "")[:200]
                self._raise(f"rank {self.rank} on {socket.gethostname()} ended by {type(error).__name__}: {first}")
            self.store.set(f"ended {self.rank}", "")


def ended_early(store: "Store", rank: int) -> str:
    """What is said where a process has ended, such as by a signal, while others wait for what it makes."""
    host = store.get(f"host {rank}").decode()
    return f"rank {rank} on {host} has ended before the others; the log of that node tells why. {AGAIN}"


def lost_store() -> str:
    """What is said where the store, and who holds it, is gone."""
    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    return f"the launcher of the first node ({where}) has ended or cannot be reached; its log tells why. {AGAIN}"


AGAIN = "The same command goes on from the last checkpoint."


def _leave(fault: str) -> None:
    if fault:
        sys.stderr.write(f"error: {fault}\n")
    sys.stderr.flush()
    os._exit(2)
