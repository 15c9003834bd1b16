"""What is true and what is it worth: rule sets, facts, reading, one reward a file. Loads no torch.

What people use from Python is exported here, and imported when it is first asked for; all else may move.
"""

from typing import TYPE_CHECKING

from rewards.config.named_modules import lazy_names

if TYPE_CHECKING:
    from rewards.config.input_error import InputError
    from rewards.loading import BatchReward, Reward, available, load_reward
    from rewards.reading.reading import Reading, read
    from rewards.rules.compare import Comparison, compare
    from rewards.rules.facts import Facts
    from rewards.rules.rule_set import RuleSet, load_rule_set

__all__ = [
    "BatchReward",
    "Comparison",
    "Facts",
    "InputError",
    "Reading",
    "Reward",
    "RuleSet",
    "available",
    "compare",
    "load_reward",
    "load_rule_set",
    "read",
]
__getattr__ = lazy_names(
    "rewards",
    {
        **dict.fromkeys(("BatchReward", "Reward", "available", "load_reward"), "rewards.loading"),
        **dict.fromkeys(("Comparison", "compare"), "rewards.rules.compare"),
        **dict.fromkeys(("Reading", "read"), "rewards.reading.reading"),
        **dict.fromkeys(("RuleSet", "load_rule_set"), "rewards.rules.rule_set"),
        "Facts": "rewards.rules.facts",
        "InputError": "rewards.config.input_error",
    },
)
