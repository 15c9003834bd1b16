"""Names that differ among the releases of transformers in range. Recipes and code keep one; the release is probed.

Left out: comparing versions. What is there says so itself.
"""

from dataclasses import fields
from typing import Any

TRAINER_KEYS = {
    "activation_checkpointing": "gradient_checkpointing",
    "activation_checkpointing_kwargs": "gradient_checkpointing_kwargs",
}
"""A trainer's keys since transformers 5.23, each with its name before."""
CACHES = ("cache", "past_key_values")
"""The key-value cache among a forward's arguments and in its output: since transformers 5.24, and before."""


def trainer_keys(config: type) -> dict[str, Any]:
    """Types by name of what a recipe's trainer section may hold: the config's fields, and newer names of them."""
    kinds = {field.name: field.type for field in fields(config)}
    return {new: kinds[old] for new, old in TRAINER_KEYS.items()} | kinds


def installed_keys(trainer: dict[str, Any], known: set[str] | None = None) -> dict[str, Any]:
    """A recipe's trainer section in the names of the installed release.

    ``known``: the keys that it takes (None: those of ``transformers.TrainingArguments``). Where a section has both
    names of one setting the newer one holds, as it does in transformers.

    >>> installed_keys({"seed": 1, "activation_checkpointing": False}, {"seed", "gradient_checkpointing"})
    {'seed': 1, 'gradient_checkpointing': False}
    """
    known = _training_arguments() if known is None else known
    older = {new: old for new, old in TRAINER_KEYS.items() if new in trainer and new not in known}
    kept = {key: value for key, value in trainer.items() if key not in older}
    return kept | {old: trainer[new] for new, old in older.items()}


def _training_arguments() -> set[str]:
    from transformers import TrainingArguments

    return {field.name for field in fields(TrainingArguments)}


def recomputes_activations(model: Any) -> bool:
    """Whether activation (once called gradient) checkpointing is on in any part of a model."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def cache_in(values: Any) -> Any:
    """The key-value cache in a forward's keyword arguments or output, or None."""
    return next((values[name] for name in CACHES if values.get(name) is not None), None)


def cache_name(values: Any) -> str:
    """The name under which an output that holds a cache has it, and under which the next forward takes it."""
    return next(name for name in CACHES if values.get(name) is not None)
