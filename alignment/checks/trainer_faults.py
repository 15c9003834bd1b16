"""What of a recipe's ``trainer`` section this machine or TRL's own config refuses, told before the first step.

Left out: keys that only a GPU can take, on a machine without one.
"""

import contextlib
import json
import os
import traceback
import warnings
from collections.abc import Callable, Generator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from alignment.config.library_names import installed_keys
from alignment.config.methods import METHODS, config_class
from alignment.config.recipe import Recipe
from rewards.config.input_error import InputError, nearest
from rewards.config.json_lines import json_value
from rewards.config.strict_yaml import read_text

Config = TypeVar("Config")
SWITCHES = {"use_vllm": "vllm", "use_liger_kernel": "liger_kernel", "deepspeed": "deepspeed"}
"""Keys of the trainer that need a package."""
OF_A_GPU = ("bf16", "fp16", "tf32", "bf16_full_eval", "fp16_full_eval", "use_liger_kernel", "use_vllm")
"""Keys that a machine without a GPU may refuse, on which a recipe is checked all the same."""
SECTIONS = {"trl": "trainer", "peft": "model.lora"}
"""By whose code refuses it, the section of a recipe that is at fault."""


def package_faults(section: dict[Any, Any]) -> list[str]:
    """Trackers and packages that are not installed, and a DeepSpeed file that cannot be read."""
    faults = [
        f"trainer.{key}: needs the package '{package}', which is not installed here. Install it, or leave the key out."
        for key, package in SWITCHES.items()
        if section.get(key) and find_spec(package) is None
    ]
    return [*faults, *_tracker_faults(section.get("report_to")), *deepspeed_faults(section.get("deepspeed"))]


def _tracker_faults(asked: Any) -> list[str]:
    if asked is None:
        return []
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_available_reporting_integrations,
    )

    known, here = [*INTEGRATION_TO_CALLBACK, "none", "all"], {*get_available_reporting_integrations(), "none", "all"}
    faults = list[str]()
    for name in asked if isinstance(asked, list) else [asked]:
        if name not in known:
            hint = nearest(str(name), known) or f" Known: {', '.join(known)}."
            faults.append(f"trainer.report_to: no tracker '{name}'.{hint}")
        elif name not in here:
            faults.append(f"trainer.report_to: '{name}' is not installed here. Install it, or write report_to: none.")
    return faults


def deepspeed_faults(file: Any) -> list[str]:
    """What is wrong with a DeepSpeed file; nothing where none is named."""
    if not isinstance(file, str) or not file:
        return []
    try:
        content = json_value(read_text(Path(file)), file, "See recipes/deepspeed/zero2.json.")
    except InputError as fault:
        return [f"trainer.deepspeed: {fault}"]
    if not isinstance(content, dict) or not isinstance(content.get("zero_optimization", {}), dict):
        return [f"trainer.deepspeed: {file}: expected an object of settings. See recipes/deepspeed/zero2.json."]
    stage = content.get("zero_optimization", {}).get("stage", 0)
    if type(stage) is not int or stage not in range(4):
        return [
            f"trainer.deepspeed: {file}: zero_optimization.stage: got {json.dumps(stage)}, expected 0, 1, 2 or 3. "
            "See recipes/deepspeed/zero2.json."
        ]
    return []


def check_config(recipe: Recipe, *, here: bool, ranks: int = 1, launched: bool = False) -> None:
    """Makes TRL's config of the recipe, once. ``here``: as it will train on this machine, and not on one with GPUs.

    ``ranks``: on how many processes it will train, which are not these; ``launched``: this process starts them. Within
    them the config is made once, where it is needed, since they meet by it.

    Raises: InputError with what TRL refuses: values that are none, and settings that do not go together.
    """
    if not METHODS[recipe.method].trains or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return
    if here and recipe.trainer.get("deepspeed"):
        if "RANK" in os.environ:  # a config made here without DeepSpeed would set up accelerate without it, for good
            return
        raise InputError(
            "trainer.deepspeed: DeepSpeed needs a launcher. Start it with `clinalign launch RECIPE --gpus N` "
            "(on the CPU: --cpu), or leave the key out: trainer.deepspeed=null."
        )
    defaults = {"report_to": "none", "bf16": recipe.model.dtype == "bfloat16"}
    given = defaults | installed_keys(recipe.trainer) | {"output_dir": recipe.output, "deepspeed": None}
    if not here:
        given = {key: value for key, value in given.items() if key not in OF_A_GPU} | {"bf16": False}
    if ranks > 1 and METHODS[recipe.method].generates:  # TRL counts answers over all processes
        given["per_device_train_batch_size"] = given.get("per_device_train_batch_size", 8) * ranks
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made_config(config_class(recipe.method), given | ({"use_cpu": True} if launched else {}))


def made_config(kind: Callable[..., Config], settings: Mapping[str, Any]) -> Config:
    """TRL's config of these settings. Raises: InputError with what TRL refuses."""
    try:
        return kind(**settings)
    except (TypeError, ValueError, ImportError) as fault:
        raise InputError(f"trainer: {' '.join(str(fault).split())[:400]}") from None


@contextlib.contextmanager
def faults_of_trl() -> Generator[None]:
    """One sentence where TRL's trainer, or PEFT, refuses settings that do not go together.

    Raises: InputError in place of a ValueError that their own code raises; others are ours, and pass.
    """
    try:
        yield
    except ValueError as fault:
        frames = list(traceback.walk_tb(fault.__traceback__))
        package = frames[-1][0].f_globals.get("__name__", "").partition(".")[0]
        if isinstance(fault, InputError) or package not in SECTIONS:
            raise
        raise InputError(f"{SECTIONS[package]}: {' '.join(str(fault).split())[:400]}") from fault
