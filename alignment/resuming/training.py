"""Killed at any moment, a run goes on from its last whole checkpoint as if nothing had happened: the same losses.

What transformers and TRL keep (weights, optimizer, schedule, random states) is theirs; kept beside it, for each
process, is what they lose: the loss and metrics between two log lines, GRPO's place in a generation batch and the
answers in it, the state of callbacks that have one, a reference model that moves. Rows come in an order that
follows from seed and epoch (``row_order.py``), and every step is written to the ledger (``ledger.py``).
Left out: random draws in collators of the main process (there are none), the samples of ``log_completions``.
"""

import contextlib
import logging
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from alignment.config.recipe import DataSection
from alignment.data.row_tokens import Lengths
from alignment.resuming.checkpoints import goes_on_from, last_whole, step_of, written_by
from alignment.resuming.ending import EndRequest
from alignment.resuming.inexact import (
    finish_universal,
    inexact_resume,
    joined_state,
    note_resumes,
    prepare_universal,
)
from alignment.resuming.kept_state import read_state
from alignment.resuming.ledger import Ledger
from alignment.resuming.plain_pickles import PlainPickles
from alignment.resuming.resumable import IdCollator, Resumable, ResumableGenerations
from data_builders.interruptions import handled_by
from rewards.config.input_error import InputError

PEER_IS_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")
"""What gloo and NCCL say when a process at the other end has died."""
logger = logging.getLogger(__name__)


class Resuming(TrainerCallback):
    """Keeps a trainer's ledger and epoch, and gives it back its state where training begins."""

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.ids = trainer, list(trainer.train_dataset["id"])

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Restores the state of the checkpoint that training goes on from."""
        checkpoint, before = self.trainer.resumed_from, self.trainer.ranks_before
        if before is not None:
            turns = args.gradient_accumulation_steps
            self.trainer.restore_state(joined_state(checkpoint, before, turns=turns, device=args.device))
            finish_universal(self.trainer, checkpoint)
            state.train_batch_size = args.train_batch_size  # transformers keeps the checkpoint's
        elif checkpoint is not None:
            file = checkpoint / f"state_of_rank{args.process_index}.safetensors"
            self.trainer.restore_state(read_state(file, args.device))

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Sets the epoch of the sampler, and writes its plan."""
        # `_sampler` is ours (`Resumable`): transformers keeps the sampler only within its loader.
        sampler = self.trainer._sampler
        sampler.epoch = int(state.epoch or 0)
        if args.process_index == 0:
            planned = [self.ids[index] for index in sampler.planned(sampler.epoch)]
            self.trainer.ledger.plan_epoch(sampler.epoch, planned)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Closes the step's line of the ledger."""
        self.trainer.ledger.close_step(state.global_step, self.trainer._sampler.epoch)


def _is_resumable(trainer: Any, kind: type[Resumable] = Resumable) -> bool:
    return isinstance(trainer, kind)


def note_rows(trainer: Any, data: DataSection, lengths: Lengths | None) -> None:
    """Lets batches say which rows they were made of, and orders them by ``lengths`` as the recipe has it."""
    if not _is_resumable(trainer):
        return
    trainer.lengths = lengths.packed() if lengths is not None else None
    trainer.batch_tokens, trainer.largest_first = data.batch_tokens, data.largest_first
    if not _is_resumable(trainer, ResumableGenerations):  # whose batches are the rows themselves
        trainer.data_collator = IdCollator(trainer.data_collator)


def train_from_last_checkpoint(trainer: Any, folder: Path, *, inexact: bool = False) -> None:
    """Trains, from the last whole checkpoint in ``folder/checkpoints`` if there is one.

    ``inexact``: also from one of another number of ranks (``inexact.py``).

    Raises: InputError if the checkpoint cannot be gone on from exactly.
    """
    if not _is_resumable(trainer):  # it seals no checkpoint, and from one without a seal nothing goes on
        trainer.train()
        return
    last = last_whole(folder / "checkpoints", inexact=inexact)
    ledger = Ledger(folder / "ledger", trainer.args.process_index)
    again = ledger.cut_back(step_of(last) if last else 0)
    trainer.ledger, trainer.resumed_from, trainer.end_request = ledger, last, EndRequest()
    if last and (before := written_by(last)) != trainer.args.world_size:
        trainer.ranks_before = before
        prepare_universal(trainer, last)
    if trainer.is_world_process_zero():
        _plan_and_tell(trainer, folder)
        if last or again:
            logger.warning("%s: goes on from %s; %d steps after it are done again.", folder, last or "the start", again)
    trainer.add_callback(Resuming(trainer))
    trainer.add_callback(trainer.end_request)  # behind it: the step's line of the ledger is closed first
    with peer_death_reported(folder), handled_by(trainer.end_request.note), contextlib.ExitStack() as opening:
        if last:
            trainer.add_callback(opening.enter_context(PlainPickles(last)))
        trainer.train(resume_from_checkpoint=str(last) if last else None)


def _plan_and_tell(trainer: Any, folder: Path) -> None:
    """What the ledger is proved by, and in log and provenance what is not exact. Done by rank 0."""
    ledger, last, plan = trainer.ledger, trainer.resumed_from, trainer.plan()
    step, ranks = step_of(last) if last else 0, trainer.args.world_size
    ledger.cut_back_others(step, ranks)
    if (earlier := ledger.planned()) is not None:
        plan = replace(plan, before=earlier.goes_on_under(ranks, step))
    ledger.plan(plan)
    resume = inexact_resume(trainer, last, trainer.ranks_before) if trainer.ranks_before else None
    if resume:
        logger.warning("%s: %s", folder, resume)
    note_resumes(folder, plan.before, resume)


@contextlib.contextmanager
def peer_death_reported(folder: Path) -> Generator[None]:
    """One sentence where another process of the run has died.

    Raises: InputError instead of the traceback of a broken connection.
    """
    try:
        yield
    except RuntimeError as broken:
        if not any(sign in str(broken) for sign in PEER_IS_GONE):
            raise
        raise InputError(
            f"{folder}: another process of this run has died (which, and by which signal, the launcher says; SIGKILL "
            f"is mostly the kernel's, out of memory). {goes_on_from(folder)}"
        ) from broken
