"""Bradley-Terry training of a VLM reward model on preference rows with images (trl's RewardTrainer has no vision path).

loss = w x -log sigmoid(score(chosen) - score(rejected) - margin), a mean as ``weighting`` says; ``margin`` is a column
of the rows, if they have it; ``trainer.center_rewards_coefficient`` adds TRL's pull towards a mean score of 0
(Eisenstein et al. 2023). ``rejected_images``, where a row has them, are what the rejected answer is scored under.
"""

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset
from peft import LoraConfig
from transformers import ProcessorMixin
from trl import RewardConfig, RewardTrainer

from alignment.checks.trainer_faults import made_config
from alignment.config.checkpoint_folders import HEAD
from alignment.config.foreign_code import SAFE
from alignment.config.recipe import Recipe, Weighting
from alignment.models.loading import load_model
from alignment.models.reward_model import answer_scores, reward_model_on, shares_prompt
from alignment.resuming.resumable import Resumable
from alignment.shared_prefix.layout import Batch, tokens_computed
from alignment.training.losses import weighted_mean
from alignment.training.mixed_batches import dummy_image, run_vision_always
from alignment.training.preference_batches import PreferenceCollator

COLUMNS = ("id", "images", "rejected_images", "prompt", "chosen", "rejected", "weight", "margin")


@dataclasses.dataclass
class RewardCollator(PreferenceCollator):
    """The packed batch of preference rows with the ``margin`` (B) that each is to be won by, 0 where rows have none."""

    def __call__(self, rows: list[dict[str, Any]]) -> Batch:
        """The batch of these rows; each row's answers stand in turn, the chosen one first."""
        batch = super().__call__(rows)
        batch["margin"] = torch.tensor([float(row.get("margin") or 0.0) for row in rows])
        return batch


def preference_loss(
    chosen_B: torch.Tensor, rejected_B: torch.Tensor, margin_B: torch.Tensor, weight_B: torch.Tensor | None, how: Any
) -> torch.Tensor:
    """The scalar mean of w x -log sigmoid(chosen - rejected - margin); ``how``: reduction, as ``weighted_mean``'s.

    >>> one, none = torch.tensor([2.0]), torch.tensor([0.0])
    >>> round(preference_loss(one, none, one, None, "mean").item(), 4)  # ln 2: won by the margin exactly
    0.6931
    """
    return weighted_mean(-F.logsigmoid(chosen_B - rejected_B - margin_B), weight_B, reduction=how)


class VisionRewardTrainer(Resumable, RewardTrainer):
    """RewardTrainer whose rows are packed groups with images; logged names are TRL's."""

    def __init__(self, *, weighting: Weighting, processor: Any, **kwargs: Any) -> None:
        self.weighting = weighting
        super().__init__(**kwargs, processing_class=processor.tokenizer)
        self.processing_class = processor  # what is saved beside the weights
        self.callback_handler.processing_class = processor

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        """The rows as they are: the collator renders and tokenizes them with their images."""
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = list(COLUMNS)

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of a batch; accuracy, margin and scores are logged over all processes."""
        del num_items_in_batch
        weight = inputs["weight"] if self.weighting.use else None
        batch = {k: v for k, v in inputs.items() if k not in ("weight", "chosen", "rejected", "margin", "truncated")}
        scores_A = answer_scores(model, batch)
        chosen, rejected = scores_A[inputs["chosen"]], scores_A[inputs["rejected"]]
        loss = preference_loss(chosen, rejected, inputs["margin"], weight, self.weighting.reduction)
        arguments: Any = self.args
        if arguments.center_rewards_coefficient is not None:
            loss = loss + arguments.center_rewards_coefficient * ((chosen + rejected) ** 2).mean()
        self._log_scores(chosen, rejected, tokens_computed(batch))
        return (loss, {"scores": scores_A}) if return_outputs else loss

    def _log_scores(self, chosen: torch.Tensor, rejected: torch.Tensor, tokens: tuple[int, int]) -> None:
        model: Any = self.model
        metrics = self._metrics["train" if model.training else "eval"]
        figures = {
            "accuracy": (chosen > rejected).float(),
            "margin": chosen - rejected,
            "mean_reward": (chosen + rejected) / 2,
            "tokens/computed": chosen.new_tensor([tokens[0]]),
            "tokens/saved": chosen.new_tensor([tokens[1]]),
        }
        for name, values in figures.items():
            everywhere: Any = self.accelerator.gather(values.detach().float())
            total = everywhere.sum() if name.startswith("tokens") else everywhere.mean()
            metrics[name].append(total.item())


def reward_trainer(
    recipe: Recipe,
    model: Any,
    processor: ProcessorMixin,
    data: Dataset,
    *,
    arguments: dict[str, Any],
    peft_config: LoraConfig | None,
) -> VisionRewardTrainer:
    """The trainer for this recipe. ``model``: the VLM's path, or a loaded adapter, which is merged."""
    settings = {"max_length": None, **arguments}
    options = settings.pop("model_init_kwargs", {})
    config = made_config(RewardConfig, settings)  # before the model is loaded: it may say that weights are sharded
    vlm = load_model(model, **_load_options(options)) if isinstance(model, str) else model
    if peft_config is not None:
        peft_config = dataclasses.replace(peft_config, task_type=None, modules_to_save=[HEAD])
    kept = [c for c in COLUMNS if c in data.column_names]
    collator = RewardCollator(processor, max_length=config.max_length)
    trainer = VisionRewardTrainer(
        weighting=recipe.weighting,
        processor=processor,
        model=reward_model_on(vlm, seed=config.seed),
        args=config,
        data_collator=collator,
        train_dataset=data.select_columns(kept),
        peft_config=peft_config,
    )
    run_vision_always(trainer.model, dummy_image(processor))
    collator.shared = shares_prompt(recipe.model.shared_prefix, trainer.model)
    return trainer


def _load_options(options: dict[str, Any]) -> dict[str, Any]:
    """TRL's options as ``load_model`` names them; the safe ones are its own."""
    named = {"attention" if name == "attn_implementation" else name: value for name, value in options.items()}
    return {name: value for name, value in named.items() if name not in SAFE}
