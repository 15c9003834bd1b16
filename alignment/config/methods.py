"""The methods of this program, and the config class of trl that each takes."""


def config_class(method: str) -> type:
    """TRL's config of a method."""
    import trl

    configs = {"sft": trl.SFTConfig, "dpo": trl.DPOConfig, "grpo": trl.GRPOConfig, "reward_model": trl.RewardConfig}
    return configs[method]
