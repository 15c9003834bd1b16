"""Weighted DPO on preference rows with images (MMedPO, Zhu et al. 2024, eq. 3).

A row's ``weight`` scales its loss; ``rejected_images``, where a row has them, are what the rejected answer is
scored under. Left out: the ``aot`` losses, which sort the batch and so cannot carry weights.
"""

from typing import Any

import torch
from datasets import Dataset
from transformers import ProcessorMixin
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

from alignment.losses import preference_margin, weighted_dpo_loss
from alignment.recipe import Recipe, Weighting
from rewards.strict_yaml import InputError

OWN_KEYS = ("weight",)


class WeightedPreferenceCollator(DataCollatorForVisionPreference):
    """TRL's collator, and beside its batch the weights and the rejected side's own images.

    The batch is [all chosen ; all rejected]; ``weight`` has one entry a pair.
    """

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch of these rows."""
        weights = [float(row.get("weight", 1.0)) for row in examples]
        rejected = [row.get("rejected_images") or row["images"] for row in examples]
        differ = any(row.get("rejected_images") for row in examples)
        batch = super().torch_call(
            [{k: row[k] for k in ("images", "prompt", "chosen", "rejected")} for row in examples]
        )
        if differ:
            _replace_rejected_pixels(batch, self.processor, rejected)
        batch["weight"] = torch.tensor(weights)
        return batch


def _replace_rejected_pixels(batch: dict[str, Any], processor: ProcessorMixin, images: list[list[Any]]) -> None:
    """Put the rejected side's pixels in the second half of the batch."""
    pixels = processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
    half = batch["pixel_values"].shape[0] // 2
    if pixels.shape != batch["pixel_values"][half:].shape:
        raise InputError("rejected_images: each must have the size of the image it replaces; rebuild the data set.")
    batch["pixel_values"] = torch.cat([batch["pixel_values"][:half], pixels])


class WeightedDPOTrainer(DPOTrainer):
    """DPOTrainer whose loss is MMedPO's weighted one. Logged rewards and margins are unweighted.

    With ``weighting.use`` false every weight is 1: plain DPO. ``sft_coefficient`` adds the mean negative
    log-likelihood of a chosen token.
    """

    def __init__(self, *, weighting: Weighting, **kwargs: Any) -> None:
        self.weighting = weighting
        super().__init__(**kwargs)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns = [*self._signature_columns, "weight", "rejected_images"]

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        weight = inputs.pop("weight")
        logps, outputs = self._answer_logps(model, inputs)
        with torch.no_grad():
            ref_chosen, ref_rejected = self._reference_logps(inputs)
        chosen, rejected = logps.chunk(2)
        margin = preference_margin(chosen, rejected, ref_chosen, ref_rejected, beta=self.beta)
        loss = weighted_dpo_loss(margin, weight if self.weighting.use else None, reduction=self.weighting.reduction)
        if self.weighting.sft_coefficient:
            tokens = inputs["completion_mask"].chunk(2)[0].sum()
            loss = loss - self.weighting.sft_coefficient * chosen.sum() / tokens
        self._log_pairs(chosen - ref_chosen, rejected - ref_rejected, weight)
        return (loss, outputs) if return_outputs else loss

    def _answer_logps(self, model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        """Summed log-probability of each answer (2B), chosen first."""
        kwargs = {
            k: v for k, v in inputs.items() if k not in ("completion_mask", "ref_chosen_logps", "ref_rejected_logps")
        }
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        outputs = model(**kwargs, use_cache=False, labels=labels, fused_lm_head=True)
        width = inputs["completion_mask"].shape[1] - 1
        return outputs.log_probs[:, -width:].sum(dim=1), outputs

    def _reference_logps(self, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        if self.precompute_ref_logps:
            return inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
        return self.compute_ref_log_probs(self.ref_model or self.model, inputs)

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """TRL's, without the columns that are ours."""
        return super().compute_ref_log_probs(model, {k: v for k, v in inputs.items() if k not in OWN_KEYS})

    def _log_pairs(self, chosen: torch.Tensor, rejected: torch.Tensor, weight: torch.Tensor) -> None:
        model: Any = self.model
        mode = "train" if model.training else "eval"
        figures = {
            "rewards/chosen": self.beta * chosen,
            "rewards/rejected": self.beta * rejected,
            "rewards/margins": self.beta * (chosen - rejected),
            "rewards/accuracies": (chosen > rejected).float(),
            "logps/chosen_drift": chosen,
            "weight": weight,
        }
        for name, values in figures.items():
            everywhere: Any = self.accelerator.gather_for_metrics(values.detach().float())
            self._metrics[mode][name].append(everywhere.mean().item())


def dpo_trainer(
    recipe: Recipe, model: Any, processor: ProcessorMixin, data: Dataset, **common: Any
) -> WeightedDPOTrainer:
    """The trainer for this recipe.

    Raises: InputError for a loss type that has no weighted form here.
    """
    arguments = DPOConfig(**{"max_length": None, **common["arguments"]})
    if list(arguments.loss_type) != ["sigmoid"]:
        raise InputError(f"trainer.loss_type: weighted DPO knows 'sigmoid', got {arguments.loss_type}.")
    kept = [
        c for c in ("images", "rejected_images", "prompt", "chosen", "rejected", "weight") if c in data.column_names
    ]
    return WeightedDPOTrainer(
        weighting=recipe.weighting,
        model=model,
        args=arguments,
        data_collator=WeightedPreferenceCollator(processor=processor, max_length=arguments.max_length),
        train_dataset=data.select_columns(kept),
        processing_class=processor,
        peft_config=common["peft_config"],
    )
