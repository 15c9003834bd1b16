"""Weighted DPO on preference rows (MMedPO, Zhu et al. 2024, eq. 3), by a recipe or in the place of trl.DPOTrainer.

A row's ``weight`` scales its loss; ``rejected_images``, where a row has them, are what the rejected answer is
scored under. Chosen and rejected share one prompt in one forward (``shared_prefix/layout.py``), and the reference's
log-probabilities are computed once and kept on disk (``reference_cache.py``). Left out: the ``aot`` losses, which sort
the batch and so cannot carry weights, and whatever else ``LEFT_OUT`` names.
"""

import contextlib
import copy
import hashlib
import json
import logging
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from peft import LoraConfig, PeftConfig, PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin, TrainerCallback
from trl import DPOConfig, DPOTrainer
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import use_adapter

from alignment.checks.trainer_faults import made_config
from alignment.config.recipe import Recipe, Weighting
from alignment.data.trl_rows import Rows, check_columns
from alignment.resuming.resumable import Resumable
from alignment.reward_functions.combined import gathered, process_index
from alignment.shared_prefix.forward import answer_outputs, model_inputs, score_answers_only
from alignment.shared_prefix.image_rows import with_images
from alignment.shared_prefix.layout import Batch, answer_sums, by_answer, tokens_computed
from alignment.shared_prefix.reference_cache import Logps, read_references, reference_file, row_key, write_references
from alignment.shared_prefix.support import Setting, resolved
from alignment.training.dpo_terms import (
    anchor_loss,
    span_logps,
    symmetric_loss,
    token_kl,
    token_kl_margin,
)
from alignment.training.losses import preference_margin, weighted_dpo_loss
from alignment.training.mixed_batches import dummy_image, run_vision_always
from alignment.training.preference_batches import LOSS_FIELDS, PreferenceCollator
from rewards.config.input_error import InputError

COLUMNS = (
    "id", "images", "rejected_images", "mirror_images", "prompt", "chosen", "rejected", "weight", "reference_logps",
)  # fmt: skip
OF_TRL = ("image", "tools", "chat_template_kwargs")
"""Columns that TRL reads beside these."""
LEFT_OUT = {
    "loss_type": ["sigmoid"],
    "loss_weights": None,
    "ld_alpha": None,
    "f_divergence_type": "reverse_kl",
    "use_weighting": False,
    "truncation_mode": "keep_start",
    "pad_token": None,
}
"""What of DPOConfig changes TRL's loss or rows and not ours, and the one value that it may have."""
logger = logging.getLogger(__name__)


def _alike(known: Logps) -> Logps:
    """What is known, or what rank 0 knows where the processes have read different files, on disks of their own nodes.

    All must lack the same rows, since they compute them together.
    """
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    if len(set(gathered(digest))) == 1:
        return known
    return gathered(known if process_index() == 0 else None)[0]


class WeightedDPOTrainer(Resumable, DPOTrainer):
    """trl.DPOTrainer, in whose place it stands, whose loss is MMedPO's weighted one where rows have a ``weight``.

    It takes what TRL's takes, in the same order, and rows in TRL's columns. Without a ``weight``, or with
    ``weighting.use`` false, every weight is 1: plain DPO, to rounding. ``sft_coefficient`` adds the mean negative
    log-likelihood of a chosen token; for the other terms see ``dpo_terms.py``. Logged rewards and margins are
    unweighted. With ``precompute_ref_log_probs``, also for images, what the reference gives is kept in
    ``output_dir/.cache`` (or ``CLINALIGN_CACHE``).

    Args:
        weighting: how weights enter the loss, and what is added to it.
        shared_prefix: whether chosen and rejected go through the model behind one copy of their prompt.

    Raises: InputError for settings and columns that it cannot honour.
    """

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        ref_model: PreTrainedModel | None = None,
        args: DPOConfig | None = None,
        data_collator: PreferenceCollator | None = None,
        train_dataset: Rows | None = None,
        eval_dataset: Rows | dict[str, Rows] | None = None,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        compute_metrics: None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        quantization_config: Any = None,
        peft_config: PeftConfig | None = None,
        *,
        weighting: Weighting | None = None,
        shared_prefix: Setting = "auto",
    ) -> None:
        self.weighting = Weighting.model_validate(weighting or {})
        _refuse(args, data_collator, compute_metrics)
        check_columns(train_dataset, ["chosen", "rejected"], "preference rows need")
        if {"image", "images"} & set(getattr(train_dataset, "column_names", None) or ()):
            check_columns(train_dataset, ["prompt"], "preference rows with images need")
        early = args is not None and args.precompute_ref_log_probs
        if args is not None and early:  # TRL's own, of which it knows none for images
            args = copy.copy(args)
            args.precompute_ref_log_probs = False
        collator: Any = data_collator or PreferenceCollator(processing_class)
        super().__init__(
            model=model,
            ref_model=ref_model,
            args=args,
            data_collator=collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            quantization_config=quantization_config,
            peft_config=peft_config,
        )
        self._wire(collator, shared_prefix)
        if early and _precomputes(self, asked=True):
            self.cache_references(Path(str(self.args.output_dir)))

    def _wire(self, collator: PreferenceCollator, shared_prefix: Setting) -> None:
        """Lets the models score answers only, and tells the collator what it is to give them."""
        arguments: Any = self.args
        form = resolved(shared_prefix, self.model, checkpointing=bool(arguments.gradient_checkpointing))
        collator.processor, collator.max_length = self.processing_class, arguments.max_length
        collator.shared, collator.mirror = form != "repeated", self.weighting.mirrors
        collator.mark_changed = self.weighting.counts_tokens
        for model in filter(None, (self.model, self.ref_model)):
            if self._is_vlm:
                run_vision_always(model, dummy_image(self.processing_class))
            score_answers_only(model, form)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns = [*self._signature_columns, *COLUMNS, *OF_TRL]

    def _compute_loss(self, model: Any, inputs: Batch, return_outputs: bool) -> Any:
        batch = {k: v for k, v in inputs.items() if k not in LOSS_FIELDS}
        outputs = answer_outputs(model, batch)
        reference_N = self._reference_logps(inputs)
        logps_A, reference_A = (self._answer_logps(values, inputs) for values in (outputs.log_probs[0], reference_N))
        chosen, rejected = logps_A[inputs["chosen"]], logps_A[inputs["rejected"]]
        ref_chosen, ref_rejected = reference_A[inputs["chosen"]], reference_A[inputs["rejected"]]
        margin = preference_margin(chosen, rejected, ref_chosen, ref_rejected, beta=self.beta)
        loss = self._loss(self._with_token_kl(margin, model, batch, inputs), chosen, ref_chosen, inputs)
        loss = loss + self._symmetric(margin, logps_A - reference_A, inputs)
        if self.weighting.sft_coefficient:
            own_A = answer_sums(outputs.log_probs[0], batch["answer_lengths"])
            tokens = batch["answer_lengths"][inputs["chosen"]].sum()
            loss = loss - self.weighting.sft_coefficient * own_A[inputs["chosen"]].sum() / tokens
        self._log_pairs(chosen - ref_chosen, rejected - ref_rejected, inputs)
        forwards = 1 + ("reference_logps" not in inputs) + 2 * bool(self.weighting.token_kl_coefficient)
        self._log_tokens(batch, forwards)
        return (loss, outputs) if return_outputs else loss

    def _answer_logps(self, values_N: torch.Tensor, inputs: Batch) -> torch.Tensor:
        """The log-probability of each answer (A): the sum over its tokens, or as ``weighting`` counts them."""
        if not self.weighting.counts_tokens:
            return answer_sums(values_N, inputs["answer_lengths"])
        values, mask = by_answer(values_N, inputs["answer_lengths"])
        changed, _ = by_answer(inputs["changed"], inputs["answer_lengths"])
        gamma, average = self.weighting.changed_weight, self.weighting.length_average
        return span_logps(values, mask, changed, gamma=gamma, average=average)

    def _loss(
        self, margin_B: torch.Tensor, chosen_B: torch.Tensor, ref_chosen_B: torch.Tensor, inputs: Batch
    ) -> torch.Tensor:
        """The weighted loss of the pairs and, where it is on, the anchor of their chosen answers."""
        options = self.weighting
        weight = inputs["weight"] if options.use else None
        loss = weighted_dpo_loss(margin_B, weight, reduction=options.reduction)
        if options.anchor_coefficient:
            how: Any = dict(beta=self.beta, delta=options.anchor_delta, reduction=options.reduction)
            loss = loss + options.anchor_coefficient * anchor_loss(chosen_B, ref_chosen_B, weight, **how)
        return loss

    def _symmetric(self, margin_B: torch.Tensor, ratio_A: torch.Tensor, inputs: Batch) -> torch.Tensor | float:
        """What SymMPO adds for the rows with a look-alike, as a mean over all rows of the batch."""
        rows_M = inputs.get("mirrored")
        if not self.weighting.mirrors or rows_M is None or not len(rows_M):
            return 0.0
        first_M = 2 * len(margin_B) + 2 * torch.arange(len(rows_M), device=ratio_A.device)
        mirrored_M = self.beta * (ratio_A[first_M] - ratio_A[first_M + 1])
        weight_M = inputs["weight"][rows_M] if self.weighting.use else None
        both: Any = dict(coefficient=self.weighting.symmetric_coefficient, consistency=self.weighting.consistency)
        return symmetric_loss(margin_B[rows_M], mirrored_M, weight_M, **both) * len(rows_M) / len(margin_B)

    def _with_token_kl(self, margin_B: torch.Tensor, model: Any, batch: Batch, inputs: Batch) -> torch.Tensor:
        """The margin less the token-level KL, for which both models are asked for every token's whole distribution."""
        coefficient = self.weighting.token_kl_coefficient
        if not coefficient:
            return margin_B
        with self._as_reference() as reference:
            ref_logits = _answer_logits(reference, batch)
        kl_A = answer_sums(token_kl(_answer_logits(model, batch), ref_logits), batch["answer_lengths"])
        chosen, rejected = kl_A[inputs["chosen"]], kl_A[inputs["rejected"]]
        return token_kl_margin(margin_B, chosen, rejected, beta=self.beta, coefficient=coefficient)

    def _reference_logps(self, inputs: Batch) -> torch.Tensor:
        """Log-probability of each answer token under the reference (N): from the rows, or computed now."""
        if "reference_logps" in inputs:
            return inputs["reference_logps"]
        return self.reference_token_logps({k: v for k, v in inputs.items() if k not in LOSS_FIELDS})

    def reference_token_logps(self, batch: Batch) -> torch.Tensor:
        """One forward of the reference."""
        with self._as_reference() as reference:
            return answer_outputs(reference, batch).log_probs[0]

    @contextlib.contextmanager
    def _as_reference(self) -> Generator[Any]:
        """The reference, without gradients: its own model, or the policy with its adapter off (or as it was)."""
        model: Any = self.model
        arguments: Any = self.args
        policy: Any = self.accelerator.unwrap_model(model)
        adapter = contextlib.nullcontext()
        if self.ref_model is None:
            assert isinstance(policy, PeftModel), "the reference model was dropped, but a row has no reference_logps"
            adapter = use_adapter(policy, adapter_name="ref" if "ref" in policy.peft_config else None)
        with (
            torch.no_grad(),
            disable_gradient_checkpointing(model, arguments.gradient_checkpointing_kwargs),
            adapter,
            self.accelerator.autocast(),
        ):
            yield self.ref_model or model

    def cache_references(self, run: Path) -> None:
        """Computes what the cache of this folder lacks and gives it to the rows; a reference needed no more is let go.

        Raises: InputError for rows that stream by.
        """
        collator: Any = self.data_collator
        if not isinstance(self.train_dataset, Dataset):
            raise InputError("precompute_ref_log_probs: not for rows that stream by; set it to False.")
        data: Any = self.train_dataset
        file = reference_file(self.ref_model or self.model, collator.processor, collator.max_length, run=run)
        keys = [row_key(with_images(row)) for row in data]
        known = _alike(read_references(file))
        missing = list({key: index for index, key in enumerate(keys) if key not in known}.values())
        if missing:
            known |= self._computed_references(missing, keys)
            if self.accelerator.is_main_process:
                write_references(file, known)
        logger.info("reference log-probabilities: %d rows, %d computed now, kept in %s", len(keys), len(missing), file)
        self.train_dataset = data.add_column("reference_logps", [known[key] for key in keys])
        later: Any = self.eval_dataset
        if self.ref_model is not None and later is None:
            prepared: Any = self.accelerator._models  # pyright: ignore[reportPrivateUsage]
            prepared[:] = [
                model for model in prepared if model is not self.ref_model
            ]  # a DeepSpeed engine is not there
            self.ref_model = None

    def _computed_references(self, indices: list[int], keys: list[str]) -> Logps:
        """Each rank's share, in equally many batches on every rank: a sharded model needs all ranks at every step."""
        size, ranks = self.args.per_device_train_batch_size, self.accelerator.num_processes
        rounds = -(-len(indices) // (size * ranks))
        padded = [indices[k % len(indices)] for k in range(rounds * size * ranks)]
        mine = padded[self.accelerator.process_index :: ranks]
        found = [pair for k in range(0, len(mine), size) for pair in self._references_of(mine[k : k + size], keys)]
        return dict(gather_object(found))

    def _references_of(self, indices: list[int], keys: list[str]) -> list[tuple[str, list[float]]]:
        data: Any = self.train_dataset
        inputs: Any = self._prepare_inputs(self.data_collator([data[i] for i in indices]))
        values = self._reference_logps(inputs).float().cpu()
        lengths = inputs["answer_lengths"].view(-1, 2).sum(dim=1).tolist()
        return [(keys[i], v.tolist()) for i, v in zip(indices, values.split(lengths), strict=True)]

    def _log_tokens(self, batch: Batch, forwards: int) -> None:
        """Tokens of a step on all ranks, those that the reference saw now among them."""
        model: Any = self.model
        counts: Any = forwards * torch.tensor([tokens_computed(batch)], device=self.accelerator.device)
        everywhere: Any = self.accelerator.gather(counts)
        computed, saved = everywhere.sum(dim=0).tolist()
        metrics = self._metrics["train" if model.training else "eval"]
        metrics["tokens/computed"].append(computed)
        metrics["tokens/saved"].append(saved)

    def _log_pairs(self, chosen: torch.Tensor, rejected: torch.Tensor, inputs: Batch) -> None:
        model: Any = self.model
        mode = "train" if model.training else "eval"
        figures = {
            "rewards/chosen": self.beta * chosen,
            "rewards/rejected": self.beta * rejected,
            "rewards/margins": self.beta * (chosen - rejected),
            "rewards/accuracies": (chosen > rejected).float(),
            "logps/chosen_drift": chosen,
            "weight": inputs["weight"],
        }
        if "truncated" in inputs:
            figures["truncated"] = inputs["truncated"].view(-1, 2).any(dim=1)
        for name, values in figures.items():
            everywhere: Any = self.accelerator.gather(values.detach().float())
            self._metrics[mode][name].append(everywhere.mean().item())


def _refuse(args: DPOConfig | None, collator: object, compute_metrics: object) -> None:
    """Raises InputError for what of TRL's trainer has no weighted form here."""
    for name, only in LEFT_OUT.items() if args is not None else ():
        given = getattr(args, name)
        if (list(given) if isinstance(only, list) else given) != only and (name, given) != ("loss_weights", [1.0]):
            raise InputError(
                f"trainer.{name}: weighted DPO knows {only!r}, got {given!r}. trl.DPOTrainer knows others."
            )
    if collator is not None and not isinstance(collator, PreferenceCollator):
        kind = type(collator).__name__
        raise InputError(f"data_collator: {kind} makes other batches than this trainer reads; leave it out.")
    if compute_metrics is not None:
        raise InputError(
            "compute_metrics: no logits are kept to compute metrics of; use trl.DPOTrainer, or leave it out."
        )


def _answer_logits(model: Any, batch: Batch) -> torch.Tensor:
    """The logits that predict each answer token (N, V)."""
    inputs = model_inputs(model, batch)
    return model(**inputs, use_cache=False, answer_positions=batch["answer_positions"]).logits[0]


def dpo_trainer(
    recipe: Recipe,
    model: Any,
    processor: ProcessorMixin,
    data: Dataset,
    *,
    arguments: dict[str, Any],
    peft_config: LoraConfig | None,
) -> WeightedDPOTrainer:
    """The trainer for this recipe.

    ``trainer.precompute_ref_log_probs`` says whether the reference is computed before training and kept on disk;
    unsaid, it is where training visits every row.

    Raises: InputError for a loss that has no weighted form here.
    """
    mirror = recipe.weighting.mirrors
    kept = [c for c in COLUMNS if c in data.column_names and (mirror or c != "mirror_images")]
    if recipe.weighting.use and "weight" not in kept:
        logger.warning("%s: its rows have no weight, so each weighs 1: plain DPO", recipe.data.train)
    settings = {"max_length": None, **arguments}
    precompute = settings.pop("precompute_ref_log_probs", None)
    config: Any = made_config(DPOConfig, settings)
    trainer = WeightedDPOTrainer(
        model,
        args=config,
        train_dataset=data.select_columns(kept),
        processing_class=processor,
        peft_config=peft_config,
        weighting=recipe.weighting,
        shared_prefix=recipe.model.shared_prefix,
    )
    if _precomputes(trainer, precompute):
        trainer.cache_references(Path(config.output_dir).parent)  # checkpoints lie in the run's folder
    return trainer


def _precomputes(trainer: WeightedDPOTrainer, asked: bool | None) -> bool:
    """Whether the reference is computed up front: as asked, else where nothing needs it later."""
    if asked is not None:
        return asked
    arguments: Any = trainer.args
    needs_it = trainer.weighting.token_kl_coefficient or trainer.weighting.mirrors
    sharded_adapter = trainer.ref_model is None and trainer.is_deepspeed_enabled
    if needs_it or sharded_adapter or arguments.sync_ref_model:
        return False
    rows = len(trainer.train_dataset)  # pyright: ignore[reportArgumentType]
    visited = arguments.max_steps * arguments.train_batch_size * arguments.gradient_accumulation_steps
    return arguments.max_steps <= 0 or visited * trainer.accelerator.num_processes >= rows
