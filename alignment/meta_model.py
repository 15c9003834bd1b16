"""A recipe's model on the meta device: its parameters are counted, and no weight is read.

A folder with nothing but ``config.json`` is enough. The sizes of models that this project has recipes for lie in
``recipes/architectures``, as their makers published them, so that a check needs no hub.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.config_faults import told_of_trl
from alignment.foreign_code import NotLoaded, pretrained
from alignment.memory import Layers
from alignment.recipe import Recipe
from rewards.strict_yaml import InputError

SHIPPED = Path(__file__).parents[1] / "recipes" / "architectures"


def known_config(path: str) -> Any:
    """The config at a folder, in the hub's local cache, or among the shipped sizes.

    Raises: InputError naming the cure where it is nowhere on this machine.
    """
    from transformers import AutoConfig

    shipped = SHIPPED / path.rpartition("/")[2]
    try:
        return pretrained(AutoConfig, path, local_files_only=True)
    except NotLoaded:
        if Path(path).is_dir():  # it is here, and damaged
            raise
        if (shipped / "config.json").is_file():
            return pretrained(AutoConfig, shipped)
    raise InputError(
        f"model.path: '{path}' is not on this machine. Download it (hf download {path}), or put its config.json alone "
        f"into a folder and name that: model.path=FOLDER."
    )


def model_config(recipe: Recipe) -> Any:
    """The config of the model at ``model.path``, a folder or a hub name; an adapter's is its base's."""
    from alignment.models import base_of, model_folder

    return known_config(base_of(model_folder(recipe.model.path)))


def meta_model(recipe: Recipe) -> Any:
    """The model with its adapters and frozen parts, on the meta device."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForImageTextToText

    from alignment.models import check_sees, freeze, lora_config

    config = model_config(recipe)
    check_sees(config, recipe.model.path)
    with torch.device("meta"):
        model: Any = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
        lora = lora_config(recipe.model.lora)
        with told_of_trl():
            model = get_peft_model(model, lora) if lora else model
    freeze(model, list(recipe.model.freeze))
    return model


@dataclass(frozen=True)
class Counts:
    """Parameters of a model: all, those of its base (without adapters), those that are trained."""

    total: int
    base: int
    trainable: int


def counts_of(model: Any) -> Counts:
    """The parameters by what becomes of them."""
    sizes = [(name, p.numel(), p.requires_grad) for name, p in model.named_parameters()]
    return Counts(
        total=sum(n for _, n, _ in sizes),
        base=sum(n for name, n, _ in sizes if "lora_" not in name),
        trainable=sum(n for _, n, trained in sizes if trained),
    )


def stacks_of(model: Any, tokens: float, *, checkpointed: bool, tower_checkpointed: bool) -> list[Layers]:
    """Language model and vision tower, for ``tokens`` tokens at once.

    Upper bound of the tower's share: as if all tokens were an image's, each made of ``spatial_merge_size`` (or
    ``scale_factor``) squared patches.
    """
    from alignment.models import part_of
    from alignment.shared_prefix import base_model

    config = base_model(model).config
    text, vision = config.get_text_config(), config.vision_config
    trained = {part_of(name) for name, p in model.named_parameters() if p.requires_grad}
    merge = getattr(vision, "spatial_merge_size", None) or getattr(config, "scale_factor", 1)
    depth = getattr(vision, "depth", None) or vision.num_hidden_layers
    return [
        Layers(text.num_hidden_layers, text.hidden_size, tokens, checkpointed=checkpointed),
        Layers(
            depth, vision.hidden_size, tokens * merge**2, trained="vision" in trained, checkpointed=tower_checkpointed
        ),
    ]
