"""Every fault of a recipe beyond its shape: the trainer's keys, the data's columns and rows, the rewards' knobs.

What does not go together stands in ``compatibility.py``. Left out: whatever needs a model to be loaded.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from alignment.checks.compatibility import starts_from_adapter
from alignment.checks.trainer_faults import package_faults
from alignment.checks.trainer_values import refused_keys, value_faults
from alignment.config.curriculum_section import curriculum_faults
from alignment.config.data_entries import TrainRows, train_rows
from alignment.config.foreign_code import SAFE
from alignment.config.library_names import trainer_keys
from alignment.config.methods import METHODS, config_class, readers_of
from alignment.config.model_section import Module
from alignment.config.recipe import Recipe
from alignment.config.reward_entry import RewardEntry
from alignment.distributed.processes import is_main_process
from rewards.config.input_error import InputError, nearest
from rewards.loading import load_reward
from rewards.tasks import KNOWN, pays_for

GIVEN_BY_TRAINER = ("completion_ids",)
"""Columns of rewards that TRL gives beside those of the data."""
MAY_BE_NULL = ("images", "task", "weight", "mirror_images")
"""Of the needed columns, those that a row may leave open, and that are judged elsewhere (``weight_faults``)."""


def trainer_faults(content: Mapping[str, object]) -> list[str]:
    """Unknown keys and wrong types of the ``trainer`` section, by TRL's own config class."""
    section, method = content.get("trainer", {}), content.get("method")
    if not isinstance(section, dict):
        return []
    refused = refused_keys(section)
    faults = [f"trainer.{key}: {why}" for key, why in refused.items()]
    if not isinstance(method, str) or method not in METHODS or not METHODS[method].trains or not section:
        return faults
    kinds = trainer_keys(config_class(method))
    section = {key: value for key, value in section.items() if str(key) not in refused}
    faults += [f"trainer.{key}: unknown key.{nearest(str(key), list(kinds))}" for key in section if key not in kinds]
    values = value_faults(config_class(method), section)
    nested = [
        f"trainer.{key}: got {value}, expected finite numbers in it."
        for key, value in section.items()
        if isinstance(value, dict | list) and _is_void(value)
    ]
    return [*faults, *package_faults(section), *values, *nested, *_foreign_code(section)]


def _foreign_code(section: Mapping[str, object]) -> list[str]:
    """Settings that would run code, or open pickles, that come with a model."""
    inner = section.get("model_init_kwargs")
    given = {f"model_init_kwargs.{k}": v for k, v in inner.items()} if isinstance(inner, dict) else {}
    return [
        f"trainer.{key}: got {value}; clinalign runs no code that comes with a model. Leave it out."
        for key, value in {**section, **given}.items()
        if SAFE.get(key.removeprefix("model_init_kwargs."), value) != value
    ]


def _is_void(value: object) -> bool:
    """Whether a setting is or holds a float that is not finite, which would train every weight to nonsense."""
    if isinstance(value, dict):
        return any(map(_is_void, value.values()))
    if isinstance(value, list):
        return any(map(_is_void, value))
    return isinstance(value, float) and not math.isfinite(value)


def unused_faults(recipe: Recipe) -> list[str]:
    """Sections that say something which the method does not read, and a model of which nothing is trained."""
    faults = [
        f"{name}: {recipe.method} reads no such section; it is for {' and '.join(readers)}. Leave it out."
        for name, field in Recipe.model_fields.items()
        if (readers := readers_of(name)) and recipe.method not in readers
        if getattr(recipe, name) != field.get_default()
    ]
    return faults + _frozen_faults(recipe)


def _frozen_faults(recipe: Recipe) -> list[str]:
    is_whole = {*recipe.model.freeze} == {*get_args(Module)}
    has_more = recipe.model.lora is not None or not METHODS[recipe.method].trains_the_model_alone
    if not is_whole or has_more or starts_from_adapter(recipe):
        return []
    return [
        "model.freeze: every part of the model is named, so nothing would be trained. Leave a part out, or add "
        "adapters, such as lora: {rank: 16}."
    ]


def data_faults(recipe: Recipe) -> list[str]:
    """Missing files, empty data sets and missing columns."""
    try:
        rows = train_rows(recipe)
    except InputError as missing:
        return [f"data.train: {str(missing).removeprefix('data: ')}"]
    file, names = rows.file, rows.columns
    if recipe.data.batch_tokens is not None and not METHODS[recipe.method].batch_tokens:
        return [f"data.batch_tokens: not under {recipe.method}, whose batches are not made of single rows."]
    faults = [] if rows.num_in_file else [f"data.train: {file} holds no rows."]
    method = METHODS[recipe.method]
    needed = list(method.columns)
    if "weighting" in method.sections and recipe.weighting.use and "weight" in names:  # else each weighs 1
        needed.append("weight")
    if recipe.method == "dpo" and recipe.weighting.mirrors:
        needed.append("mirror_images")
    lacking = [column for column in needed if column not in names]
    if lacking:
        faults.append(f"data.train: {recipe.method} reads {', '.join(lacking)}, but {file} has: {', '.join(names)}.")
    elif wrong := row_faults(recipe, needed):
        return faults + wrong  # what follows counts on columns of the right types
    elif "weight" in needed:
        faults += weight_faults(recipe, rows)
    faults += curriculum_faults(recipe.data.curriculum, recipe.trainer, names)
    return faults + kind_faults(recipe, rows)


def row_faults(recipe: Recipe, needed: Sequence[str]) -> list[str]:
    """The first rows that cannot be trained on, each with its cure. Of several processes one reads them."""
    if not is_main_process():
        return []
    never_null = tuple(name for name in needed if name not in MAY_BE_NULL)
    from data_builders.row_checks import Check, file_faults

    return [f"data.train: {fault}" for fault in file_faults(train_rows(recipe).file, Check(never_null))]


def sampling_faults(recipe: Recipe) -> list[str]:
    """A file of relevance scores that cannot be read, told before anything is sampled."""
    scores = recipe.sampling.relevance.scores
    if scores is None or "sampling" not in METHODS[recipe.method].sections:
        return []
    from data_builders.build.preference_set import read_scores

    try:
        read_scores(Path(scores))
    except InputError as fault:
        return [f"sampling.{fault}"]
    return []


def kind_faults(recipe: Recipe, rows: TrainRows) -> list[str]:
    """Kinds and tasks that no row of the data has."""
    train, faults = recipe.data.train, list[str]()
    for column, wanted in (("kind", recipe.data.kinds), ("task", recipe.data.tasks)):
        if wanted is None:
            continue
        if column not in rows.columns:
            have = "only preference rows have one" if column == "kind" else "rows of a built data set have one"
            faults.append(f"data.{column}s: {train} has no column '{column}'; {have}.")
            continue
        known = sorted(set(rows.in_file(column)))
        faults += [
            f"data.{column}s: no row of {train} is of {column} '{one}'.{nearest(one, known)} There: {', '.join(known)}."
            for one in wanted
            if one not in known
        ]
    return faults


def weight_faults(recipe: Recipe, rows: TrainRows) -> list[str]:
    """Weights that are missing, not finite or negative."""
    train, weights = recipe.data.train, rows.in_file("weight")
    wrong = [index for index, weight in enumerate(weights) if weight is None or not 0 <= weight < float("inf")]
    if not wrong:
        return []
    return [
        f"data.train: row {wrong[0]} of {train} has weight {weights[wrong[0]]} ({len(wrong)} such); expected a number "
        "of at least 0. Rebuild it, or train without weights: weighting.use=false."
    ]


def reward_faults(recipe: Recipe) -> list[str]:
    """Unknown rewards and knobs, and rewards whose column the data lack."""
    faults, names = list[str](), _columns(recipe)
    for index, entry in enumerate(recipe.rewards):
        try:
            reward = load_reward(entry.name, **entry.knobs)
        except InputError as fault:
            faults.append(f"rewards[{index}]: {fault}")
            continue
        faults += _reward_model_faults(entry, index)
        if names is None:
            continue
        faults += [
            f"rewards[{index}]: '{entry.name}' reads column '{c}', but {recipe.data.train} has: {', '.join(names)}."
            for c in reward.columns
            if c not in names and c not in GIVEN_BY_TRAINER
        ]
        faults += _empty_column_faults(recipe, entry.name, [c for c in reward.columns if c in names], index)
        faults += _task_faults(recipe, entry.tasks or reward.tasks, index)
    return faults + _combination_faults(recipe)


def _empty_column_faults(recipe: Recipe, reward: str, columns: list[str], index: int) -> list[str]:
    """Columns that a reward reads and that hold nothing in any row that is trained on: it could judge none of them."""
    rows = train_rows(recipe)
    if row_faults(recipe, METHODS[recipe.method].columns) or kind_faults(recipe, rows):
        return []  # told first
    return [
        f"rewards[{index}]: '{reward}' reads column '{c}', which is null in every row of {recipe.data.train} that is "
        "trained on. Fill it, or leave the reward out."
        for c in columns
        if rows.indices and all(value is None for value in rows.of(c))
    ]


def _columns(recipe: Recipe) -> list[str] | None:
    """The columns of the data; None where there are none to read, which ``data_faults`` says."""
    try:
        return train_rows(recipe).columns
    except InputError:
        return None


def _task_faults(recipe: Recipe, tasks: Sequence[str] | None, index: int) -> list[str]:
    """A reward that no row is of, and tasks that neither a row nor this program knows."""
    method = METHODS[recipe.method]
    if tasks is None or "rewards" not in method.sections or row_faults(recipe, method.columns):
        return []
    rows = train_rows(recipe)
    if kind_faults(recipe, rows):
        return []
    there = rows.by_task
    known = sorted({*KNOWN, *filter(None, there)})
    unknown = [task for task in tasks if task not in known]
    if unknown:
        return [f"rewards[{index}].tasks: no task '{task}'.{nearest(task, known)}" for task in unknown]
    if not there or any(pays_for(tasks, task) for task in there):
        return []
    name, have = recipe.rewards[index].name, ", ".join(sorted(filter(None, there)))
    return [
        f"rewards[{index}]: '{name}' pays for rows of {', '.join(tasks)}, and {recipe.data.train} has none of them, "
        f"only {have}. Leave it out, or name the tasks that it is to pay for: tasks: [{have}]."
    ]


def unpaid_tasks(recipe: Recipe) -> dict[str, int]:
    """Tasks of training rows that no reward with a weight pays for, with their rows: those teach nothing."""
    if "rewards" not in METHODS[recipe.method].sections:
        return {}
    paying = [entry.tasks or load_reward(entry.name, **entry.knobs).tasks for entry in recipe.rewards if entry.weight]
    return {str(t): n for t, n in train_rows(recipe).by_task.items() if not any(pays_for(tasks, t) for tasks in paying)}


def unpaid_warning(recipe: Recipe) -> str | None:
    """One sentence on rows that no weighted reward pays for; None where there are none."""
    unpaid = unpaid_tasks(recipe)
    if not unpaid:
        return None
    told = ", ".join(f"{task} ({number} rows)" for task, number in sorted(unpaid.items()))
    return (
        f"no reward with a weight pays for rows of {told}: they are answered and teach nothing. Leave them out "
        "(data.tasks), or add a reward for them."
    )


def _reward_model_faults(entry: RewardEntry, index: int) -> list[str]:
    if entry.name != "reward_model":
        return []
    from alignment.config.checkpoint_folders import reward_model_folder

    try:
        reward_model_folder(str(entry.knobs.get("path", "")))
    except InputError as fault:
        return [f"rewards[{index}]: knob 'path': {fault}"]
    return []


def _canary_faults(recipe: Recipe) -> list[str]:
    needed = ("task", "facts", "rule_set", "answer", "boxes") if recipe.canaries else ()
    names = _columns(recipe)
    lacking = [name for name in needed if names is not None and name not in names]
    return [f"canaries: read column '{name}', which {recipe.data.train} lacks." for name in lacking]


def _combination_faults(recipe: Recipe) -> list[str]:
    """A schedule's knob that its reward lacks or that takes no number, and a domain column that the data lack."""
    faults: list[str] = []
    for index, entry in enumerate(recipe.combination.schedules):
        try:
            load_reward(entry.reward, **{entry.knob: entry.start})
        except InputError as fault:
            faults.append(f"combination.schedules[{index}]: {fault}")
    domains = recipe.combination.domains
    owned = "scale_rewards" if domains else "multi_objective_aggregation"
    if owned in recipe.trainer and (domains or "mode" in recipe.combination.model_fields_set):
        faults.append(f"trainer.{owned}: 'combination' sets it; leave it out of one of the two.")
    faults += _canary_faults(recipe)
    names = _columns(recipe)
    if domains and names is not None and domains.column not in names:
        hint = nearest(domains.column, names) or f" It has: {', '.join(names)}."
        faults.append(f"combination.domains: {recipe.data.train} has no column '{domains.column}'.{hint}")
    return faults
