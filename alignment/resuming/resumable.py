"""Trainers that go on exactly: batches that say which rows they are of, and state that checkpoints keep."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from transformers.trainer_utils import rotate_checkpoints

from alignment.data.row_order import EpochSampler, Order, by_length, redrawn, shuffled, unshuffled
from alignment.data.token_batches import TokenBatches, longest_first
from alignment.resuming.checkpoints import seal, step_of
from alignment.resuming.ending import EndRequest
from alignment.resuming.finite import FiniteTraining, check_weights
from alignment.resuming.inexact import (
    draw_anew,
)
from alignment.resuming.kept_state import write_state
from alignment.resuming.ledger import Ledger, Plan

ROW_IDS = "row_ids"
"""In a batch: the ids of its rows."""


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
    end_request: EndRequest
    _sampler: EpochSampler | TokenBatches | None = None

    @property
    def _trainer(self) -> Any:
        """This trainer, as TRL's types do not know it."""
        return self

    def _set_signature_columns_if_needed(self) -> None:
        trainer: Any = super()
        # transformers 5.23 drops the columns that are not in this private list, and has no public way to keep one by
        # name; a public list would let this go.
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
            # Private in transformers 5.23, and the one place between loading a checkpoint and its first step; goes once
            # `train` ends by itself where the checkpoint is of the last step.
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
            # Private in transformers 5.23: `on_save` comes after the old checkpoints are rotated away, and a seal must
            # come before. A callback between writing and rotating would let this go.
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
            # Private in transformers 5.23, which loads whatever state of this rank's number is there, and goes on
            # without one where none is; a public hook would let this go.
            trainer._load_rng_state(checkpoint)
        else:
            arguments = self._trainer.args
            draw_anew(arguments.seed, step_of(self.resumed_from), arguments.process_index)

    def kept_state(self) -> dict[str, Any]:
        """What this process must find again to go on, beside what transformers keeps."""
        trainer = self._trainer
        return {
            # What transformers 5.23 (`_tr_loss`, `_globalstep_last_logged`) and TRL 1.16 (`_metrics`,
            # `_total_train_tokens`) hold between two log lines and save in no checkpoint. Goes once they save it, or
            # offer `state_dict`.
            "loss": trainer._tr_loss,
            "last_logged": trainer._globalstep_last_logged,
            "metrics": {mode: dict(values) for mode, values in trainer._metrics.items()},
            "train_tokens": trainer._total_train_tokens,
            "callbacks": {type(c).__name__: c.kept_state() for c in _with_state(trainer)},
            "reference": trainer.ref_model.state_dict() if moves_reference(trainer) else None,
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


def moves_reference(trainer: Any) -> bool:
    """Whether the reference model follows the one that is trained, and so is state."""
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
        # Private in TRL 1.16, and where rows become answers: their ids are put back, for the ledger. A hook that hands
        # the rows on beside the answers would let this go.
        output = trainer._generate_and_score_completions(inputs)
        return output | ({ROW_IDS: [row["id"] for row in inputs]} if "id" in inputs[0] else {})

    def kept_state(self) -> dict[str, Any]:
        """Also the place in the generation batch, and the batch."""
        trainer = self._trainer
        # TRL 1.16 counts micro-batches in `_step` and trains several steps on `_buffered_inputs`, neither of which it
        # saves: without them a run goes on with new answers. Goes once TRL resumes within a generation batch.
        return super().kept_state() | {"step": trainer._step, "buffer": trainer._buffered_inputs}

    def restore_state(self, state: dict[str, Any]) -> None:
        """Takes it up again."""
        super().restore_state(state)
        self._trainer._step, self._trainer._buffered_inputs = state["step"], state["buffer"]
