"""The parts of a model: which are trained."""

import torch
from peft import LoraConfig

from alignment.config.model_section import Lora
from rewards.config.input_error import InputError

VISION_PARTS = ("vision", "visual", "image_encoder")


PROJECTOR_PARTS = ("connector", "projector", "merger", "mlp1", "embed_vision")


def freeze(model: torch.nn.Module, parts: list[str]) -> None:
    """Switch off gradients of whole parts of the model.

    Raises: InputError if a part matches no parameter, so that a frozen tower is never only believed.
    """
    frozen = dict.fromkeys(parts, 0)
    for name, parameter in model.named_parameters():
        part = part_of(name)
        if part in frozen and "lora_" not in name and ".score." not in f".{name}":  # a reward model's head is none
            parameter.requires_grad_(False)
            frozen[part] += 1
    empty = [part for part, count in frozen.items() if not count]
    if empty:
        raise InputError(f"model.freeze: {', '.join(empty)} matches no parameter of {type(model).__name__}.")


def part_of(parameter_name: str) -> str:
    """``vision``, ``projector`` or ``language``.

    >>> part_of("model.vision_model.encoder.layers.0.mlp.fc1.weight"), part_of("lm_head.weight")
    ('vision', 'language')
    """
    if any(part in parameter_name for part in PROJECTOR_PARTS):
        return "projector"
    return "vision" if any(part in parameter_name for part in VISION_PARTS) else "language"


def lora_config(lora: Lora | None) -> LoraConfig | None:
    """PEFT's config of a recipe's ``lora`` section."""
    if lora is None:
        return None
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        task_type="CAUSAL_LM",
    )
