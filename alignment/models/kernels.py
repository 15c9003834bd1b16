"""What a model runs on: attention, Liger's fused layers, 4-bit weights; each by what this machine has.

Left out: building or fetching kernels; flash-attn, liger-kernel and bitsandbytes are the extra ``gpu``.
"""

import logging
from importlib.util import find_spec
from typing import Any

from alignment.config.model_section import ModelSection
from rewards.config.input_error import InputError

CURE = "Install clinalign[gpu] on a machine with a GPU"
logger = logging.getLogger(__name__)


def usable(package: str) -> bool:
    """Whether a package that needs a GPU is installed beside one."""
    import torch

    return torch.cuda.is_available() and find_spec(package) is not None


def attention(setting: str) -> str:
    """The attention kernel: ``auto`` is flash attention where it is usable, else sdpa; the log says which, and why.

    Raises: InputError if flash attention is asked for and cannot be used.
    """
    if setting == "auto":
        return _chosen()
    if setting == "flash_attention_2" and not usable("flash_attn"):
        raise InputError(f"model.attention: flash_attention_2 is not usable here. {CURE}, or use 'auto' or 'sdpa'.")
    return setting


def _chosen() -> str:
    import torch

    if usable("flash_attn"):
        name, why = "flash_attention_2", "flash_attn is installed beside a GPU"
    else:
        name, why = "sdpa", "flash_attn is not installed" if torch.cuda.is_available() else "there is no GPU"
    logger.warning("model.attention: auto takes %s: %s.", name, why)
    return name


def liger(section: ModelSection) -> dict[str, Any]:
    """The trainer's argument for Liger's layers: on where the recipe allows it and they are usable."""
    return {"use_liger_kernel": True} if section.liger and usable("liger_kernel") else {}


def quantization(section: ModelSection) -> dict[str, Any]:
    """Keyword arguments that load the frozen weights in 4 bits (QLoRA, Dettmers et al. 2023: NF4, double quantised).

    Raises: InputError without bitsandbytes or a GPU.
    """
    if section.quantization is None:
        return {}
    if not usable("bitsandbytes"):
        raise InputError(f"model.quantization: 4bit needs bitsandbytes and a GPU. {CURE}, or leave it out.")
    import torch
    from transformers import BitsAndBytesConfig

    compute = torch.bfloat16 if section.dtype in ("bfloat16", "auto") else getattr(torch, section.dtype)
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        )
    }
