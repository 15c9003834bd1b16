import pytest

from alignment.checks.read_recipe import read_recipe
from alignment.config.data_entries import train_rows
from alignment.planning.check import weight_figures
from rewards.config.input_error import InputError


def fault_of(path, *overrides):
    with pytest.raises(InputError) as caught:
        read_recipe(path, list(overrides))
    return str(caught.value)


def test_a_valid_recipe_is_read(write_recipe):
    assert read_recipe(write_recipe()).method == "sft"


def test_a_misspelt_key_is_refused_with_the_nearest_name(write_recipe):
    assert "model.freez: unknown key. Did you mean 'freeze'?" in fault_of(write_recipe(model={"freez": []}))


def test_a_misspelt_trainer_key_is_refused_with_the_nearest_name(write_recipe):
    assert "Did you mean 'learning_rate'?" in fault_of(write_recipe(trainer={"learning_rat": 1.0}))


def test_a_number_without_a_dot_is_named_as_yamls_trap(write_recipe):
    assert "YAML needs a dot and a sign: 1.0e-6" in fault_of(write_recipe(), "trainer.learning_rate='1e-6'")
    path = write_recipe()
    path.write_text(path.read_text().replace("learning_rate: 0.001", "learning_rate: 1e-6"))
    assert "got the string '1e-6'" in fault_of(path)


def test_an_unknown_reward_is_refused_with_the_nearest_name(write_recipe):
    assert "Did you mean 'closed_answer'?" in fault_of(write_recipe("grpo", rewards=[{"name": "close_answer"}]))


def test_a_reward_whose_column_the_data_lack_is_refused(write_recipe, data):
    path = write_recipe("grpo", data={"train": str(data / "preference/align")})
    assert "'box_overlap' reads column 'boxes'" in fault_of(path)


def test_a_missing_file_names_what_is_there(write_recipe, data):
    fault = fault_of(write_recipe(data={"train": str(data / "instruction/trian")}))
    assert "no file" in fault
    assert "instruction/sft" in fault


def test_all_faults_are_told_at_once(write_recipe):
    path = write_recipe(model={"freez": []}, outptu="x")
    assert len(fault_of(path).splitlines()) == 2 + 1  # and what is looked at next
    assert len(fault_of(write_recipe(trainer={"learning_rat": 1.0, "max_step": 3})).splitlines()) == 2


def test_grpo_without_rewards_is_refused(write_recipe):
    assert "needs a 'rewards' section" in fault_of(write_recipe("grpo", rewards=[]))


def test_overrides_replace_nested_keys(write_recipe):
    assert read_recipe(write_recipe(), ["trainer.seed=7"]).trainer["seed"] == 7


def test_only_rows_of_the_named_kinds_are_trained_on(write_recipe, data):
    import pyarrow.parquet as pq

    recipe = read_recipe(write_recipe("dpo", model={"path": "tiny"}, data={"kinds": ["hallucination"], "limit": 3}))
    assert train_rows(recipe).indices == [0, 1, 2]
    every = read_recipe(write_recipe("dpo", model={"path": "tiny"}))
    assert len(train_rows(every).indices) == pq.read_metadata(data / "preference" / "align.parquet").num_rows


def test_a_kind_that_no_row_has_is_told(write_recipe):
    with pytest.raises(InputError, match="Did you mean 'hallucination'"):
        read_recipe(write_recipe("dpo", model={"path": "tiny"}, data={"kinds": ["halucination"]}))
    with pytest.raises(InputError, match="has no column 'kind'"):
        read_recipe(write_recipe("sft", data={"kinds": ["hallucination"]}))


def test_the_plan_of_a_preference_run_tells_its_effective_sample_size(write_recipe):
    plan = weight_figures(recipe := read_recipe(write_recipe("dpo", model={"path": "tiny"})), train_rows(recipe))
    assert 0 < plan["effective_sample_size"] < len(train_rows(recipe).indices)
    plain = read_recipe(write_recipe("dpo", model={"path": "tiny"}, weighting={"use": False}))
    assert weight_figures(plain, train_rows(plain))["effective_sample_size"] == len(train_rows(plain).indices)


def test_a_strategy_of_no_which_yaml_reads_as_false_is_no(write_recipe):
    assert read_recipe(write_recipe("sft"), ["trainer.save_strategy=no"]).trainer["save_strategy"] == "no"


def test_a_key_that_nothing_reads_is_refused(write_recipe):
    path = write_recipe("sft", data={"eval": "data/x/prompt/test"})
    with pytest.raises(InputError, match=r"data.eval: unknown key. Known keys: train, kinds, tasks"):
        read_recipe(path)
