"""Models by name: a Hugging Face VLM, a folder, a run's folder, ``tiny`` or ``smollm2``; what of them is trained.

Left out: code that comes with a model (``foreign_code.py``).
"""

import os
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoModelForImageTextToText,
    GenerationConfig,
    PreTrainedModel,
)

from alignment.config.checkpoint_folders import base_of, check_model_name, is_adapter, model_folder
from alignment.config.foreign_code import SAFE, faults_of_files, pretrained
from alignment.config.model_files import faults_of_weights
from alignment.config.model_section import ModelSection
from alignment.models import kernels
from alignment.models.processors import load_processor
from alignment.models.tower_attention import use_one_call
from rewards.config.input_error import InputError

THREADS = torch.get_num_threads()
SMALL_MODEL = 20_000_000
"""Parameters below which one thread computes faster than two: their matrices are too small to be shared out."""


def load_model(
    path: str,
    *,
    dtype: str = "float32",
    attention: str = "sdpa",
    revision: str | None = None,
    trainable: bool = False,
) -> PreTrainedModel | PeftModel:
    """The model at ``path``; an adapter folder gives its base with the adapter on it."""
    folder = model_folder(path)
    options: dict[str, Any] = dict(dtype=dtype, attn_implementation=kernels.attention(attention))
    base = base_of(folder)
    with faults_of_weights(base):
        model = pretrained(AutoModelForImageTextToText, base, revision=revision, use_safetensors=True, **options)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1 if model.num_parameters() < SMALL_MODEL else THREADS)
    if is_adapter(folder):
        with faults_of_weights(folder), faults_of_files(folder):
            return PeftModel.from_pretrained(model, folder, is_trainable=trainable)
    return model


def check_sees(config: Any, path: str) -> None:
    """Raises InputError if this is no model of images and texts: TRL would start it from random weights."""
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise InputError(
            f"model.path: {path} is of the type '{config.model_type}', which reads no images. "
            "Name a vision-language model."
        )


def check_generation(path: str) -> None:
    """Raises InputError if transformers refuses a folder's settings of generation, which trl would load."""
    if (Path(path) / "generation_config.json").is_file():
        with faults_of_files(path):
            pretrained(GenerationConfig, path)


def load_for_inference(path: str | Path, *, max_pixels: int | None = None, dtype: str = "float32") -> tuple[Any, Any]:
    """Model in eval mode, on this rank's accelerator if there is one, and its processor (within the pixel budget).

    ``dtype`` of its weights: the name of one of torch's, or ``auto`` (the checkpoint's own).
    """
    path = str(path)
    check_model_name(path)
    model: Any = load_model(path, dtype=dtype).eval()
    use_one_call(model)
    return model.to(_rank_device()), load_processor(path, max_pixels=max_pixels)


def _rank_device() -> str:
    """The card of this rank, which it is given by its number on the node; the CPU where there is none."""
    if not torch.cuda.is_available():
        return "cpu"
    card = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()  # a launcher may show each rank one card
    torch.cuda.set_device(card)
    return f"cuda:{card}"


def model_options(section: ModelSection) -> dict[str, Any]:
    """Keyword arguments with which TRL loads a model from its path."""
    options: dict[str, Any] = dict(dtype=section.dtype, attn_implementation=kernels.attention(section.attention))
    options |= SAFE
    options |= kernels.quantization(section)
    return options | ({"revision": section.revision} if section.revision else {})


def max_context(model: Any) -> int | None:
    """The most tokens that a model (or the checkpoint at a path) was made for, where it says so."""
    from transformers import AutoConfig

    config = pretrained(AutoConfig, model) if isinstance(model, str) else model.config
    return getattr(config.get_text_config(), "max_position_embeddings", None)
