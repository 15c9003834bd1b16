"""The trainer of a recipe: model loaded, frozen and wired, ready to train."""

from pathlib import Path
from typing import Any

from alignment.checks.compatibility import refuse
from alignment.checks.trainer_faults import faults_of_trl
from alignment.config.data_entries import train_rows
from alignment.config.methods import METHODS
from alignment.config.recipe import Recipe
from alignment.distributed.engine import (
    prepare_deepspeed,
)


def make_trainer(recipe: Recipe, folder: Path) -> Any:
    """TRL's trainer for a recipe, model loaded and frozen as asked, ready to train.

    Raises: InputError for what does not go together, or cannot be loaded.
    """
    refuse(recipe)
    from transformers import AutoConfig

    from alignment.config.checkpoint_folders import base_of
    from alignment.config.foreign_code import pretrained
    from alignment.config.model_files import faults_of_weights
    from alignment.data.fitting_rows import rows_to_train_on, with_ids
    from alignment.data.row_cache import ROWS, stored_rows
    from alignment.models.loading import check_generation, check_sees, load_model, model_options
    from alignment.models.module_settings import set_modules
    from alignment.models.parts import freeze, lora_config
    from alignment.models.prepared import prepared_model
    from alignment.models.processors import load_processor
    from alignment.resuming.training import note_rows

    arguments = trainer_arguments(recipe, folder)
    path = prepared_model(recipe)
    rows = train_rows(recipe)
    data = stored_rows(rows.file, folder / ROWS).select(rows.indices)
    check_sees(pretrained(AutoConfig, base_of(path)), path)
    check_generation(path)
    processor = load_processor(path, max_pixels=recipe.model.max_pixels)
    data, lengths = rows_to_train_on(recipe, processor, with_ids(data), path, run=folder)
    if recipe.method == "sft" and recipe.data.too_long != "cut":
        arguments.pop("max_length", None)  # every row fits, and nothing is cut
    is_adapter = (Path(path) / "adapter_config.json").is_file()
    model: Any = (
        load_model(path, dtype=recipe.model.dtype, attention=recipe.model.attention, trainable=True)
        if is_adapter
        else path
    )
    if not is_adapter:
        arguments["model_init_kwargs"] = {
            **model_options(recipe.model),
            **arguments.get("model_init_kwargs", {}),
        }
    with faults_of_weights(path), faults_of_trl():
        trainer = METHODS[recipe.method].maker(
            recipe, model, processor, data,
            arguments=arguments, peft_config=None if is_adapter else lora_config(recipe.model.lora),
        )  # fmt: skip
    freeze(trainer.model, list(recipe.model.freeze))
    if recipe.model.cache_image_features:
        from alignment.models.image_features import cache_image_features

        cache_image_features(trainer.model, reference=getattr(trainer, "ref_model", None), run=folder)
    set_modules(trainer, recipe.model)
    note_rows(trainer, recipe.data, lengths)
    return trainer


def trainer_arguments(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """The recipe's trainer section over clinalign's defaults: no tracker, no upload, the model's own precision."""
    from alignment.config.library_names import installed_keys
    from alignment.models import kernels

    defaults: dict[str, Any] = {
        "output_dir": str(folder / "checkpoints"),
        "report_to": "none",
        "push_to_hub": False,
        "bf16": recipe.model.dtype == "bfloat16",
        "save_total_limit": 2,
        "logging_steps": 10,
        **kernels.liger(recipe.model),
    }
    return prepare_deepspeed({**defaults, **installed_keys(recipe.trainer)})
