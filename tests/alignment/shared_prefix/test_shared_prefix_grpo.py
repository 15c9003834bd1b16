"""GRPO with the shared prefix on and off: one trajectory; a group's images handled once."""

import copy
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from alignment.checks.read_recipe import read_recipe
from alignment.config.data_entries import parquet
from alignment.models.loading import load_model
from alignment.models.prepared import built_texts
from alignment.models.processors import load_processor
from alignment.models.tiny import build_tiny
from alignment.shared_prefix.image_rows import IMAGE_FIELDS, by_row, decoded_once, joined, same_rows, undecoded
from alignment.shared_prefix.prefill import shared_prefill
from alignment.training.shared_grpo import ProcessedOnce
from alignment.training.trainer import make_trainer
from tests.alignment.training.moving_grpo import assert_moved_alike, weights_of

pytestmark = pytest.mark.filterwarnings("default")
STEPS = {
    "max_steps": 3, "seed": 5, "lr_scheduler_type": "constant", "num_generations": 4, "max_completion_length": 8,
    "per_device_train_batch_size": 8, "optim": "sgd", "learning_rate": 0.03, "max_grad_norm": 1.0e9,
}  # fmt: skip


@pytest.fixture(scope="session")
def starts(data, tmp_path_factory):
    """A tiny model of each family."""
    texts = list(built_texts(str(data / "instruction/sft")))
    home = tmp_path_factory.mktemp("start")
    families = ("idefics3", "qwen3_vl", "llava")
    return {family: build_tiny(texts, home / family, family=family, image_size=64) for family in families}


@pytest.fixture
def recipe(write_recipe, starts, tmp_path):
    """A GRPO recipe on a tiny model, with changes."""

    def write(name, shared, *, family="idefics3", trainer=None, **model):
        path = write_recipe(
            "grpo", output=str(tmp_path / name), trainer={**STEPS, **(trainer or {})},
            model={"path": str(starts[family]), "shared_prefix": shared, **model},
        )  # fmt: skip
        return read_recipe(path)

    return write


def variety(completions, **_):
    """A reward that even a random model's answers differ in."""
    return [len(set(c[0]["content"])) / 10 for c in completions]


def trained(recipe):
    """The log of the steps, and the weights before and after."""
    trainer = make_trainer(recipe, Path(recipe.output))
    trainer.reward_funcs, trainer.reward_func_names, trainer.reward_weights = [variety], ["variety"], torch.ones(1)
    trainer.reward_processing_classes = [None]
    before = weights_of(trainer.model)
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry], before, weights_of(trainer.model)


def log_of(recipe):
    return trained(recipe)[0]


def assert_one_trajectory(recipe, shared="on", **changes):
    on, before, weights = trained(recipe("on", shared, **changes))
    off, _, others = trained(recipe("off", "off", **changes))
    assert_moved_alike(weights, others, before, within=1e-3)
    for name in ("loss", "grad_norm", "reward", "entropy", "kl", "completions/mean_length"):
        want = [entry[name] for entry in off if name in entry]
        assert [entry[name] for entry in on if name in entry] == pytest.approx(want, abs=1e-4, rel=1e-4), name
    assert all(entry["grad_norm"] > 0 for entry in on)
    assert all(entry["tokens/saved"] > 0 for entry in on)
    assert all("tokens/saved" not in entry for entry in off)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["idefics3", "qwen3_vl", "llava"])
def test_one_trajectory_with_shared_prefix_on_and_off(recipe, family):
    assert_one_trajectory(recipe, family=family)


@pytest.mark.slow
@pytest.mark.parametrize(
    "trainer",
    [
        {"beta": 0.1, "gradient_checkpointing": True},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "num_iterations": 2},
        {"loss_type": "bnpo", "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    ],
)  # fmt: skip
def test_one_trajectory_with_reference_accumulation_and_old_policy(recipe, trainer):
    assert_one_trajectory(recipe, trainer=trainer)


@pytest.mark.slow
def test_one_trajectory_from_a_cache_for_kernels_without_a_mask(recipe):
    assert_one_trajectory(recipe, "cached", trainer={"beta": 0.1})


@pytest.mark.slow
def test_one_trajectory_with_lora_a_reference_and_a_frozen_tower(recipe):
    assert_one_trajectory(recipe, trainer={"beta": 0.1}, lora={"rank": 2}, freeze=["vision"])


@pytest.mark.slow
def test_tokens_are_those_of_all_passes_of_a_step(recipe):
    plain, judged = log_of(recipe("plain", "on"))[0], log_of(recipe("judged", "on", trainer={"beta": 0.1}))[0]
    rows, longest = 8, 8
    prompts = plain["tokens/computed"] - round(rows * plain["completions/mean_length"])
    assert 0 < prompts < plain["tokens/computed"]
    assert plain["tokens/saved"] == 3 * prompts  # of four answers a prompt, three need no copy of it
    assert plain["tokens/computed"] <= prompts + rows * longest
    assert judged["tokens/computed"] == 2 * plain["tokens/computed"]
    assert judged["tokens/saved"] == 2 * plain["tokens/saved"]


def test_an_image_is_decoded_processed_and_prefilled_once_a_group(recipe, tmp_path):
    trainer = make_trainer(recipe("once", "on"), tmp_path / "once")
    processed, prefilled = [], []
    processor = trainer.processing_class.image_processor
    original, prefill = processor.preprocess, trainer.model._prefill

    def counted(images, *args, **kwargs):
        processed.append(len(images))
        return original(images, *args, **kwargs)

    def counted_prefill(ids, *args, **kwargs):
        prefilled.append(len(ids))
        return prefill(ids, *args, **kwargs)

    processor.preprocess = counted
    type(trainer.model)._prefill, kept = counted_prefill_method(counted_prefill), type(trainer.model)._prefill
    rows = [trainer.train_dataset[k] for k in (0, 1) for _ in range(4)]
    trainer.model.train()
    try:
        trainer._generate_and_score_completions(rows)
    finally:
        type(trainer.model)._prefill = kept
    assert processed == [2]
    assert prefilled == [2]


def counted_prefill_method(function):
    return lambda self, ids, *args, **kwargs: function(ids, *args, **kwargs)


@pytest.mark.parametrize("family", ["idefics3", "qwen3_vl", "llava"])
def test_samples_of_a_prompt_come_from_one_prefill_and_are_those_of_several(starts, data, family):
    from alignment.models.generation import generate, model_inputs, unsampled_tokens

    model, processor = load_model(str(starts[family])).eval(), load_processor(str(starts[family]))
    rows = Dataset.from_parquet(str(parquet(str(data / "prompt/align"))))
    picked = [dict(rows[k]) for k in (0, 1)]
    inputs = model_inputs(processor, picked)
    torch.manual_seed(3)
    plain = model.generate(
        **inputs, max_new_tokens=8, do_sample=True, top_k=0, num_return_sequences=3,
        suppress_tokens=unsampled_tokens(processor),
    )  # fmt: skip
    want = processor.batch_decode(plain[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    prefilled, prefill = [], type(model)._prefill

    def counted(self, ids, *args, **kwargs):
        prefilled.append(len(ids))
        return prefill(self, ids, *args, **kwargs)

    type(model)._prefill = counted
    try:
        torch.manual_seed(3)
        got = generate(model, processor, picked, max_new_tokens=8, num_samples=3, temperature=1.0)
    finally:
        type(model)._prefill = prefill
    assert [text for texts in got for text in texts] == want
    assert prefilled == [2]


@pytest.mark.parametrize("family", ["idefics3", "qwen3_vl", "llava"])
def test_generation_from_one_prefill_gives_the_same_answers(starts, data, family):
    model, processor = load_model(str(starts[family])).eval(), load_processor(str(starts[family]))
    rows = Dataset.from_parquet(str(parquet(str(data / "prompt/align"))))
    picked = [rows[k] for k in (0, 0, 0, 1, 1, 0)]
    texts = [processor.apply_chat_template(r["prompt"], add_generation_prompt=True, tokenize=False) for r in picked]
    inputs = processor(text=texts, images=[r["images"] for r in picked], return_tensors="pt", padding=True)
    plain = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    fields = {name: inputs[name] for name in IMAGE_FIELDS if name in inputs}
    rows = by_row(fields, [1] * len(picked))
    groups = same_rows(inputs["input_ids"].tolist(), rows)
    assert groups == [[0, 1, 2, 5], [3, 4]]
    with shared_prefill(model, groups, rows):
        assert torch.equal(model.generate(**inputs, max_new_tokens=12, do_sample=False), plain)
    assert "_prefill" not in vars(model)


def test_rows_with_equal_prompts_but_other_images_are_two_groups():
    rows = [{"pixel_values": torch.tensor([v])} for v in (1.0, 2.0, 1.0)]
    assert same_rows([[3, 4]] * 3, rows) == [[0, 2], [1]]
    assert same_rows([[3, 4], [3], [3, 4]], [rows[0]] * 3) == [[0, 2], [1]]


def test_qwens_patches_are_split_by_grid_and_joined_again():
    fields = {
        "pixel_values": torch.arange(10.0)[:, None],
        "image_grid_thw": torch.tensor([[1, 2, 2], [1, 1, 2], [1, 2, 2]]),
    }
    rows = by_row(fields, [2, 0, 1])
    assert [len(row["pixel_values"]) for row in rows] == [6, 0, 4]
    assert all(torch.equal(joined(rows)[name], values) for name, values in fields.items())
    assert joined(rows[1:2]) == {}


def test_a_layout_that_does_not_add_up_is_not_guessed():
    assert by_row({"pixel_values": torch.zeros(5, 3, 2, 2)}, [1, 1]) is None
    assert len(by_row({"pixel_values": torch.zeros(5, 3, 2, 2)}, [1, 1], num_tiles=[3, 2])) == 2


def test_images_stay_bytes_until_each_is_decoded_once(data):
    rows = undecoded(Dataset.from_parquet(str(parquet(str(data / "prompt/align")))))
    taken = decoded_once([rows[0], rows[0], rows[1]])
    assert taken[0]["images"][0] is taken[1]["images"][0]
    assert taken[0]["images"][0].size == (64, 64)


def test_what_was_made_is_handed_out_and_otherwise_the_processor_works():
    processor = ProcessedOnce(str.upper)
    assert processor("a") == "A"
    processor.made = {"pixel_values": 1}
    assert processor("a") == {"pixel_values": 1}
    assert copy.copy(processor)("a") == {"pixel_values": 1}
