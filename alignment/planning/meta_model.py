"""A recipe's model on the meta device: its parameters are counted, and no weight is read.

A folder with nothing but ``config.json`` is enough. The sizes of models that this project has recipes for lie in
``recipes/architectures``, as their makers published them, so that a check needs no hub.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignment.checks.trainer_faults import faults_of_trl
from alignment.config.foreign_code import NotLoaded, pretrained
from alignment.config.recipe import Recipe
from alignment.planning.activations import Batch, Shape, Stack
from rewards.config.input_error import InputError
from rewards.config.shipped import shipped_recipes

PARTS = ("language", "vision")


def known_config(path: str) -> Any:
    """The config at a folder, in the hub's local cache, or among the shipped sizes.

    Raises: InputError naming the cure where it is nowhere on this machine.
    """
    from transformers import AutoConfig

    shipped = shipped_recipes() / "architectures" / path.rpartition("/")[2]
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
    from alignment.config.checkpoint_folders import base_of, model_folder

    return known_config(base_of(model_folder(recipe.model.path)))


def meta_model(recipe: Recipe) -> Any:
    """The model with its adapters and frozen parts, on the meta device."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForImageTextToText

    from alignment.models.loading import check_sees
    from alignment.models.parts import freeze, lora_config

    config = model_config(recipe)
    check_sees(config, recipe.model.path)
    with torch.device("meta"):
        model: Any = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
        lora = lora_config(recipe.model.lora)
        with faults_of_trl():
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


def stacks_of(
    model: Any, batch: Batch, *, weight_bytes: float, checkpointed: bool, tower_checkpointed: bool, hooked: bool = False
) -> tuple[Stack, Stack]:
    """Language model and vision tower, with what the batch sends through each.

    ``weight_bytes``: those of what is trained. ``hooked``: as trl alone has it, where under checkpointing a gradient
    goes through a frozen tower too, and adapters cast their inputs (see ``module_settings.py``).
    """
    from alignment.models.parts import part_of

    parameters = [(part_of(name), name, p) for name, p in model.named_parameters() if p.requires_grad]
    adapters = {
        part: sum(p.numel() for of_part, name, p in parameters if of_part == part and "lora_" in name) for part in PARTS
    }
    trained = {part: sum(p.numel() for of_part, _, p in parameters if of_part == part) for part in PARTS}
    language, tower = (_layers(model, part) for part in PARTS)
    shapes = [_shape(model, layers[0], part) for layers, part in zip((language, tower), PARTS, strict=True)]
    if weight_bytes < 4 or not (hooked or _drops(model)):  # such adapters take their layer's input as it is
        shapes = [replace(s, adapted=0, trained=s.trained or s.adapted > 0) for s in shapes]
    return (
        Stack(
            shapes[0],
            len(language),
            batch.tokens,
            batch.mask,
            trained["language"] * weight_bytes,
            adapters["language"],
            checkpointed=checkpointed,
        ),
        Stack(
            shapes[1],
            len(tower),
            batch.patches,
            0.0,
            trained["vision"] * weight_bytes,
            adapters["vision"],
            carries=bool(trained["vision"]) or (hooked and checkpointed),
            checkpointed=tower_checkpointed,
        ),
    )


def _drops(model: Any) -> bool:
    from alignment.models.module_settings import has_dropout

    return any(map(has_dropout, model.modules()))


def trains_projector(model: Any) -> bool:
    """Whether a gradient is wanted in what stands between tower and language model."""
    from alignment.models.parts import part_of

    return any(p.requires_grad and part_of(name) == "projector" for name, p in model.named_parameters())


def patches_per_token(config: Any) -> int:
    """Patches of the tower that become one image token; without the few tokens that a family adds around tiles."""
    vision = config.vision_config
    if per_image := getattr(config, "mm_tokens_per_image", None):  # Gemma 3 pools each image to so many
        return round((vision.image_size // vision.patch_size) ** 2 / per_image)
    merged = getattr(vision, "spatial_merge_size", None) or getattr(config, "scale_factor", None)
    return round((merged or 1 / getattr(config, "downsample_ratio", 1)) ** 2)


def patch_bytes(config: Any) -> float:
    """Bytes of one patch's pixels, which the processor gives in float32."""
    vision = config.vision_config
    edge: Any = vision.patch_size
    edge = edge[0] if isinstance(edge, list | tuple) else edge
    return 4.0 * 3 * getattr(vision, "temporal_patch_size", 1) * edge**2


def _layers(model: Any, part: str) -> Any:
    """The longest list of modules in a part: its layers."""
    from torch.nn import ModuleList

    from alignment.models.parts import part_of

    lists = [m for name, m in model.named_modules() if isinstance(m, ModuleList) and len(m) and part_of(name) == part]
    return max(lists, key=len)


def _shape(model: Any, layer: Any, part: str) -> Shape:
    """A layer's sizes from the config, and what of it is trained from its modules.

    A matrix that is trained whole keeps its input, which the others of its module share: queries, keys and values one,
    gate and up one; the output matrix takes what attention keeps anyway.
    """
    from torch.nn import Linear

    from alignment.shared_prefix.support import base_model

    config = base_model(model).config
    part_config = config.get_text_config() if part == "language" else config.vision_config
    # Qwen2-VL's tower has its output's as hidden_size
    hidden = getattr(part_config, "embed_dim", None) or part_config.hidden_size
    heads = getattr(part_config, "num_attention_heads", None) or part_config.num_heads
    size = getattr(part_config, "head_dim", None) or hidden // heads
    linear = {name: m for name, m in layer.named_modules() if isinstance(m, Linear)}
    plain = {name.removesuffix(".base_layer"): m for name, m in linear.items() if "lora_" not in name}
    adapters = {name.partition(".lora_A")[0]: m for name, m in linear.items() if "lora_A" in name}
    whole = [name for name, m in plain.items() if m.weight.requires_grad]
    inputs = {(name.rpartition(".")[0], plain[name].in_features) for name in (*whole, *adapters)}
    kinds = " ".join(type(m).__name__ for m in layer.modules())
    every = [m for m in layer.modules() if "Norm" in type(m).__name__]
    norms = [m for m in every if m.weight.numel() == hidden]
    inner = [m.out_features for name, m in plain.items() if "mlp" in name]
    return Shape(
        hidden=hidden,
        queries=heads * size,
        keys=(getattr(part_config, "num_key_value_heads", None) or heads) * size,
        inner=max(inner, default=getattr(part_config, "intermediate_size", 4 * hidden)),
        norms=len(norms),
        inner_kept=3 if any("gate" in name for name in plain) else 2 if "QuickGELU" in kinds else 1,
        fused=any(m.out_features == 3 * heads * size for m in plain.values()),
        head_norms=any(m.weight.numel() == size for m in every),
        trained=bool(whole),
        trained_norms=sum("RMS" in type(m).__name__ and m.weight.requires_grad for m in norms),
        adapted=sum(m.in_features for m in adapters.values()),
        inputs=sum(width for _, width in inputs),
        ranks=sum(m.out_features for m in adapters.values()),
    )
