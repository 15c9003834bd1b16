"""Values of a recipe's ``trainer`` section by the types of TRL's own config, and by what each setting can mean.

TRL takes nearly anything and fails steps later, or reads it otherwise in silence: the text "false" is true, a number of
epochs below 0 trains nothing. Left out: texts and lists, which TRL's config judges when it is made
(``config/trainer_faults.py``).
"""

from collections.abc import Callable, Mapping
from typing import Any, get_args, get_origin

from alignment.config.library_names import trainer_keys
from rewards.config.input_error import nearest
from rewards.config.strict_yaml import number_trap

ABOVE_ZERO = (
    "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "num_train_epochs",
    "logging_steps", "save_steps", "eval_steps", "save_total_limit", "max_length", "max_completion_length",
    "num_iterations", "steps_per_generation", "generation_batch_size", "temperature", "ref_model_sync_steps",
    "dataloader_prefetch_factor", "eval_accumulation_steps", "torch_empty_cache_steps", "repetition_penalty",
)  # fmt: skip
SHARES = (
    "adam_beta1", "adam_beta2", "top_p", "min_p", "label_smoothing", "label_smoothing_factor", "ref_model_mixup_alpha",
    "top_entropy_quantile", "vllm_gpu_memory_utilization",
)  # fmt: skip
ANY = ("local_rank", "entropy_coef", "entropy_coef_min", "entropy_coef_delta", "top_k")
LARGEST_SEED = 2**32 - 1
RANGES: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (ANY, lambda value: True, "a number"),
    (("max_steps",), lambda value: value == -1 or value > 0, "a number above 0, or -1 to train for num_train_epochs"),
    (("seed", "data_seed"), lambda value: 0 <= value <= LARGEST_SEED, f"a number from 0 to {LARGEST_SEED}"),
    (("num_generations",), lambda value: value >= 2, "at least 2: an answer is judged against others to its prompt"),
    (ABOVE_ZERO, lambda value: value > 0, "a number above 0"),
    (SHARES, lambda value: 0 <= value <= 1, "a number from 0 to 1"),
)
"""Settings, what they may be, and in words; all others are at least 0."""
CHOICES: dict[tuple[str, str], tuple[Any, ...]] = {
    ("GRPOConfig", "loss_type"): ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo"),
    ("GRPOConfig", "scale_rewards"): ("group", "batch", "none", True, False),
}
"""What TRL looks at only in a step."""
OURS = {
    "output_dir": "the recipe's own 'output' says where a run writes",
    "resume_from_checkpoint": "a run goes on from its last whole checkpoint by itself",
    "reward_weights": "each reward of 'rewards' has its own weight",
}
"""Settings that clinalign makes itself."""
HUB = ("hub_", "push_to_hub")
HUB_REPO = "_hub_repo"
SECRETS = ("token", "_key", "apikey", "password", "secret")
WORDS = ("eos_token", "pad_token", "bos_token", "unk_token", "sep_token", "cls_token", "mask_token", "image_token")
"""Settings that end like a secret, and name a word of the vocabulary."""


def refused_keys(section: Mapping[object, object]) -> dict[str, str]:
    """By key, why it is refused whatever TRL makes of it: uploads, secrets kept with the run, files of every node."""
    why = "a recipe is kept with its run, and no place for a secret. Leave it out."
    refused = dict.fromkeys(_secrets(section), why)
    upload = (
        "nothing is uploaded while it trains. Leave it out; release the run (clinalign release RUN OUT), then "
        "upload the released folder yourself."
    )
    if section.get("save_on_each_node"):
        refused["save_on_each_node"] = "a run's folder is one for all nodes, in which rank 0 alone saves. Leave it out."
    hub = [str(key) for key, value in section.items() if _is_of_hub(str(key)) and _is_given(value)]
    return refused | {key: upload for key in hub if key not in refused}


def _is_of_hub(key: str) -> bool:
    return key.startswith(HUB) or key.endswith(HUB_REPO)


def _is_given(value: object) -> bool:
    return value is not None and value is not False


def _secrets(value: object, place: str = "") -> list[str]:
    """Keys, however deep, that hold something and are called like a secret."""
    if isinstance(value, list):
        return [found for number, one in enumerate(value) for found in _secrets(one, f"{place}[{number}]")]
    if not isinstance(value, dict):
        return []
    inner = [(str(key), f"{place}.{key}".lstrip("."), one) for key, one in value.items()]
    named = [where for key, where, one in inner if _is_secret(key) and _is_given(one)]
    return [*named, *(found for _, where, one in inner if where not in named for found in _secrets(one, where))]


def _is_secret(key: str) -> bool:
    return key.lower().endswith(SECRETS) and key not in WORDS


def value_faults(config: type, section: Mapping[object, object]) -> list[str]:
    """A line for each known setting whose value is of a wrong type or means nothing."""
    kinds = trainer_keys(config)
    judged = {str(k): value for k, value in section.items() if k in kinds and not _is_of_hub(str(k))}
    found = [(key, _fault(config.__name__, key, value, kinds[key])) for key, value in judged.items()]
    return [f"trainer.{key}: {fault}" for key, fault in found if fault]


def _fault(config: str, key: str, value: object, kind: object) -> str | None:
    own = set(get_args(kind) or (kind,))
    plain = own - {type(None)}
    if key in OURS:
        return f"{OURS[key]}. Leave it out."
    if value is None:
        return None if type(None) in own else "got null, which it cannot be. Leave it out for TRL's own value."
    if plain and plain <= {int, float}:
        return _number_fault(key, value, whole=plain == {int}) or _useless(config, key, value)
    return _other_fault(plain, value) or _useless(config, key, value)


def _other_fault(plain: set[object], value: object) -> str | None:
    if not isinstance(value, str | int | float | dict | list):
        return f"got {_shown(value)}, which YAML reads as a {type(value).__name__}. Put it in quotes if it is a text."
    if any((get_origin(one) or one) is dict for one in plain) and not isinstance(value, dict | str):
        return f"got {_shown(value)}, expected keys and values."
    if plain == {bool} and not isinstance(value, bool):
        return f"got {_shown(value)}, expected true or false, without quotes."
    return None


def _useless(config: str, key: str, value: object) -> str | None:
    """A value of the right type that TRL fails on in the middle of a run, or by which nothing is learnt."""
    choices = CHOICES.get((config, key))
    if choices and value not in choices:
        hint = nearest(str(value), [choice for choice in choices if isinstance(choice, str)])
        return f"got {_shown(value)}.{hint} Known: {_listed(choices)}."
    if (config, key) == ("DPOConfig", "beta") and not value:
        return f"got {value}, by which every pair weighs nothing. Expected a number above 0."
    if key == "eval_strategy" and value in ("steps", "epoch"):
        return f"got '{value}', but training holds no data back. Leave it out; evaluate with: clinalign eval."
    return None


def _listed(choices: tuple[object, ...]) -> str:
    return ", ".join(str(choice).lower() for choice in choices)


def _number_fault(key: str, value: object, *, whole: bool) -> str | None:
    if isinstance(value, str):
        return f"got the string '{value[:80]}', expected a number{number_trap(value)}."
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"got {_shown(value)}, expected a number."
    if not abs(value) < float("inf"):
        return f"got {value}, expected a finite number."
    if whole and not isinstance(value, int):
        return f"got {value}, expected a whole number, without a dot."
    return _range_fault(key, value)


def _range_fault(key: str, value: float) -> str | None:
    at_least_0 = ((key,), lambda number: number >= 0, "a number of at least 0")
    sound, wanted = next((test, words) for keys, test, words in (*RANGES, at_least_0) if key in keys)
    return None if sound(value) else f"got {value}, expected {wanted}."


def _shown(value: object) -> str:
    return f"the string '{value[:80]}'" if isinstance(value, str) else str(value)[:80]
