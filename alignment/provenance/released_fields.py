"""What may stand in a release, field by field: what is not named here is left out, and so is a value of no known form.

A release holds counts, figures, digests and words out of clinalign's own lists; no free text of a user's data, specs
or recipes, for a patient's name can stand in any of it. Left out: the model's own files (``released_model.py``).
"""

import re
from collections.abc import Collection
from importlib.resources import files
from pathlib import Path
from typing import get_args

from alignment.config.generation_section import MAX_NEW_TOKENS
from alignment.config.methods import METHODS
from alignment.config.model_section import Module
from alignment.config.recipe import PairKind, Weighting
from alignment.metrics.metric_names import CONDITIONS, fault_of_metric
from alignment.provenance.released_forms import (
    LEFT_OUT,
    OTHER,
    Form,
    counts,
    each,
    either,
    number,
    one_of,
    pattern,
    record,
    table,
)
from data_builders.pairs.settings import Missing, Normalisation
from data_builders.schema import RowKind
from data_builders.sources.source import sources
from rewards.boxes.coordinate_space import BoxSpace
from rewards.config.input_error import InputError
from rewards.dialogues.dialogue import Scenario
from rewards.loading import available, available_batched
from rewards.rules.known_files import known_file
from rewards.rules.rule_set import register, shipped
from rewards.tasks import KNOWN as TASKS

SPLITS = (
    "train",
    "sft",
    "align",
    "dpo",
    "grpo",
    "rl",
    "dev",
    "val",
    "valid",
    "validation",
    "eval",
    "test",
    "holdout",
)
"""Names of splits that say nothing but what they are for; any other is told as ``other``."""


def metric(words: Collection[str]) -> Form:
    """The name of a metric; what stands in its brackets is made of these words."""

    def kept(name: object) -> object:
        if not isinstance(name, str) or fault_of_metric(name) is not None:
            return LEFT_OUT
        in_brackets = words_of(name.partition("[")[2])
        return name if in_brackets <= set(words) else LEFT_OUT

    return kept


def words_of(text: str) -> set[str]:
    """The words of a text, in small letters.

    >>> sorted(words_of("class_f1[stage, retina_amd@1: early AMD]"))
    ['1', 'amd', 'class_f1', 'early', 'retina_amd', 'stage']
    """
    return set(re.findall(r"\w+", text.casefold()))


def known_words(rule_sets: Collection[str] = ()) -> set[str]:
    """The words of rule sets (the shipped ones and these, by id or path), curricula, scenarios and tasks.

    A rule set that is not known adds none.
    """
    shelves = [("rewards.rule_sets", ".yaml"), ("data_builders.curricula", ".yaml")]
    shipped_files = [entry for shelf, end in shelves for entry in files(shelf).iterdir() if entry.name.endswith(end)]
    ids = [_id_of(name) for name in rule_sets]
    of_user = [file.content.decode() for name in ids if (file := known_file(name))]
    texts = [*(file.read_text(encoding="utf-8") for file in shipped_files), *of_user]
    names = " ".join([*get_args(Scenario), *TASKS, "yes or no", *(name for name in ids if known_file(name))])
    return {word for text in [*texts, names] for word in words_of(text)}


def _id_of(rule_set: str) -> str:
    """The id of a rule set that rows name by it or by a path, with or without a version behind it."""
    path = rule_set.partition("@")[0]
    if not path.endswith((".yaml", ".yml")):
        return rule_set
    try:
        return register(Path(path)).id
    except InputError:
        return ""


def _known_id(value: object) -> object:
    """The id of a shipped rule set, or of one of the user's own whose file is known, and so kept by the release."""
    name, _, version = value.partition("@") if isinstance(value, str) else ("", "", "")
    is_known = name in {one.partition("@")[0] for one in shipped()} or known_file(f"{name}@{version}") is not None
    return value if is_known and re.fullmatch(r"\d{1,4}", version, re.ASCII) else LEFT_OUT


def _named(*known: str) -> Form:
    """A word of a list; any other is told as ``other``."""
    return lambda value: value if isinstance(value, str) and value in known else OTHER


DIGEST = pattern(r"[0-9a-f]{64}")
VERSION = pattern(
    r"[0-9]{1,4}(\.[0-9]{1,4}){1,3}(\.?(a|b|rc|dev|post)[0-9]{0,3})?(\+(cpu|cu[0-9]{2,3}|rocm[0-9.]{1,5}|git[0-9a-f]{7,9}))?"
)
OWN_LICENCE = "stated by the owner of the data, in words that are not published here"
LICENCE = either(
    one_of(*(source.LICENCE for source in sources().values())),
    one_of(OWN_LICENCE),
    pattern(r"PhysioNet [A-Za-z ]{0,40}Licen[sc]e \d\.\d(\.\d)?"),
    pattern(r"(CC0|CC[ -]BY(-NC)?(-SA|-ND)?|MIT|Apache|BSD-[23]-Clause|ODbL|ODC-By)([ -]\d\.\d)?"),
)
KIND, TASK = one_of(*get_args(RowKind)), one_of(*TASKS)
DATA = record(
    source=one_of(*sources()),
    kind=KIND,
    split=_named(*SPLITS),
    licence=LICENCE,
    rows=counts(TASK),
    images=number,
    patients=number,
    quarantined=number,
    not_asked=number,
    refused=number,
    rule_sets=each(_known_id),
    sha256=DIGEST,
)
"""What is said of a data set: see ``data_summary.py``."""
METRIC = record(value=number, low=number, high=number, num_rows=number, num_patients=number)
REASON = one_of(
    "box without true boxes",
    "report without facts",
    "answer of a curriculum that states no finding",
    *(f"no metric for task '{task}'" for task in TASKS),
    *(f"{task} without an answer" for task in TASKS),
)
DTYPE = one_of("float32", "bfloat16", "float16", "auto")
LIBRARY = one_of(
    "clinalign", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "deepspeed", "numpy", "pillow"
)
PROVENANCE = record(
    packages=table(LIBRARY, VERSION),
    git_commit=pattern(r"[0-9a-f]{40}([0-9a-f]{24})?"),
    seed=number,
    inexact_resumes=each(record(step=number, ranks_before=number, ranks=number)),
)


def evaluation_form(words: Collection[str], rules: Collection[str] = ()) -> Form:
    """What is kept of an evaluation. Its ``model`` and ``data`` are said anew: they are paths.

    ``rules``: the files of rule sets that the release keeps.
    """
    return record(
        model_sha256=DIGEST,
        data_sha256=DIGEST,
        data_card=DATA,
        num_rows=number,
        num_patients=number,
        seed=number,
        max_new_tokens=counts(one_of(*MAX_NEW_TOKENS)),
        versions=table(LIBRARY, VERSION),
        metrics=table(one_of(*CONDITIONS), table(metric(words), METRIC)),
        box_space=one_of(*get_args(BoxSpace)),
        unjudged=counts(REASON),
        protocol=one_of("clinalign"),
        generation=record(dtype=DTYPE, temperature=number, seed=number),
        trained_on=each(DIGEST),
        rules=table(one_of(*rules), DIGEST),
    )


_MODULE = one_of(*get_args(Module))
_SWITCH = one_of("on", "off", "auto", "cached")
_TRAINER_NUMBERS = (
    "learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps",
    "warmup_ratio", "warmup_steps", "weight_decay", "max_grad_norm", "adam_beta1", "adam_beta2", "adam_epsilon",
    "label_smoothing_factor", "seed", "data_seed", "bf16", "fp16", "tf32", "gradient_checkpointing",
    "activation_checkpointing", "max_length", "packing", "completion_only_loss", "assistant_only_loss", "beta",
    "label_smoothing", "precompute_ref_log_probs", "max_prompt_length", "max_completion_length", "num_generations",
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "num_iterations", "epsilon", "epsilon_high",
    "scale_rewards", "mask_truncated_completions", "steps_per_generation", "generation_batch_size",
    "center_rewards_coefficient", "average_tokens_across_devices", "sync_ref_model", "ref_model_mixup_alpha",
)  # fmt: skip
_TRAINER_WORDS = {
    "lr_scheduler_type": one_of(
        "linear", "cosine", "cosine_with_min_lr", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt",
        "reduce_lr_on_plateau", "warmup_stable_decay", "cosine_with_restarts",
    ),
    "loss_type": one_of(
        "nll", "sigmoid", "hinge", "ipo", "apo_zero", "apo_down", "robust", "grpo", "dr_grpo", "dapo", "bnpo", "cispo",
    ),
    "optim": one_of("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adamw_8bit", "paged_adamw_8bit"),
}  # fmt: skip
_RELEVANCE = record(reading=one_of(*get_args(Normalisation)), scale=number, missing=one_of(*get_args(Missing)))
RECIPE = record(
    method=one_of(*METHODS),
    model=record(
        path=one_of("tiny", "smollm2"),
        dtype=DTYPE,
        attention=one_of("auto", "sdpa", "eager", "flash_attention_2", "flex_attention"),
        liger=number,
        quantization=either(number, one_of("4bit")),
        learning_rates=table(_MODULE, number),
        tower_checkpointing=number,
        tower_attention=one_of("auto", "one_call", "windows"),
        max_pixels=number,
        freeze=each(_MODULE),
        lora=either(
            record(rank=number, alpha=number, dropout=number, targets=one_of("all-linear")),
            number,
        ),
        shared_prefix=_SWITCH,
        cache_image_features=number,
        family=one_of("idefics3", "qwen3_vl", "llava"),
        image_size=number,
        init_std=number,
        seed=number,
    ),
    data=record(
        tasks=either(each(TASK), number),
        limit=number,
        too_long=one_of("refuse", "drop", "resize", "cut"),
        batch_tokens=number,
        largest_first=number,
        box_space=one_of(*get_args(BoxSpace)),
    ),
    rewards=each(
        record(name=_named(*available(), *available_batched()), weight=number, tasks=either(each(TASK), number))
    ),
    weighting=record(**dict.fromkeys(Weighting.model_fields, either(number, one_of("mean", "sum_w")))),
    sampling=record(
        kinds=each(one_of(*get_args(PairKind))),
        graded=number,
        num_samples=number,
        temperature=number,
        max_new_tokens=number,
        seed=number,
        relevance=_RELEVANCE,
    ),
    trainer=record(**dict.fromkeys(_TRAINER_NUMBERS, number), **_TRAINER_WORDS),
)
"""What of a run's own recipe is told."""
