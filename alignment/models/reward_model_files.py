"""A reward model out of its checkpoint."""

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open
from transformers.integrations.deepspeed import HfDeepSpeedConfig, set_hf_deepspeed_config, unset_hf_deepspeed_config
from transformers.utils import logging as transformers_logging

from alignment.config.checkpoint_folders import HEAD, reward_model_folder
from alignment.config.foreign_code import faults_of_files
from alignment.config.model_files import CURE
from alignment.models.loading import load_model
from alignment.models.processors import load_processor
from alignment.models.reward_model import RewardModel, reward_model_on
from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json


def load_reward_model(path: str) -> tuple[Any, Any]:
    """Model in eval mode, frozen, on the accelerator if there is one, and its processor.

    Every process holds it whole, also where the policy is sharded. Raises: InputError if ``path`` holds none.
    """
    folder = reward_model_folder(path)
    with _unsharded(), _quiet():
        model: Any = _with_adapter(folder) if (Path(folder) / "adapter_config.json").is_file() else _whole(folder)
    model.eval().requires_grad_(False)
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), load_processor(folder)


def _whole(folder: str) -> RewardModel:
    model = reward_model_on(load_model(folder, dtype="auto"))
    model.score.weight.data.copy_(_head(Path(folder)))
    return model


def _with_adapter(folder: str) -> PeftModel:
    base = read_json(Path(folder) / "adapter_config.json", CURE).get("base_model_name_or_path")
    if not isinstance(base, str):
        raise InputError(f"{folder}/adapter_config.json: names no base model. {CURE}")
    with faults_of_files(folder):
        return PeftModel.from_pretrained(reward_model_on(load_model(base, dtype="auto")), folder)


def _head(folder: Path) -> torch.Tensor:
    """The head's weights, from whichever file of the checkpoint has them."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as content:
            if f"{HEAD}.weight" in content.keys():  # noqa: SIM118 (no mapping)
                return content.get_tensor(f"{HEAD}.weight")
    raise InputError(f"{folder}: no file holds {HEAD}.weight; the checkpoint is not whole.")


@contextlib.contextmanager
def _unsharded() -> Generator[None]:
    """Loads whole models also where a trainer has set ZeRO-3 for those that are loaded."""
    from transformers.integrations import deepspeed

    # Private in transformers 5.23, which can unset the config and not give it back; a getter would let this go.
    reference = deepspeed._hf_deepspeed_config_weak_ref  # pyright: ignore[reportPrivateUsage]
    held: HfDeepSpeedConfig | None = reference() if reference is not None else None
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if held is not None:
            set_hf_deepspeed_config(held)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """No warnings that the language head is missing and that ``score`` is none of the VLM's weights."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
