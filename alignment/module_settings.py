"""Learning rates by part of the model; checkpointing and attention of the vision tower by themselves.

A part is ``vision``, ``projector`` or ``language`` (see ``models.part_of``). Left out: rates by layer.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint
from transformers import TrainerCallback

from alignment.models import part_of
from alignment.recipe import ModelSection
from alignment.tower_attention import use_one_call
from rewards.strict_yaml import InputError

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
                    module._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
