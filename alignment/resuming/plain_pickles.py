"""The pickles of a checkpoint (optimizer, schedule, random states) opened without running what they name.

A seal (``checkpoints.py``) shows damage, not who wrote a file: whoever can change one can seal it anew. transformers
opens its files with torch's ``weights_only``; DeepSpeed does not, so that torch is told to do it for every file until
training begins, with the three classes that DeepSpeed's own checkpoints hold. Left out: ``training_args.bin``, which
holds settings of many classes and which nothing here opens.
"""

import contextlib
import os
import re
from pathlib import Path
from pickle import UnpicklingError
from types import TracebackType
from typing import Any

from torch.serialization import safe_globals
from transformers import TrainerCallback

from rewards.config.input_error import InputError

FORCED, FORBIDDEN = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
"""torch's own switches (since 2.6); the first overrides ``weights_only=False`` where a file is opened."""


class PlainPickles(TrainerCallback):
    """As a context and a callback of a trainer: ``torch.load`` opens plain data only, until training begins.

    Raises: InputError instead of the ``UnpicklingError`` about a file of ``checkpoint`` that names anything else.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint, self._undo = checkpoint, contextlib.ExitStack()

    def __enter__(self) -> "PlainPickles":
        before = {name: os.environ.pop(name, None) for name in (FORCED, FORBIDDEN)}
        self._undo.callback(_put_back, before)
        os.environ[FORCED] = "1"
        self._undo.enter_context(safe_globals(_of_deepspeed()))
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The checkpoint is open; what a reward or a tracker of the user's own opens is theirs again."""
        self._undo.close()

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._undo.close()
        if isinstance(fault, UnpicklingError):
            named = re.search(r"GLOBAL (\S+)", str(fault))
            raise InputError(
                f"{self.checkpoint}: a pickle in it is no plain data{f' (it names {named[1]})' if named else ''} and "
                "was not run. This run did not write it, or with other versions of its libraries. Remove "
                f"{self.checkpoint.name} to go on from the one before, or add --fresh to begin anew."
            ) from None


def _put_back(before: dict[str, str | None]) -> None:
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def _of_deepspeed() -> list[Any]:
    """The classes in DeepSpeed's optimizer states, none of which does anything when it is made (0.19.8)."""
    try:
        from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
        from deepspeed.runtime.zero.config import ZeroStageEnum
        from deepspeed.utils.tensor_fragment import fragment_address
    except ImportError:
        return []
    return [LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address]
