"""Training, evaluation and release. The only floor that knows torch, trl, peft, accelerate and deepspeed.

Importing it turns usage pings off. Hugging Face's libraries read their switch when they are imported, so it is set
here, before any of them: for the command, for launched workers and for Python alike. What a user has set stays.
What people use from Python is exported here, and imported when it is first asked for; all else may move.
"""

import os
import sys
from typing import TYPE_CHECKING

try:
    from rewards.config.named_modules import lazy_names
except ImportError as missing:  # such as a file rewards.py in one's own folder
    from clinalign import explained

    raise explained(missing) from missing

if TYPE_CHECKING:
    from alignment.checks.read_recipe import read_recipe
    from alignment.config.recipe import Recipe, Weighting
    from alignment.evaluation.evaluate import evaluate
    from alignment.from_python import train
    from alignment.models.generation import generate
    from alignment.models.loading import load_for_inference
    from alignment.reward_functions.own_rewards import trl_reward
    from alignment.training.dpo import WeightedDPOTrainer
    from alignment.training.shared_grpo import SharedPrefixGRPOTrainer
    from rewards.config.input_error import InputError

__all__ = [
    "InputError",
    "Recipe",
    "SharedPrefixGRPOTrainer",
    "WeightedDPOTrainer",
    "Weighting",
    "evaluate",
    "generate",
    "load_for_inference",
    "read_recipe",
    "train",
    "trl_reward",
]

SILENT = {"HF_HUB_DISABLE_TELEMETRY": "1", "VLLM_NO_USAGE_STATS": "1", "GRADIO_ANALYTICS_ENABLED": "False"}


def _send_no_pings() -> None:
    unsaid = "HF_HUB_DISABLE_TELEMETRY" not in os.environ
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)
    constants = sys.modules.get("huggingface_hub.constants")  # imported before: it has read its switch already
    if constants is not None and unsaid:
        constants.__dict__["HF_HUB_DISABLE_TELEMETRY"] = True


_send_no_pings()
__getattr__ = lazy_names(
    "alignment",
    {
        **dict.fromkeys(("Recipe", "Weighting"), "alignment.config.recipe"),
        "InputError": "rewards.config.input_error",
        "SharedPrefixGRPOTrainer": "alignment.training.shared_grpo",
        "WeightedDPOTrainer": "alignment.training.dpo",
        "evaluate": "alignment.evaluation.evaluate",
        "generate": "alignment.models.generation",
        "load_for_inference": "alignment.models.loading",
        "read_recipe": "alignment.checks.read_recipe",
        "train": "alignment.from_python",
        "trl_reward": "alignment.reward_functions.own_rewards",
    },
)
