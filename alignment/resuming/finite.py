"""Training that stops where a number is none: a loss, a gradient norm or a trained weight that is NaN or infinite.

transformers filters such losses out of its log and trains on, so that a run would end with every weight NaN and exit
code 0. Left out: gradient norms under a loss scaler (fp16), which skips such steps and lowers its scale by itself.
"""

import math
from typing import Any

import torch

from rewards.config.input_error import InputError

CURE = "training stops and nothing is saved as finished. Lower trainer.learning_rate, or look at the data."


class FiniteTraining:
    """Stops a trainer at the first loss or gradient norm that is not finite; stands before it among the bases."""

    @property
    def _trained(self) -> Any:
        """This trainer, as TRL's types do not know it."""
        return self

    def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
        """TRL's.

        Raises: InputError if its loss is not finite.
        """
        trainer: Any = super()
        loss = trainer.training_step(*arguments, **options)
        self._stop_unless_finite("loss", float(loss))
        return loss

    def _get_grad_norm(self, *arguments: Any, **options: Any) -> Any:
        """TRL's, before the optimizer makes a step of these gradients."""
        trainer: Any = super()
        # Private in transformers 5.23, and the last look at the norm before the optimizer steps;
        # `on_pre_optimizer_step` is not given it. A callback that is would let this go.
        norm = trainer._get_grad_norm(*arguments, **options)
        if norm is not None and not self._scales_losses():
            self._stop_unless_finite("gradient norm", float(norm))
        return norm

    def _scales_losses(self) -> bool:
        """Whether a scaler tries steps whose gradients overflow and skips them."""
        accelerator = self._trained.accelerator
        return accelerator.scaler is not None or accelerator.mixed_precision == "fp16"

    def _stop_unless_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            step = self._trained.state.global_step + 1
            raise InputError(f"{self._trained.args.output_dir}: the {what} of step {step} is {value}; {CURE}")


def check_weights(trainer: Any) -> None:
    """Returns where every trained weight of every process is finite.

    Raises: InputError that names the first that is not.
    """
    wrong = [name for name, held in trainer.model.named_parameters() if held.requires_grad and not _is_finite(held)]
    counts = trainer.accelerator.gather(torch.tensor([len(wrong)], device=trainer.accelerator.device))
    total = int(counts.sum())
    if total:
        named = f", the first is {wrong[0]}" if wrong else ""
        step = trainer.state.global_step
        raise InputError(
            f"{trainer.args.output_dir}: after step {step} trained tensors are not finite ({total}{named}); {CURE}"
        )


def _is_finite(held: Any) -> bool:
    """Of a parameter, or of this process' part of one that ZeRO-3 has divided."""
    part = getattr(held, "ds_tensor", held)
    return bool(torch.isfinite(part.detach()).all())
