"""Killed at any moment, a run goes on from its last whole checkpoint as if nothing had happened: the same losses.

What transformers and TRL keep (weights, optimizer, schedule, random states) is theirs; kept beside it, for each
process, is what they lose: the loss and metrics between two log lines, GRPO's place in a generation batch and the
answers in it, the state of callbacks that have one, a reference model that moves. Rows come in an order that
follows from seed and epoch (``row_order.py``), and every step is written to the ledger (``ledger.py``).
Left out: random draws in collators of the main process (there are none), the samples of ``log_completions``.
"""

import contextlib
import logging
import shutil
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import rotate_checkpoints

from alignment.config.recipe import DataSection
from alignment.data.row_order import EpochSampler, Order, by_length, redrawn, shuffled, unshuffled
from alignment.data.row_tokens import Lengths
from alignment.data.token_batches import TokenBatches, longest_first
from alignment.resuming.checkpoints import goes_on_from, last_whole, seal, step_of, written_by
from alignment.resuming.ending import AskedToEnd
from alignment.resuming.finite import FiniteTraining, check_weights
from alignment.resuming.inexact import (
    draw_anew,
    finish_universal,
    inexact_resume,
    joined_state,
    note_resumes,
    prepare_universal,
)
from alignment.resuming.kept_state import read_state, write_state
from alignment.resuming.ledger import Ledger, Plan
from alignment.resuming.plain_pickles import PlainPickles
from data_builders.interruptions import handled_by
from rewards.config.input_error import InputError

ROW_IDS = "row_ids"
"""In a batch: the ids of its rows."""
PEER_IS_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")
"""What gloo and NCCL say when a process at the other end has died."""
logger = logging.getLogger(__name__)


class IdCollator:
    """A collator whose batches say which rows they were made of, where the rows say it."""

    def __init__(self, collator: Any) -> None:
        self.collator = collator

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "collator":  # a copy asks before it has one
            raise AttributeError(name)
        return getattr(self.collator, name)

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        """The collator's batch, and the ids."""
        batch = self.collator(rows)
        if "id" in rows[0]:
            batch[ROW_IDS] = [row["id"] for row in rows]
        return batch


class Resumable(FiniteTraining):
    """What a TRL trainer needs for exact resume; stands before it among the bases.

    ``order``: another order of the rows than the shuffled one. It must be as long in every epoch.
    """

    order: Order | None = None
    lengths: list[int] | None = None
    batch_tokens: int | None = None
    largest_first: bool = False
    ledger: Ledger | None = None
    resumed_from: Path | None = None
    begun_with: int | None = None
    """How many ranks the run was begun with, where they are not these."""
    weight_decays: Sequence[float] = ()
    """Of the optimizer's groups of parameters."""
    ranks_before: int | None = None
    """How many ranks wrote the checkpoint that it goes on from, where they are not these."""
    asked_to_end: AskedToEnd
    _sampler: EpochSampler | TokenBatches | None = None

    @property
    def _trainer(self) -> Any:
        """This trainer, as TRL's types do not know it."""
        return self

    def _set_signature_columns_if_needed(self) -> None:
        trainer: Any = super()
        trainer._set_signature_columns_if_needed()
        columns = self._trainer._signature_columns
        self._trainer._signature_columns = [*columns, *({"id"} - set(columns))]

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        data = self._trainer.train_dataset if train_dataset is None else train_dataset
        self._sampler = self._epoch_sampler(data)
        return self._sampler

    def _epoch_sampler(self, data: Any) -> EpochSampler | TokenBatches:
        arguments = self._trainer.args
        seed = arguments.seed if arguments.data_seed is None else arguments.data_seed
        if self.batch_tokens is not None and self.lengths is not None:
            ranks: Any = dict(processes=arguments.world_size, rank=arguments.process_index)
            ranks["begun_with"] = self.begun_with
            return TokenBatches(self.lengths, self.batch_tokens, ids=data["id"], seed=seed, **ranks)
        return EpochSampler(self.order or self._default_order(len(data), seed))

    def _default_order(self, num_rows: int, seed: int) -> Order:
        arguments = self._trainer.args
        at_once = arguments.train_batch_size * arguments.world_size
        if arguments.train_sampling_strategy == "group_by_length" and self.lengths is not None:
            return by_length(self.lengths, at_once * arguments.gradient_accumulation_steps, seed)
        if arguments.train_sampling_strategy == "sequential":
            return unshuffled(num_rows)
        return self._largest_first(shuffled(num_rows, seed), at_once * arguments.gradient_accumulation_steps)

    def _largest_first(self, order: Order, at_once: int) -> Order:
        return longest_first(order, self.lengths, at_once) if self.largest_first and self.lengths else order

    def plan(self) -> Plan:
        """What the ledger is proved by."""
        return Plan(self._trainer.args.world_size)

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        """TRL's, after the ids of the rows were noted."""
        if ROW_IDS in inputs:
            if self.ledger is not None and self._trainer.model.training:
                self.ledger.saw(inputs[ROW_IDS])
            inputs = {name: value for name, value in inputs.items() if name != ROW_IDS}
        trainer: Any = super()
        return trainer.compute_loss(model, inputs, *arguments, **options)

    def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
        """TRL's; its loss goes into the ledger."""
        trainer: Any = super()
        loss = trainer.training_step(*arguments, **options)
        if self.ledger is not None:
            self.ledger.add_loss(float(loss))
        return loss

    def _run_epoch(self, *given: Any, **options: Any) -> None:
        """TRL's, where a step is left to do.

        From the checkpoint of its last step (killed before the model was saved) a run would go one step further.
        """
        state, untyped = self._trainer.state, cast("Any", super())
        if state.global_step < state.max_steps:
            untyped._run_epoch(*given, **options)
        else:
            self._trainer.control.should_training_stop = True

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """TRL's, sealed; what an older attempt left at this place goes, and older checkpoints only afterwards."""
        trainer = self._trainer
        check_weights(trainer)
        arguments, limit = trainer.args, trainer.args.save_total_limit
        folder = Path(arguments.output_dir) / f"checkpoint-{trainer.state.global_step}"
        if arguments.should_save and folder.exists():
            shutil.rmtree(folder)
        trainer.accelerator.wait_for_everyone()
        arguments.save_total_limit = None
        try:
            untyped: Any = super()
            untyped._save_checkpoint(model, trial)
        finally:
            arguments.save_total_limit = limit
        folder.mkdir(exist_ok=True)
        write_state(folder / f"state_of_rank{arguments.process_index}.safetensors", self.kept_state())
        seal(folder, step=trainer.state.global_step, begun_with=self.begun_with)
        if arguments.should_save:
            rotate_checkpoints(arguments.output_dir, limit, trainer.state.best_model_checkpoint)

    def create_scheduler(self, *given: Any, **options: Any) -> Any:
        """TRL's, for an optimizer whose groups are now those that it trains with."""
        self.weight_decays = [group["weight_decay"] for group in self._trainer.optimizer.param_groups]
        trainer: Any = super()
        return trainer.create_scheduler(*given, **options)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """TRL's, unless the states are those of other ranks."""
        trainer: Any = super()
        if self.ranks_before is None or self.resumed_from is None:
            trainer._load_rng_state(checkpoint)
        else:
            arguments = self._trainer.args
            draw_anew(arguments.seed, step_of(self.resumed_from), arguments.process_index)

    def kept_state(self) -> dict[str, Any]:
        """What this process must find again to go on, beside what transformers keeps."""
        trainer = self._trainer
        return {
            "loss": trainer._tr_loss,
            "last_logged": trainer._globalstep_last_logged,
            "metrics": {mode: dict(values) for mode, values in trainer._metrics.items()},
            "train_tokens": trainer._total_train_tokens,
            "callbacks": {type(c).__name__: c.kept_state() for c in _with_state(trainer)},
            "reference": trainer.ref_model.state_dict() if _moves_reference(trainer) else None,
        }

    def restore_state(self, state: dict[str, Any]) -> None:
        """Takes it up again."""
        trainer = self._trainer
        trainer._tr_loss = state["loss"]
        trainer._globalstep_last_logged = state["last_logged"]
        for mode, values in state["metrics"].items():
            trainer._metrics[mode].clear()
            trainer._metrics[mode].update(values)
        trainer._total_train_tokens = state["train_tokens"]
        for callback in _with_state(trainer):
            callback.restore_state(state["callbacks"][type(callback).__name__])
        if state["reference"] is not None:
            trainer.ref_model.load_state_dict(state["reference"])


def _with_state(trainer: Any) -> list[Any]:
    return [c for c in trainer.callback_handler.callbacks if hasattr(c, "kept_state")]


def _moves_reference(trainer: Any) -> bool:
    return bool(getattr(trainer.args, "sync_ref_model", False)) and trainer.ref_model is not None


class ResumableGenerations(Resumable):
    """For TRL's GRPO, whose steps share the answers of one generation batch."""

    def _epoch_sampler(self, data: Any) -> EpochSampler:
        arguments, trainer = self._trainer.args, self._trainer
        chunk = arguments.generation_batch_size // trainer.num_generations
        times = trainer.num_iterations * arguments.steps_per_generation
        order = redrawn(len(data), arguments.seed) if trainer.shuffle_dataset else unshuffled(len(data))
        order = self.order or self._largest_first(order, chunk)
        return EpochSampler(order, chunk=chunk, copies=trainer.num_generations, times=times)

    def plan(self) -> Plan:
        """Each row is answered ``num_generations`` times, and each answer trained on ``num_iterations`` times."""
        trainer = self._trainer
        chunk = trainer.args.generation_batch_size // trainer.num_generations
        return Plan(trainer.args.world_size, chunk, trainer.num_generations * trainer.num_iterations)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Any:
        trainer: Any = super()
        output = trainer._generate_and_score_completions(inputs)
        return output | ({ROW_IDS: [row["id"] for row in inputs]} if "id" in inputs[0] else {})

    def kept_state(self) -> dict[str, Any]:
        """Also the place in the generation batch, and the batch."""
        trainer = self._trainer
        return super().kept_state() | {"step": trainer._step, "buffer": trainer._buffered_inputs}

    def restore_state(self, state: dict[str, Any]) -> None:
        """Takes it up again."""
        super().restore_state(state)
        self._trainer._step, self._trainer._buffered_inputs = state["step"], state["buffer"]


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
        sampler = self.trainer._sampler
        sampler.epoch = int(state.epoch or 0)
        if args.process_index == 0:
            planned = [self.ids[place] for place in sampler.planned(sampler.epoch)]
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
    if _moves_reference(trainer) and getattr(trainer, "is_deepspeed_enabled", False):
        raise InputError("trainer.sync_ref_model: its reference is not kept under DeepSpeed; leave one of the two out.")
    if not _is_resumable(trainer):  # it seals no checkpoint, and from one without a seal nothing goes on
        trainer.train()
        return
    last = last_whole(folder / "checkpoints", inexact=inexact)
    ledger = Ledger(folder / "ledger", trainer.args.process_index)
    again = ledger.cut_back(step_of(last) if last else 0)
    trainer.ledger, trainer.resumed_from, trainer.asked_to_end = ledger, last, AskedToEnd()
    if last and (before := written_by(last)) != trainer.args.world_size:
        trainer.ranks_before = before
        prepare_universal(trainer, last)
    if trainer.is_world_process_zero():
        _plan_and_tell(trainer, folder)
        if last or again:
            logger.warning("%s: goes on from %s; %d steps after it are done again.", folder, last or "the start", again)
    trainer.add_callback(Resuming(trainer))
    trainer.add_callback(trainer.asked_to_end)  # behind it: the step's line of the ledger is closed first
    with told_where_it_stopped(folder), handled_by(trainer.asked_to_end.note), contextlib.ExitStack() as opening:
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
def told_where_it_stopped(folder: Path) -> Generator[None]:
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
