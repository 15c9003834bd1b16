"""Learning rates by part of the model; the vision tower's checkpointing, attention and gradients; adapters' casts.

A part is ``vision``, ``projector`` or ``language`` (see ``models.part_of``). Left out: rates by layer.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Dropout, ModuleList
from torch.utils.checkpoint import checkpoint
from transformers import TrainerCallback

from alignment.config.model_section import ModelSection
from alignment.models.parts import part_of
from alignment.models.tower_attention import use_one_call
from rewards.config.input_error import InputError

log = logging.getLogger(__name__)


def set_modules(trainer: Any, section: ModelSection) -> None:
    """Gives a trainer the section's ``learning_rates``, ``tower_checkpointing`` and ``tower_attention``.

    Raises: InputError for a learning rate of a part of which nothing is trained.
    """
    if section.learning_rates:
        trained = {part_of(name) for name, p in trainer.model.named_parameters() if p.requires_grad}
        if idle := sorted(set(section.learning_rates) - trained):
            raise InputError(f"model.learning_rates: nothing of {', '.join(idle)} is trained; leave it out.")
        trainer.create_optimizer = partial(_optimizer, trainer, trainer.create_optimizer, {**section.learning_rates})
    if section.tower_checkpointing is not None:
        trainer.add_callback(TowerCheckpointing(on=section.tower_checkpointing))
    spare_frozen_tower(trainer.model)
    keep_input_dtype(trainer.model)
    for model in filter(None, (trainer.model, getattr(trainer, "ref_model", None))):
        log.info(use_one_call(model, section.tower_attention))


def _optimizer(trainer: Any, made_by: Any, rates: Mapping[str, float], model: Any = None) -> Any:
    """The trainer's own optimizer, each of its groups split by part. What has no rate keeps the trainer's."""
    is_made = trainer.optimizer is not None
    optimizer = made_by(model)
    if is_made:
        return optimizer
    part = {id(p): part_of(name) for name, p in (model or trainer.model).named_parameters()}
    optimizer.param_groups[:] = [new for group in optimizer.param_groups for new in _split(group, part, rates)]
    return optimizer


def _split(group: dict[str, Any], part: dict[int, str], rates: Mapping[str, float]) -> list[dict[str, Any]]:
    by_part: dict[str, list[Any]] = defaultdict(list)
    for parameter in group["params"]:
        by_part[part[id(parameter)]].append(parameter)
    return [{**group, "params": params, "lr": rates.get(name, group["lr"])} for name, params in by_part.items()]


class TowerCheckpointing(TrainerCallback):
    """Sets activation checkpointing of the vision tower after the trainer has set the whole model's."""

    def __init__(self, *, on: bool) -> None:
        self.on = on

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Switches every layer of the tower."""
        for name, module in model.named_modules():
            if hasattr(module, "gradient_checkpointing") and part_of(name) == "vision":
                module.gradient_checkpointing = self.on
                if self.on and not hasattr(module, "_gradient_checkpointing_func"):
                    # Private in transformers 5.23, whose `gradient_checkpointing_enable` is for whole models; goes once
                    # it is not.
                    module._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)


def spare_frozen_tower(model: Any) -> bool:
    """Whether no gradient goes through the vision tower from now on, as nothing of it is trained.

    Under activation checkpointing transformers (5.17 to 5.24) lets every embedding's output require a gradient, a
    tower's patches too, for adapters in the layers behind. A frozen tower without any is then computed forward a second
    time, and backward, for a gradient that nobody takes: with a 7B model and 1,300 image tokens a fifth of an update's
    matrix products. No number changes.
    """
    if any(p.requires_grad and part_of(name) == "vision" for name, p in model.named_parameters()):
        return False
    named = [(name, m) for name, m in model.named_modules() if isinstance(m, ModuleList) and part_of(name) == "vision"]
    layers = [stack for _, stack in named]
    for name, stack in ((name, stack) for name, stack in named if len(stack)):
        holder = model.get_submodule(
            name.rpartition(".")[0]
        )  # before a layer is called: 5.17 checkpoints its hooks too
        holder.register_forward_pre_hook(partial(_not_checkpointed, stack))
        stack[0].register_forward_pre_hook(partial(_without_gradient, stack), with_kwargs=True)
    return any(map(len, layers))


def _without_gradient(stack: Any, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first layer's arguments, detached; at every pass, as trl switches checkpointing off and on between passes."""
    _not_checkpointed(stack)
    return tuple(map(_detached, args)), {name: _detached(value) for name, value in kwargs.items()}


def _not_checkpointed(stack: Any, *_: Any) -> None:
    for layer in stack:
        if hasattr(layer, "gradient_checkpointing"):
            layer.gradient_checkpointing = False


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def keep_input_dtype(model: Any) -> int:
    """How many adapters take an input in half precision as it is from now on, while autocast is on.

    peft casts it to the adapter's float32, and autocast casts it back before the product: a round trip that changes no
    bit, forward, recomputed and backward, of which every adapter keeps its own copy (peft's 4-bit layers leave it out
    in the same way). Not where dropout stands between the two casts, and not outside autocast (generation).
    """
    adapted = [module for module in model.modules() if hasattr(module, "_cast_input_dtype")]  # peft 0.21
    # a variant, such as DoRA, computes with the cast input too
    plain = [m for m in adapted if not has_dropout(m) and not getattr(m, "lora_variant", None)]
    for module in plain:
        # Private in peft 0.21; goes once peft leaves the cast out under autocast, as its 4-bit layers do.
        module._cast_input_dtype = partial(_cast_outside_autocast, module._cast_input_dtype)
    return len(plain)


def has_dropout(adapted: Any) -> bool:
    """Whether an adapted module drops some of what its adapters take in."""
    return any(isinstance(module, Dropout) for module in getattr(adapted, "lora_dropout", {}).values())


def _cast_outside_autocast(cast: Callable[..., Any], x: Any, dtype: Any) -> Any:
    kind = x.device.type if isinstance(x, Tensor) else ""
    as_it_is = kind and torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == x.dtype
    return x if as_it_is else cast(x, dtype)
