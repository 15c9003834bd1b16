"""What of a recipe's ``trainer`` section this machine or TRL's own config refuses, told before the first step.

Left out: what a launched process meets (``launch`` has read the recipe before it starts any).
"""

import json
import os
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alignment.library_names import installed_keys
from alignment.recipe import Recipe
from rewards.strict_yaml import InputError, nearest, read_text

SWITCHES = {"use_vllm": "vllm", "use_liger_kernel": "liger_kernel", "deepspeed": "deepspeed"}
"""Keys of the trainer that need a package."""
OF_A_GPU = ("bf16", "fp16", "tf32", "bf16_full_eval", "fp16_full_eval", "use_liger_kernel", "use_vllm")
"""Keys that a machine without a GPU may refuse, on which a recipe is checked all the same."""


def package_faults(section: dict[Any, Any]) -> list[str]:
    """Trackers and packages that are not installed, and a DeepSpeed file that cannot be read."""
    faults = [
        f"trainer.{key}: needs the package '{package}', which is not installed here. Install it, or leave the key out."
        for key, package in SWITCHES.items()
        if section.get(key) and find_spec(package) is None
    ]
    return [*faults, *_tracker_faults(section.get("report_to")), *_deepspeed_faults(section.get("deepspeed"))]


def _tracker_faults(asked: Any) -> list[str]:
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_available_reporting_integrations,
    )

    known, here = [*INTEGRATION_TO_CALLBACK, "none", "all"], {*get_available_reporting_integrations(), "none", "all"}
    faults = list[str]()
    for name in asked if isinstance(asked, list) else [asked] if asked is not None else []:
        if name not in known:
            hint = nearest(str(name), known) or f" Known: {', '.join(known)}."
            faults.append(f"trainer.report_to: no tracker '{name}'.{hint}")
        elif name not in here:
            faults.append(f"trainer.report_to: '{name}' is not installed here. Install it, or write report_to: none.")
    return faults


def _deepspeed_faults(file: Any) -> list[str]:
    if not isinstance(file, str) or not file:
        return []
    try:
        content = json.loads(read_text(Path(file)))
    except InputError as fault:
        return [f"trainer.deepspeed: {fault}"]
    except (ValueError, RecursionError) as fault:
        return [f"trainer.deepspeed: {file}: not JSON ({fault}). See recipes/deepspeed/zero2.json."]
    if not isinstance(content, dict) or not isinstance(content.get("zero_optimization", {}), dict):
        return [f"trainer.deepspeed: {file}: expected an object of settings. See recipes/deepspeed/zero2.json."]
    return []


def check_config(recipe: Recipe, *, here: bool) -> None:
    """Makes TRL's config of the recipe, once. ``here``: as it will train on this machine, and not on one with GPUs.

    Raises: InputError with what TRL refuses: values that are none, and settings that do not go together.
    """
    from alignment.recipe_faults import config_class

    if recipe.method == "pairs" or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return
    if here and recipe.trainer.get("deepspeed") and "RANK" not in os.environ:
        raise InputError(
            "trainer.deepspeed: DeepSpeed needs a launcher. Start it with `clinalign launch RECIPE --gpus N` "
            "(on the CPU: --cpu), or leave the key out: trainer.deepspeed=null."
        )
    defaults = {"report_to": "none", "bf16": recipe.model.dtype == "bfloat16"}
    given = defaults | installed_keys(recipe.trainer) | {"output_dir": recipe.output, "deepspeed": None}
    if not here:
        given = {key: value for key, value in given.items() if key not in OF_A_GPU} | {"bf16": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config_class(recipe.method)(**given)
    except (TypeError, ValueError, ImportError) as fault:
        raise InputError(f"trainer: {' '.join(str(fault).split())[:400]}") from None


def check_model_name(path: str) -> None:
    """Raises InputError for a hub name that is not on this machine, where nothing is fetched (``HF_HUB_OFFLINE``)."""
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if not constants.HF_HUB_OFFLINE or Path(path).exists() or path in ("tiny", "smollm2"):
        return
    try:
        files = [try_to_load_from_cache(path, name) for name in ("config.json", "adapter_config.json")]
    except HFValidationError:
        raise InputError(f"model.path: '{path}' is neither a folder nor a name on the Hugging Face hub.") from None
    if not any(isinstance(file, str) for file in files):
        raise InputError(
            f"model.path: '{path}' is not in the local cache, and nothing is fetched (HF_HUB_OFFLINE). Download it "
            f"first: HF_HUB_OFFLINE=0 hf download {path}; or name a folder."
        )
