"""What a frozen vision tower makes of an image, computed once and kept on disk (``model.cache_image_features``).

A folder belongs to the weights and settings of everything but the language model; in it a file is known by the pixels
that the tower would be given, so that another processor, or another size, is another file. Left out: a tower or a
projector that is trained, which sees the same image differently at every step; and removing files by itself
(``clinalign cache --clear``).
"""

import functools
import hashlib
import inspect
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers.modeling_outputs import BaseModelOutputWithPooling

from alignment.shared_prefix.image_rows import IMAGE_FIELDS, Fields
from alignment.shared_prefix.reference_cache import KINDS, add_weights, cache_folder, scratch
from alignment.shared_prefix.support import base_model
from rewards.config.input_error import InputError

LANGUAGE_PARTS = ("language_model", "text_model", "lm_head")
Features = dict[str, torch.Tensor]
logger = logging.getLogger(__name__)


def cache_image_features(model: Any, *, reference: Any = None, run: Path | None = None) -> Path:
    """Lets the model, and its reference, ask the disk before their frozen tower; the folder of the features.

    Raises: InputError if anything beside the language model is trained or drops units at random.
    """
    if fault := _fault(base_model(model).base_model):
        raise InputError(f"model.cache_image_features: {fault}")
    folder = features_folder(model, run=run)
    _keep(model, folder)
    if reference is not None:
        _keep(reference, features_folder(reference, run=run))
    logger.info("image features of the frozen tower are kept in %s", folder)
    return folder


def _keep(model: Any, folder: Path) -> None:
    backbone = base_model(model).base_model
    # transformers splits Qwen3-VL's deeper layers by image since 5.18, where forwards began to take encoded images
    by_image = "mm_encoder_outputs" in inspect.signature(type(backbone).forward).parameters
    backbone.get_image_features = kept(backbone.get_image_features, folder, deep_by_image=by_image)


def _fault(backbone: Any) -> str | None:
    trained = [name for name, p in _beside_language(backbone.named_parameters()) if p.requires_grad]
    if trained:
        return f"{trained[0]} is trained, so an image's features change; add freeze: [vision, projector]."
    drops = [n for n, m in _beside_language(backbone.named_modules()) if isinstance(m, torch.nn.Dropout) and m.p]
    if drops or getattr(backbone.config.vision_config, "attention_dropout", 0):
        return "the vision tower drops units at random, so an image's features differ every time."
    return None


def _beside_language(named: Any) -> list[tuple[str, Any]]:
    return [(name, part) for name, part in named if not any(p in name.split(".") for p in LANGUAGE_PARTS)]


def features_folder(model: Any, *, run: Path | None = None) -> Path:
    """Where the features under this tower and projector lie."""
    backbone = base_model(model).base_model
    config = {k: v for k, v in backbone.config.to_dict().items() if k not in ("text_config", "_name_or_path")}
    digest = hashlib.sha256(repr(sorted(config.items(), key=str)).encode())
    add_weights(digest, _beside_language(backbone.state_dict(keep_vars=True).items()))
    return cache_folder(run) / "image_features" / digest.hexdigest()[:32]


def kept(compute: Callable[..., Any], folder: Path, *, deep_by_image: bool) -> Callable[..., Any]:
    """``get_image_features`` that computes what the folder lacks, in one batch, and reads the rest.

    ``deep_by_image``: whether it gives deeper layers image by image, or each as one tensor over all images.
    """

    @functools.wraps(compute)
    @torch.no_grad()
    def features(*args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(compute).bind(*args, **kwargs).arguments
        given |= given.pop("kwargs", {})
        units = _units({n: given[n] for n in IMAGE_FIELDS if given.get(n) is not None})
        if units is None or given.get("batch_num_images") is not None:
            return compute(*args, **kwargs)
        files = [folder / f"{_key(unit)}.safetensors" for unit in units]
        missing = list({file: k for k, file in enumerate(files) if not file.is_file()}.values())
        if missing:
            fields = {name: torch.cat([units[k][name] for k in missing]) for name in units[0]}
            made = compute(**(given | fields))
            for k, values in zip(missing, _split(made, len(missing)), strict=True):
                _write(files[k], values)
        device = given["pixel_values"].device
        images = [{n: v.to(device) for n, v in load_file(file).items()} for file in files]
        return _joined(images, deep_by_image=deep_by_image)

    return features


def _units(fields: Fields) -> list[Fields] | None:
    """The fields image by image (Idefics3: row by row, as it hands features out), or None if they do not add up."""
    grid, pixels = fields.get("image_grid_thw"), fields["pixel_values"]
    sizes = grid.prod(dim=-1).tolist() if grid is not None else [1] * len(pixels)
    if sum(sizes) != len(pixels):
        return None
    parts = {n: v.split(sizes) if n == "pixel_values" else v.split(1) for n, v in fields.items()}
    if any(len(part) != len(sizes) for part in parts.values()):
        return None
    return [{name: part[k] for name, part in parts.items()} for k in range(len(sizes))]


def _key(unit: Fields) -> str:
    digest = hashlib.sha256()
    for name, values in sorted(unit.items()):
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _split(output: Any, count: int) -> list[Features]:
    """Pooled features of each image and, where a family has them, those of deeper layers.

    They are (1, tokens, hidden) where the family makes one table of all images, else (tokens, hidden).
    """
    layers: dict[str, Any] = {"pooled": output.pooler_output}
    sizes = [len(image) for image in output.pooler_output]
    deep: Sequence[Any] = getattr(output, "deepstack_features", None) or ()
    layers |= {f"deep{k}": d.split(sizes) if isinstance(d, torch.Tensor) else d for k, d in enumerate(deep)}
    assert all(len(layer) == count for layer in layers.values())
    return [
        {name: layer[k : k + 1] if isinstance(layer, torch.Tensor) else layer[k] for name, layer in layers.items()}
        for k in range(count)
    ]


def _joined(images: Sequence[Features], *, deep_by_image: bool) -> Any:
    """The output as the model's own method gives it."""
    from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

    pooled = [image["pooled"] for image in images]
    given: Any = torch.cat(pooled) if pooled[0].dim() == 3 else pooled
    deep: Any = [[image[f"deep{k}"] for image in images] for k in range(len(images[0]) - 1)]
    if deep:
        deep = deep if deep_by_image else [torch.cat(layer) for layer in deep]
        return BaseModelOutputWithDeepstackFeatures(pooler_output=given, deepstack_features=deep)
    return BaseModelOutputWithPooling(pooler_output=given)


def _write(file: Path, values: Features) -> None:
    """In one step, so that a killed run, or another rank, never leaves half a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = scratch(file)
    save_file({name: value.contiguous().cpu() for name, value in values.items()}, unfinished)
    unfinished.replace(file)


def cache_sizes(run: Path | None = None) -> dict[str, dict[str, Any]]:
    """Files and MiB of each kind of content under ``cache_folder``."""
    kinds = [cache_folder(run) / kind for kind in KINDS if (cache_folder(run) / kind).is_dir()]
    sizes = {kind.name: [f.stat().st_size for f in kind.rglob("*") if f.is_file()] for kind in kinds}
    return {name: {"files": len(found), "mib": round(sum(found) / 2**20, 1)} for name, found in sizes.items()}
