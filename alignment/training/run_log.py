"""The log of a run, a line an entry, written as it is logged: a killed run has one up to its last entry.

Where a run goes on, the lines behind its checkpoint are cut back first: those steps are logged again.
"""

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from alignment.resuming.checkpoints import write_whole


class GrowingLog(TrainerCallback):
    """Writes each entry of the trainer's ``log_history`` to ``file``; of the main process alone."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The entries up to the checkpoint that training goes on from, in place of any others."""
        if state.is_world_process_zero:
            write_whole(self.file, "".join(map(_line, state.log_history)))

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One more line, closed at once, so that no buffer of this process dies with it."""
        if state.is_world_process_zero:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(_line(state.log_history[-1]))


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry) + "\n"
