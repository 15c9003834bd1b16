"""A run that is asked to end first writes a checkpoint: SIGTERM, Ctrl-C, and SIGUSR1, which Slurm sends ahead of time.

All processes stop behind the same step, whichever of them was asked; the checkpoint is sealed as any other, and the
run that goes on from it is the run that was never stopped. Left out: a step that lasts longer than the launcher waits
(torchrun: 30 s); it ends at the checkpoint before.
"""

import time
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback

from data_builders.interruptions import stop

IMPATIENT_S = 3.0
"""A second signal after so long ends the run where it is; launchers repeat the first one at once."""


class EndRequest(TrainerCallback):
    """Notes a signal, has a checkpoint written behind the step under way, and ends the run there."""

    def __init__(self) -> None:
        self._signal, self._since, self._ends_by = 0, 0.0, 0

    def note(self, number: int, _frame: FrameType | None) -> None:
        """The handler of the signals.

        Raises: Stopped for one that comes later than the first.
        """
        now = time.monotonic()
        if self._signal and now - self._since > IMPATIENT_S:
            stop(number)
        if not self._signal:
            self._signal, self._since = number, now

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Has a checkpoint written if any process was asked to end."""
        self._ends_by = _largest(self._signal, args)
        if self._ends_by:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ends the run; the checkpoint is whole.

        Raises: Stopped.
        """
        if self._ends_by:
            stop(self._ends_by)

    def end_if_requested(self, args: Any) -> None:
        """Ends the run that has done its work all the same, so that no other one is begun.

        Raises: Stopped.
        """
        if number := _largest(self._signal, args):
            stop(number)


def _largest(number: int, args: Any) -> int:
    """The largest of what the processes say, so that all know."""
    if args.world_size == 1:
        return number
    largest = torch.tensor(number, device=args.device)
    torch.distributed.all_reduce(largest, op=torch.distributed.ReduceOp.MAX)
    return int(largest)
