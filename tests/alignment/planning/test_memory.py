"""Memory by ZeRO stage against numbers worked by hand, and the shipped sizes of large models."""

from types import SimpleNamespace

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import ModuleList
from transformers import AutoModelForImageTextToText

from alignment.config.recipe import Recipe
from alignment.models.parts import part_of
from alignment.planning.activations import Batch
from alignment.planning.estimate import Row, batch_of, load_of, memory_table, time_table, zero_of
from alignment.planning.memory import SETTINGS, Load, Zero, per_rank
from alignment.planning.meta_model import Counts, counts_of, known_config, meta_model, patches_per_token, stacks_of
from rewards.config.input_error import InputError
from tests.alignment.distributed.test_deepspeed import ROOT, launched
from tests.alignment.models.tiny_families import FAMILIES, build, prompt_inputs, rows

BILLION = 1_000_000_000
FULL = Load(total=7 * BILLION, trainable=7 * BILLION)
# 7 B parameters in bfloat16 on 8 ranks: 2 + 2 + 12 bytes each, divided by the stage (ZeRO paper, figure 1).
BY_HAND = {
    Zero(1): (14.0, 14.0, 10.5),
    Zero(2): (14.0, 1.75, 10.5),
    Zero(3): (1.75, 1.75, 10.5),
}


@pytest.mark.parametrize("zero", BY_HAND, ids=lambda zero: zero.name)
def test_seven_billion_on_eight_ranks(zero):
    held = per_rank(FULL, zero, 8)
    assert (held.weights / 1e9, held.gradients / 1e9, held.optimizer / 1e9) == BY_HAND[zero]


def test_one_rank_holds_sixteen_bytes_a_parameter():
    held = per_rank(FULL, Zero(1), 1)
    assert held.device == 16 * 7 * BILLION


def test_without_deepspeed_the_moments_are_in_the_weights_own_precision():
    assert per_rank(FULL, Zero(0), 8).optimizer == 2 * 2 * 7 * BILLION
    assert per_rank(Load(10, 10, weight_bytes=4, base_bytes=4), Zero(0), 1).device == 10 * (4 + 4 + 8)


def test_zero_3_holds_at_most_a_billion_parameters_whole():
    assert per_rank(FULL, Zero(3), 8).working == 2 * BILLION
    assert per_rank(Load(100, 100), Zero(3), 8).working == 200


def test_zero_2_has_two_buckets_of_half_a_billion():
    assert per_rank(FULL, Zero(2), 8).working == 2 * BILLION


def test_lora_has_gradients_and_moments_of_the_adapters_alone():
    held = per_rank(Load(total=7_100_000_000, trainable=100_000_000), Zero(2), 10)
    assert held.weights == 14_200_000_000
    assert held.gradients == 20_000_000
    assert held.optimizer == 120_000_000


def test_four_bit_weights_are_half_a_byte():
    held = per_rank(Load(total=1100, trainable=100, base_bytes=0.5), Zero(0), 1)
    assert held.weights == 1000 * 0.5 + 100 * 2


def test_a_reference_of_its_own_is_divided_from_zero_3_on():
    both = Load(total=80, trainable=80, reference=80)
    assert per_rank(both, Zero(2), 8).reference == 160
    assert per_rank(both, Zero(3), 8).reference == 20


def test_offload_moves_and_loses_nothing():
    on, off = per_rank(FULL, Zero(3), 8), per_rank(FULL, Zero(3, True, True), 8)
    assert (off.weights, off.gradients, off.optimizer) == (0, 0, 0)
    assert off.cpu == on.weights + on.gradients + on.optimizer


@given(st.integers(1, 10**12), st.floats(0, 1), st.integers(1, 512), st.sampled_from(SETTINGS))
def test_more_ranks_never_hold_more_each(total, share, ranks, zero):
    load = Load(total, int(total * share))
    assert per_rank(load, zero, ranks + 1).device <= per_rank(load, zero, ranks).device


def test_adapters_are_float32_unless_deepspeed_casts_them():
    load = Load(total=1100, trainable=100, lone_bytes=4)
    alone, divided = per_rank(load, Zero(0), 1), per_rank(load, Zero(1), 1)
    assert (alone.weights, alone.gradients, alone.optimizer) == (2000 + 400, 400, 800)
    assert (divided.weights, divided.gradients, divided.optimizer) == (2200, 200, 1200)


@pytest.mark.parametrize(("name", "billions"), [("7B", 8.29), ("72B", 73.41)])
def test_the_shipped_sizes_give_the_published_number_of_parameters(name, billions):
    config = known_config(f"Qwen/Qwen2.5-VL-{name}-Instruct")
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    assert round(counts_of(model).total / 1e9, 2) == billions


def test_a_model_that_is_nowhere_is_refused_with_the_cure():
    with pytest.raises(InputError, match="hf download nobody/nothing"):
        known_config("nobody/nothing")


def large(name, **changes):
    content = yaml.safe_load((ROOT / "recipes" / name).read_text())
    content["model"] |= changes
    content["trainer"]["deepspeed"] = str(ROOT / content["trainer"]["deepspeed"])
    return Recipe.model_validate(content)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # peft asks for a property that transformers is about to rename
def test_frozen_parts_and_adapters_are_counted():
    whole = counts_of(meta_model(large("sft/qwen2_5_vl_7b_full.yaml")))
    assert whole.trainable == whole.total == whole.base
    adapted = counts_of(meta_model(large("sft/qwen2_5_vl_7b_lora.yaml")))
    assert adapted.base == whole.total
    assert adapted.trainable == adapted.total - adapted.base
    frozen = counts_of(meta_model(large("sft/qwen2_5_vl_7b_full.yaml", freeze=["vision"])))
    assert 0.6e9 < frozen.total - frozen.trainable < 0.7e9


def test_a_recipe_says_which_setting_is_its_own():
    recipe = large("sft/qwen2_5_vl_72b_full.yaml")
    assert zero_of(recipe).name == "zero3_offload"
    model = meta_model(recipe)
    table = memory_table(recipe, model, 32, batch_of(recipe, Row.known_by(1500, recipe), model.config))
    assert table["this_recipe"] == "zero3_offload"
    held = table["memory_gb_per_rank"]
    assert held["zero3_offload"]["device"] < 80 < held["zero2"]["device"]


def test_full_training_with_a_reference_holds_a_second_model():
    recipe = large("dpo/qwen2_5_vl_72b_lora.yaml")
    counts = Counts(total=10, base=9, trainable=1)
    assert load_of(recipe, counts).reference == 0
    assert load_of(large("dpo/qwen2_5_vl_72b_lora.yaml", lora=None), counts).reference == 9


SIZES = SimpleNamespace(
    model_type="qwen2_5_vl",
    vision_config=SimpleNamespace(spatial_merge_size=2, patch_size=14, temporal_patch_size=2),
)
PATCH = 3 * 2 * 14 * 14 * 4


def test_the_batch_of_a_group_shares_its_prompt_and_keeps_every_rows_pixels():
    """16 rows are 2 groups of 8: 2 x 100 + 16 x 30 tokens, rows of 340, 2 x 80 x 4 patches; pixels of all rows."""
    trainer = {"per_device_train_batch_size": 16, "num_generations": 8, "gradient_checkpointing": True}
    content = {"method": "grpo", "output": "x", "model": {"path": "x"}, "data": {"train": "x"}, "trainer": trainer}
    recipe = Recipe.model_validate(content | {"rewards": [{"name": "box_overlap"}]})
    row = Row(prompt=100, answers=30, images=80)
    assert batch_of(recipe, row, SIZES) == Batch(680, 480, 640, mask=340, pixels=(16 + 2) * 320 * PATCH)
    repeated = batch_of(recipe, row, SIZES, shared=False)
    assert repeated == Batch(16 * 130, 480, 16 * 320, mask=130, pixels=16 * 320 * PATCH)


def test_the_batch_of_pairs_shares_its_prompt_or_doubles_it():
    content = {"method": "dpo", "output": "x", "model": {"path": "x"}, "data": {"train": "x"}}
    recipe = Recipe.model_validate(content | {"trainer": {"per_device_train_batch_size": 2}})
    row = Row(prompt=100, answers=60, images=80)
    assert batch_of(recipe, row, SIZES) == Batch(320, 120, 640, mask=160, pixels=640 * PATCH)
    off = Recipe.model_validate(content | {"model": {"path": "x", "shared_prefix": "off"}, "trainer": recipe.trainer})
    assert batch_of(off, row, SIZES) == Batch(520, 120, 1280, mask=130, pixels=1280 * PATCH)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in ("llava_next", "llava_onevision")])
def test_patches_and_widths_are_those_that_go_through_the_tower(family):
    """LLaVA-NeXT and -OneVision cut padding off and add line ends: their tokens are no even share of patches."""
    model = build(family)
    inputs = prompt_inputs(family, model, rows()[:2])
    seen = []
    tower = next(m for name, m in model.named_modules() if isinstance(m, ModuleList) and part_of(name) == "vision")
    tower[0].register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((args[0] if args else kwargs["hidden_states"]).shape), with_kwargs=True
    )
    model(**inputs)
    tokens = int((inputs["input_ids"] == model.config.image_token_id).sum())
    through, classes = seen[0][:-1].numel(), family in ("llava", "internvl")  # one more of each image, for its class
    images = inputs["pixel_values"].shape[0] if classes else 0
    assert tokens
    assert patches_per_token(model.config) * tokens + images == through
    stacks = stacks_of(model, Batch(1, 1, 1), weight_bytes=4, checkpointed=True, tower_checkpointed=True)
    assert stacks[1].shape.hidden == seen[0][-1]
    assert stacks[1].shape.norms == 2
    assert stacks[0].shape.hidden == model.config.get_text_config().hidden_size


def test_hours_by_hand():
    # 7,200 rows of 1,000 tokens at 500 tokens a second on each of 4 ranks: an hour.
    told = time_table(samples=7200, tokens_per_row=1000, ranks=4, rate=500, source="given")
    assert told == {"tokens": 7_200_000, "rate_tokens_per_s": 500, "hours": 1.0, "rate_from": "given"}


def test_without_a_rate_there_are_no_hours():
    assert "hours" not in time_table(samples=1, tokens_per_row=1, ranks=1, rate=None, source="none")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("stage", [2, 3])
def test_ranks_of_deepspeed_hold_what_the_formula_says(write_recipe, tmp_path, stage):
    settings = {"max_steps": 1, "deepspeed": str(ROOT / f"recipes/deepspeed/zero{stage}.json")}
    seen = launched(write_recipe("sft", trainer=settings), tmp_path / "seen", 2)
    load = Load(seen[0]["whole"], seen[0]["whole"], weight_bytes=4, base_bytes=4)
    said = per_rank(load, Zero(stage), 2)
    for rank in seen:  # DeepSpeed fills each parameter's share up to whole alignment units: under 1 %
        assert rank["held"] * 4 == pytest.approx(said.weights, rel=0.01)
        assert rank["optimizer_elements"] * 4 == pytest.approx(said.optimizer, rel=0.01)
