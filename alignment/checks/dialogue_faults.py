"""What stands against training on dialogues in a recipe, said before anything is loaded."""

from alignment.config.data_entries import train_rows
from alignment.config.methods import METHODS
from alignment.config.recipe import DialogueSection, Recipe
from rewards.config.input_error import InputError
from rewards.loading import BatchReward, Reward, load_reward

UNFIT_LOSSES = ("vespo", "luspo")
"""Losses of TRL that need one advantage a response."""


def dialogue_faults(recipe: Recipe) -> list[str]:
    """What stands against training on dialogues in a recipe, one line each."""
    try:
        names = train_rows(recipe).columns
        rewards = [load_reward(entry.name, **entry.knobs) for entry in recipe.rewards]
    except InputError:  # said already by the checks of data and rewards
        return []
    if "dialogue" not in METHODS[recipe.method].sections:  # and a section of it is one too many (``unused_faults``)
        return []
    if recipe.dialogue is None:
        whole = [r.name for r in rewards if "dialogue" in r.columns]
        return [f"rewards: '{name}' judges whole dialogues; add a section such as dialogue: {{}}." for name in whole]
    faults = [] if "dialogue" in names else [f"dialogue: {recipe.data.train} has no column 'dialogue'."]
    faults += _trainer_faults(recipe, recipe.dialogue)
    return faults + (_credit_faults(recipe, rewards) if recipe.dialogue.credit == "turn" else [])


def _trainer_faults(recipe: Recipe, section: DialogueSection) -> list[str]:
    whole = recipe.trainer.get("max_completion_length", 256)
    if not isinstance(whole, int) or whole >= section.max_answer_tokens:
        return []
    return [
        f"dialogue.max_answer_tokens: one answer may have {section.max_answer_tokens} tokens, but a whole dialogue "
        f"only {whole} (trainer.max_completion_length)."
    ]


def _credit_faults(recipe: Recipe, rewards: list[Reward | BatchReward]) -> list[str]:
    """Credit by turn is a plain weighted sum of rewards that judge turns."""
    faults = [
        f"rewards[{k}]: '{reward.name}' does not judge single turns, so 'credit: turn' cannot use it. Give it weight 0."
        for k, (reward, entry) in enumerate(zip(rewards, recipe.rewards, strict=True))
        if entry.weight and not (isinstance(reward, Reward) and reward.judges_turns)
    ]
    combined = recipe.combination
    if combined.gates or combined.schedules or combined.domains or combined.mode != "sum_then_normalize":
        faults.append("combination: beside 'credit: turn' rewards are only summed; leave the section out.")
    odd = {
        "scale_rewards": recipe.trainer.get("scale_rewards") in ("batch",),
        "multi_objective_aggregation": "multi_objective_aggregation" in recipe.trainer,
        "loss_type": recipe.trainer.get("loss_type") in UNFIT_LOSSES,
        "off_policy_mask_threshold": recipe.trainer.get("off_policy_mask_threshold") is not None,
    }
    return faults + [
        f"trainer.{key}: {recipe.trainer[key]} has no meaning beside 'credit: turn'; leave it out."
        for key, is_odd in odd.items()
        if is_odd
    ]
