"""Settings and caches by the name that the installed transformers has for them."""

import dataclasses

import pytest
import torch
from transformers import DynamicCache, TrainingArguments
from transformers.modeling_outputs import BaseModelOutputWithPast

from alignment.checks.faults import trainer_faults
from alignment.checks.read_recipe import read_recipe
from alignment.config.library_names import cache_in, cache_name, installed_keys, recomputes_activations
from alignment.config.methods import config_class
from alignment.training.trainer import trainer_arguments
from tests.alignment.models.tiny_families import build, recompute


@pytest.mark.parametrize("method", ["sft", "dpo", "grpo", "reward_model"])
@pytest.mark.parametrize("on", [False, True])
def test_a_recipes_one_name_reaches_trls_config_of_any_release(write_recipe, tmp_path, method, on):
    recipe = read_recipe(write_recipe(method, trainer={"activation_checkpointing": on}))
    assert recipe.trainer["activation_checkpointing"] is on
    arguments = config_class(method)(**trainer_arguments(recipe, tmp_path))
    assert arguments.gradient_checkpointing is on


def test_before_5_23_both_keys_are_renamed_and_the_rest_is_left():
    given = {"seed": 1, "activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": False}}
    older = {"seed", "gradient_checkpointing", "gradient_checkpointing_kwargs"}
    assert installed_keys(given, older) == {
        "seed": 1, "gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False},
    }  # fmt: skip
    assert installed_keys(given, older | set(given)) == given


def test_of_two_names_for_one_setting_the_newer_one_holds():
    given = {"gradient_checkpointing": True, "activation_checkpointing": False}
    assert installed_keys(given, {"gradient_checkpointing"}) == {"gradient_checkpointing": False}


def test_what_is_installed_is_read_from_its_own_config():
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    assert set(installed_keys({"activation_checkpointing": True})) <= known


def test_a_key_that_no_release_has_is_still_a_fault():
    content = {"method": "sft", "trainer": {"activation_checkpointing": True, "activation_checkpoint": True}}
    (fault,) = trainer_faults(content)
    assert fault.startswith("trainer.activation_checkpoint: unknown key. Did you mean 'activation_checkpointing'?")


def test_a_value_of_a_wrong_type_is_told_by_the_recipes_name():
    (fault,) = trainer_faults({"method": "sft", "trainer": {"activation_checkpointing": "false"}})
    assert fault.startswith("trainer.activation_checkpointing: got ")


def test_recomputing_is_seen_in_any_part():
    model = build("llava").train()
    assert not recomputes_activations(model)
    recompute(model)
    assert recomputes_activations(model)


def test_a_cache_is_found_under_either_name():
    cache = DynamicCache()
    for name in ("cache", "past_key_values"):
        assert cache_in({name: cache, "use_cache": True}) is cache
        assert cache_name({name: cache}) == name
    assert cache_in({"past_key_values": None}) is None


def test_the_cache_of_a_forward_is_found_and_its_name_goes_back_in():
    model = build("llava")
    ids = torch.tensor([[3, 4, 5]])
    out = model.base_model(input_ids=ids, use_cache=True)
    assert cache_in(out).get_seq_length() == 3
    model.base_model(input_ids=ids[:, :1], use_cache=True, **{cache_name(out): cache_in(out)})
    assert cache_in(out).get_seq_length() == 4
    assert cache_in(BaseModelOutputWithPast(last_hidden_state=torch.zeros(1))) is None
