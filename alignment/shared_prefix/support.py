"""Which models and kernels take a prompt with several answers in one forward pass."""

import logging
from typing import Any, Literal, get_args

from peft import PeftModel

from rewards.config.input_error import InputError

Setting = Literal["auto", "on", "cached", "off"]


Form = Literal["packed", "cached", "repeated"]


# Proven equal to the repeated layout by tests/alignment/shared_prefix/test_shared_prefix_families.py.
PROVEN = (
    *("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava", "llava_next", "llava_onevision"),
    *("gemma3", "idefics3", "smolvlm", "internvl"),
)


MASKED_KERNELS = ("sdpa", "eager", "flex_attention")


logger = logging.getLogger(__name__)


def refusal(model: Any) -> str | None:
    """Why this model can share a prefix in no form, or None if it can."""
    config = base_model(model).config
    text = config.get_text_config()
    if config.model_type not in PROVEN:
        return f"{config.model_type} is not among the families proven exact ({', '.join(PROVEN)})"
    if getattr(text, "sliding_window", None) and "sliding_attention" not in (getattr(text, "layer_types", None) or ()):
        return f"{text.model_type} slides its attention window in a way that is not handled"
    if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
        return "a prompt-learning adapter puts its own tokens before the prompt"
    return None


def resolved(setting: Setting, model: Any, *, checkpointing: bool = False) -> Form:
    """The form in which answers are scored: ``packed`` where the attention kernel takes a mask, else ``cached``.

    ``auto`` falls back to the repeated layout with one line in the log.

    Args:
        setting: the recipe's; ``cached`` asks for that form whatever the kernel.
        model: the policy.
        checkpointing: whether training recomputes activations, which no cache survives.

    Raises: InputError if ``on`` or ``cached`` is asked of a model that cannot, or the setting is none of these.
    """
    if setting not in get_args(Setting):
        raise InputError(f"shared_prefix: one of {', '.join(get_args(Setting))} is expected, got {setting!r}.")
    if setting == "off":
        return "repeated"
    kernel = base_model(model).config.get_text_config()._attn_implementation
    cached = setting == "cached" or kernel not in MASKED_KERNELS
    reason = refusal(model)
    if reason is None and cached and checkpointing:
        why = "as asked" if setting == "cached" else f"as '{kernel}' takes no mask"
        reason = f"through a cache, {why}, it needs trainer.activation_checkpointing: false"
    if reason and setting != "auto":
        raise InputError(f"model.shared_prefix: '{setting}' is not possible: {reason}. Use 'auto' or 'off'.")
    if reason:
        logger.warning("shared prefix is off: %s; every answer gets its own copy of the prompt.", reason)
        return "repeated"
    return "cached" if cached else "packed"


def base_model(model: Any) -> Any:
    """The model beneath adapters and engines."""
    model = getattr(model, "module", model)
    return model.get_base_model() if isinstance(model, PeftModel) else model
