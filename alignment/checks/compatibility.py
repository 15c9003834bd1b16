"""What works with what, as data: what reads a recipe and what makes its trainer refuse by it.

``clinalign check --compatibility`` prints it. Left out: what only data or a machine can show (columns,
lengths, missing GPUs); those have checks of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.config.methods import METHODS
from alignment.config.recipe import Recipe
from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json
from rewards.config.shipped import here_or_shipped

Applies = Callable[[Recipe], bool]


def zero_settings(recipe: Recipe) -> dict[str, Any]:
    """The ``zero_optimization`` section of the recipe's DeepSpeed file, empty without one that can be read."""
    from alignment.checks.trainer_faults import deepspeed_faults

    file = recipe.trainer.get("deepspeed")
    if isinstance(file, str) and here_or_shipped(Path(file)).is_file() and not deepspeed_faults(file):
        content = read_json(here_or_shipped(Path(file)), "See recipes/deepspeed/zero2.json.")
        return dict(content.get("zero_optimization", {}))
    return {}


def _stage(recipe: Recipe) -> int:
    return int(zero_settings(recipe).get("stage", 0))


def _asks(recipe: Recipe, key: str) -> bool:
    return bool(recipe.trainer.get(key))


def _is_on(recipe: Recipe) -> bool:
    return recipe.model.shared_prefix == "on"


def _through_cache(recipe: Recipe) -> bool:
    asked = recipe.model.shared_prefix, recipe.model.attention
    return METHODS[recipe.method].shares_prompts and (asked[0] == "cached" or asked == ("on", "flash_attention_2"))


def _trains_alone(recipe: Recipe) -> bool:
    return METHODS[recipe.method].trains_the_model_alone


def _checkpoints(recipe: Recipe) -> bool:
    """TRL's default is to recompute activations."""
    older = recipe.trainer.get("gradient_checkpointing", True)
    return bool(recipe.trainer.get("activation_checkpointing", older))


def starts_from_adapter(recipe: Recipe) -> bool:
    """Whether the model's folder, or the run's, holds an adapter, which is what is trained on."""
    folder = Path(recipe.model.path)
    return any((place / "adapter_config.json").is_file() for place in (folder, folder / "model"))


def _has_adapter(recipe: Recipe) -> bool:
    return recipe.model.lora is not None or starts_from_adapter(recipe)


def _losses(recipe: Recipe) -> list[object]:
    asked = recipe.trainer.get("loss_type", "sigmoid")
    return list(asked) if isinstance(asked, list) else [asked]


@dataclass(frozen=True)
class Refused:
    """Two things that do not go together: ``place`` in the recipe, why, and what to do instead."""

    one: str
    other: str
    place: str
    why: str
    cure: str
    applies: Applies


@dataclass(frozen=True)
class Works:
    """Two things that go together, and the test of ``tests/alignment`` that shows it (None: not tried, and why)."""

    one: str
    other: str
    how: str
    shown_by: str | None


REFUSED = (
    Refused(
        "quantization (QLoRA)", "ZeRO-3", "model.quantization",
        "4-bit weights cannot be divided among ranks", "use recipes/deepspeed/zero2.json",
        lambda r: r.model.quantization is not None and _stage(r) == 3,
    ),
    Refused(
        "quantization (QLoRA)", "full training", "model.quantization",
        "4-bit weights take no gradient", "add a section such as lora: {rank: 16}",
        lambda r: r.model.quantization is not None and r.model.lora is None and _trains_alone(r),
    ),
    Refused(
        "quantization (QLoRA)", "going on from an adapter", "model.quantization",
        "the base of an adapter's folder is loaded whole", "release the adapter and start from the merged weights",
        lambda r: r.model.quantization is not None and starts_from_adapter(r),
    ),
    Refused(
        "shared_prefix: on, through a cache", "activation checkpointing", "model.shared_prefix",
        "flash attention takes no mask, and a cache does not outlive recomputing",
        "say trainer.activation_checkpointing: false, or use 'auto' (repeats the prompt there)",
        lambda r: _through_cache(r) and _checkpoints(r),
    ),
    Refused(
        "shared_prefix: on", "dialogues", "model.shared_prefix",
        "each dialogue is computed by itself", "use 'auto' or 'off'",
        lambda r: _is_on(r) and r.dialogue is not None,
    ),
    Refused(
        "dialogues", "vLLM", "trainer.use_vllm",
        "dialogues are rolled out with the model itself", "leave it out",
        lambda r: r.dialogue is not None and _asks(r, "use_vllm"),
    ),
    Refused(
        "dialogues", "continuous batching", "trainer.use_transformers_continuous_batching",
        "dialogues are rolled out with the model itself", "leave it out",
        lambda r: r.dialogue is not None and _asks(r, "use_transformers_continuous_batching"),
    ),
    Refused(
        "dialogues", "canaries", "canaries",
        "they attack with single responses, not with dialogues", "leave the section out",
        lambda r: r.dialogue is not None and r.canaries is not None,
    ),
    Refused(
        "DeepSpeed", "use_cpu", "trainer.use_cpu",
        "with it DeepSpeed is silently not used", "leave it out beside trainer.deepspeed",
        lambda r: _asks(r, "deepspeed") and _asks(r, "use_cpu"),
    ),
    Refused(
        "DPO's reference on disk", "adapters under DeepSpeed", "trainer.precompute_ref_log_probs",
        "a divided model's adapter cannot be switched off before training", "leave it out",
        lambda r: _asks(r, "precompute_ref_log_probs") and _has_adapter(r) and _asks(r, "deepspeed"),
    ),
    Refused(
        "DPO's reference on disk", "sync_ref_model", "trainer.precompute_ref_log_probs",
        "the reference moves", "leave one of the two out",
        lambda r: _asks(r, "precompute_ref_log_probs") and _asks(r, "sync_ref_model"),
    ),
    Refused(
        "DPO's reference on disk", "token_kl_coefficient", "trainer.precompute_ref_log_probs",
        "token_kl_coefficient needs the reference itself", "leave it out",
        lambda r: _asks(r, "precompute_ref_log_probs") and r.weighting.token_kl_coefficient > 0,
    ),
    Refused(
        "DPO's reference on disk", "the symmetric term", "trainer.precompute_ref_log_probs",
        "the symmetric term needs the reference itself", "leave it out",
        lambda r: _asks(r, "precompute_ref_log_probs") and r.weighting.mirrors,
    ),
    Refused(
        "sync_ref_model", "DeepSpeed", "trainer.sync_ref_model",
        "the reference that moves is not kept in checkpoints of DeepSpeed", "leave one of the two out",
        lambda r: _asks(r, "sync_ref_model") and _asks(r, "deepspeed"),
    ),
    Refused(
        "sync_ref_model", "adapters", "trainer.sync_ref_model",
        "with adapters there is no reference of its own to synchronise", "leave it out, or train all weights",
        lambda r: _asks(r, "sync_ref_model") and r.model.lora is not None,
    ),
    Refused(
        "sync_ref_model", "GRPO without a reference", "trainer.sync_ref_model",
        "beta is 0, so there is no reference", "set trainer.beta, or leave it out",
        lambda r: r.method == "grpo" and _asks(r, "sync_ref_model") and not _asks(r, "beta"),
    ),
    Refused(
        "weighted DPO", "losses other than sigmoid", "trainer.loss_type",
        "only 'sigmoid' has a weighted form here", "leave it out",
        lambda r: r.method == "dpo" and _losses(r) != ["sigmoid"],
    ),
    Refused(
        "ZeRO-3", "generation from divided weights", "trainer.ds3_gather_for_generation",
        "a rank whose prompts hold no image would keep the others waiting", "leave it out",
        lambda r: r.method == "grpo" and _stage(r) == 3 and r.trainer.get("ds3_gather_for_generation") is False,
    ),
    Refused(
        "reward models with adapters", "going on from an adapter", "model.lora",
        "the model is an adapter itself, and its base would be on no disk", "release it first, or leave lora out",
        lambda r: METHODS[r.method].new_head and r.model.lora is not None and starts_from_adapter(r),
    ),
    Refused(
        "data.curriculum", "data.batch_tokens", "data.batch_tokens",
        "the stream of data.curriculum counts rows", "leave one of the two out",
        lambda r: r.data.curriculum is not None and r.data.batch_tokens is not None,
    ),
    Refused(
        "data.curriculum", "another order of rows", "trainer.train_sampling_strategy",
        "data.curriculum orders the rows", "leave one of the two out",
        lambda r: r.data.curriculum is not None and _asks(r, "train_sampling_strategy"),
    ),
    Refused(
        "tower_checkpointing: true", "a frozen tower", "model.tower_checkpointing",
        "a frozen tower keeps no activations", "leave it out",
        lambda r: r.model.tower_checkpointing is True and "vision" in r.model.freeze and r.model.lora is None,
    ),
)  # fmt: skip

NO_GPU = "no GPU here"
ZERO = "test_deepspeed.py::test_two_ranks_under_zero_train_like_one_process"
MIXED = "test_mixed_batches.py::test_text_on_one_rank_and_images_on_the_other_train_like_one_process"
SHARED = "test_deepspeed.py::test_shared_prefix_on_and_off_train_alike_under_zero"
CACHED = "test_cached_prefix.py::test_log_probabilities_and_gradients_equal_the_repeated_layout"
KILLED = "test_resume_after_kill.py::test_a_killed_run_goes_on_to_the_same_losses"
KILLED_ZERO = "test_resume_after_kill.py::test_two_ranks_under_zero_go_on_to_the_same_losses"
INEXACT = "test_inexact_resume.py::test_"
DIALOGUES = "test_dialogue_deepspeed.py::test_two_ranks_under_zero_2_train_on_dialogues"
RATES = "test_module_settings.py::test_rates_hold_under_zero_2"
LAUNCHED = "test_launch.py::test_launch_trains_on_two_cpu_processes"
CHAIN = "test_chains_over_ranks.py::test_a_chain_under_zero_gives_the_weights_of_its_stages_one_by_one"
PAIRS = "test_chains_over_ranks.py::test_two_ranks_write_the_pairs_of_one_and_ask_an_llm_once"
CHAINED = "weights of the stages one by one, to the last bit"
ALIKE = {
    "sft": "losses and gradient norms as on one process",
    "dpo": "losses and gradient norms as on one process",
    "grpo": "weights as on one process",
}
ON_OTHERS = "a checkpoint of two ranks (`train --inexact`)"
AS_ON_TWO = "rows and losses as on two"
RESUMED = "losses and weights as never killed"

WORKS = (
    *(Works(m.upper(), f"ZeRO-{s}", how, f"{ZERO}[{s}-{m}]") for m, how in ALIKE.items() for s in (2, 3)),
    *(
        Works(m.upper(), f"text on one rank, images on another, ZeRO-{s}", how, f"{MIXED}[{m}-{s}]")
        for m, how in ALIKE.items()
        for s in (2, 3)
    ),
    Works("shared_prefix, DPO", "ZeRO-2", "losses and gradient norms as without it", f"{SHARED}[2-dpo]"),
    Works("shared_prefix, DPO", "ZeRO-3", "losses and gradient norms as without it", f"{SHARED}[3-dpo]"),
    Works("shared_prefix, GRPO", "ZeRO-2", "weights as without it", f"{SHARED}[2-grpo]"),
    Works("shared_prefix, GRPO", "ZeRO-3", "weights as without it", f"{SHARED}[3-grpo]"),
    Works("shared_prefix", "a cache in place of a mask", "gradients as without it", CACHED),
    Works("shared_prefix", "flash attention", NO_GPU, None),
    Works("a run killed and gone on, SFT", "one process", RESUMED, f"{KILLED}[sft-kills0]"),
    Works("a run killed and gone on, DPO", "one process", RESUMED, f"{KILLED}[dpo-kills1]"),
    Works("a run killed and gone on, GRPO", "one process", RESUMED, f"{KILLED}[grpo-kills2]"),
    *(Works(f"a run killed and gone on, {m.upper()}", "ZeRO-2", RESUMED, f"{KILLED_ZERO}[{m}-2]") for m in ALIKE),
    Works("a run killed and gone on, SFT", "ZeRO-3", RESUMED, f"{KILLED_ZERO}[sft-3]"),
    Works("a run killed and gone on, DPO and GRPO", "ZeRO-3", "takes too long for every change", None),
    Works(f"{ON_OTHERS}, SFT", "ZeRO-2, on four", AS_ON_TWO, f"{INEXACT}sft_under_zero_goes_on_on_other_ranks[2-4]"),
    Works(f"{ON_OTHERS}, SFT", "ZeRO-3, on one", AS_ON_TWO, f"{INEXACT}sft_under_zero_goes_on_on_other_ranks[3-1]"),
    Works(f"{ON_OTHERS}, DPO, LoRA", "ZeRO-2, on one", AS_ON_TWO, f"{INEXACT}dpo_of_adapters_goes_on_on_one_rank"),
    Works(f"{ON_OTHERS}, SFT", "on one and back", AS_ON_TWO, f"{INEXACT}without_deepspeed_to_one_rank_and_back"),
    Works(f"{ON_OTHERS}, GRPO", "on one", "rows as on two", f"{INEXACT}grpo_answers_a_generation_batch_anew"),
    Works("dialogues", "ZeRO-2", "trains with unequal dialogues", DIALOGUES),
    Works("dialogues", "ZeRO-3", "takes too long for every change", None),
    Works("learning_rates", "ZeRO-2", "each part moves by its own rate", RATES),
    Works("learning_rates", "ZeRO-3", "takes too long for every change", None),
    Works("a chain of SFT, pairs, DPO and GRPO in one call", "ZeRO-2", CHAINED, f"{CHAIN}[2-dpo]"),
    Works("a chain of SFT, pairs, DPO and GRPO in one call", "ZeRO-3", CHAINED, f"{CHAIN}[3-None]"),
    Works("pairs", "two processes", "the rows of one process", PAIRS),
    Works("launch", "two CPU processes", "trains some steps", LAUNCHED),
    Works("launch", "several nodes", "one machine here; the line for torchrun, accelerate and SLURM is checked", None),
    Works("quantization, liger, flash attention", "a GPU", NO_GPU, None),
)


def incompatibilities(recipe: Recipe) -> list[str]:
    """One line for each refused pair that this recipe holds."""
    return [
        f"{rule.place}: {rule.why}; {rule.cure} ({rule.one} and {rule.other})."
        for rule in REFUSED
        if rule.applies(recipe)
    ]


def refuse(recipe: Recipe) -> None:
    """For who makes a trainer of a recipe that was not read from a file. Raises: InputError for what does not go."""
    if faults := incompatibilities(recipe):
        raise InputError("\n".join(faults))


def table() -> str:
    """The whole of it as Markdown."""
    head = ["| what | with | verdict | why, or what shows it |", "|---|---|---|---|"]
    works = [f"| {w.one} | {w.other} | works: {w.how} | `{w.shown_by}` |" for w in WORKS if w.shown_by]
    untried = [f"| {w.one} | {w.other} | not tried | {w.how} |" for w in WORKS if not w.shown_by]
    refused = [f"| {r.one} | {r.other} | refused | {r.why}; {r.cure} |" for r in REFUSED]
    return "\n".join([*head, *works, *untried, *refused])
