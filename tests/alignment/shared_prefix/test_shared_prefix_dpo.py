"""DPO with the shared prefix on, off, and in stock trl: the same losses; the reference computed once and kept."""

import json

import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from PIL import Image
from trl import DPOConfig, DPOTrainer

from alignment.checks.read_recipe import read_recipe
from alignment.config.data_entries import parquet
from alignment.config.library_names import installed_keys
from alignment.models.loading import load_for_inference
from alignment.models.processors import load_processor
from alignment.shared_prefix.prompt_groups import answer_logprobs
from alignment.shared_prefix.reference_cache import cache_folder, read_references, reference_file, row_key
from alignment.training.preference_batches import PreferenceCollator, preference_groups
from alignment.training.run import run
from alignment.training.trainer import make_trainer
from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec
from rewards.config.input_error import InputError

pytestmark = pytest.mark.filterwarnings("default")
STEPS = {"max_steps": 4, "seed": 5, "lr_scheduler_type": "constant"}


@pytest.fixture(scope="session")
def start(data, tmp_path_factory):
    """One tiny model for all runs of this file."""
    from alignment.models.prepared import built_texts
    from alignment.models.tiny import build_tiny

    texts = list(built_texts(str(data / "instruction/sft")))
    return build_tiny(texts, tmp_path_factory.mktemp("start") / "tiny", image_size=64)


@pytest.fixture
def recipe(write_recipe, start, tmp_path):
    """A DPO recipe on the tiny model, with changes."""

    def write(name, shared="on", *, trainer=None, **changes):
        model = {"path": str(start), "shared_prefix": shared, **changes.pop("model", {})}
        path = write_recipe(
            "dpo", output=str(tmp_path / name), model=model, trainer={**STEPS, **(trainer or {})}, **changes
        )
        return read_recipe(path)

    return write


def steps_of(recipe):
    folder = run(recipe)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [entry for entry in log if "loss" in entry]


def losses(recipe):
    return [entry["loss"] for entry in steps_of(recipe)]


def rows_of(recipe, count):
    rows = Dataset.from_parquet(str(parquet(recipe.data.train))).select(range(count))
    return [dict(row) for row in rows]


def test_on_and_off_are_understood_though_yaml_reads_them_as_true_and_false(write_recipe):
    asked = {word: read_recipe(write_recipe("dpo"), [f"model.shared_prefix={word}"]) for word in ("on", "off", "auto")}
    assert {word: recipe.model.shared_prefix for word, recipe in asked.items()} == {w: w for w in asked}


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [{}, {"gradient_checkpointing": True}])
def test_the_same_losses_with_shared_prefix_on_and_off(recipe, trainer):
    assert losses(recipe("on", trainer=trainer)) == pytest.approx(
        losses(recipe("off", "off", trainer=trainer)), abs=1e-4
    )


@pytest.mark.slow
def test_the_same_losses_from_a_cache_for_kernels_without_a_mask(recipe):
    trainer = {"precompute_ref_log_probs": False, "activation_checkpointing": False}
    want = losses(recipe("off", "off", trainer=trainer))
    assert losses(recipe("cached", "cached", trainer=trainer)) == pytest.approx(want, abs=1e-4)


@pytest.mark.slow
def test_the_same_losses_as_stock_trl(recipe, start, tmp_path):
    ours = recipe("ours", weighting={"use": False}, data={"largest_first": False})
    data = Dataset.from_parquet(str(parquet(ours.data.train)))
    arguments = DPOConfig(
        output_dir=str(tmp_path / "stock"), report_to="none", max_length=None, bf16=False,
        model_init_kwargs={"dtype": "float32", "attn_implementation": "sdpa"}, **installed_keys(ours.trainer),
    )  # fmt: skip
    stock = DPOTrainer(
        model=str(start), args=arguments, processing_class=load_processor(str(start)),
        train_dataset=data.select_columns(["images", "prompt", "chosen", "rejected"]),
    )  # fmt: skip
    stock.train()
    want = [entry["loss"] for entry in stock.state.log_history if "loss" in entry]
    assert losses(ours) == pytest.approx(want, abs=1e-4)


@pytest.mark.slow
def test_the_same_losses_with_the_reference_before_training_and_at_every_step(recipe):
    now = losses(recipe("now", trainer={"precompute_ref_log_probs": False}))
    before = losses(recipe("before", trainer={"precompute_ref_log_probs": True}))
    assert before == pytest.approx(now, abs=1e-4)


@pytest.mark.slow
def test_the_same_losses_with_lora_and_a_frozen_tower(recipe):
    model = {"lora": {"rank": 2}, "freeze": ["vision"]}
    assert losses(recipe("on", model=model)) == pytest.approx(losses(recipe("off", "off", model=model)), abs=1e-4)


@pytest.mark.slow
def test_the_log_shows_tokens_computed_and_saved(recipe):
    on, off = steps_of(recipe("on"))[0], steps_of(recipe("off", "off"))[0]
    assert on["tokens/saved"] > 0
    assert off["tokens/saved"] == 0
    assert on["tokens/computed"] + on["tokens/saved"] == off["tokens/computed"]


@pytest.mark.slow
def test_tokens_of_a_reference_at_each_step_are_counted_too(recipe):
    now = steps_of(recipe("now", trainer={"precompute_ref_log_probs": False}))[0]
    before = steps_of(recipe("before", trainer={"precompute_ref_log_probs": True}))[0]
    for name in ("tokens/computed", "tokens/saved"):
        assert now[name] == 2 * before[name]


def test_one_batch_of_noised_text_only_and_ordinary_rows_scores_as_each_row_alone(recipe):
    trainer = make_trainer(recipe("mixed", trainer={"precompute_ref_log_probs": False}), cache_folder() / "mixed")
    rows = rows_of(recipe("mixed"), 3)
    rows[0]["rejected_images"] = [rows[0]["images"][0].transpose(0)]
    rows[1]["images"] = []
    rows[1]["prompt"] = [{"role": "user", "content": [{"type": "text", "text": "Is there an effusion?"}]}]

    def logps(batch):
        batch = {k: v for k, v in trainer.data_collator(batch).items() if k not in ("weight", "chosen", "rejected")}
        return trainer.reference_token_logps(batch)

    together = logps(rows)
    torch.testing.assert_close(together, torch.cat([logps([row]) for row in rows]), atol=1e-4, rtol=0)


def test_an_image_is_processed_once_a_prompt(recipe, start):
    rows = rows_of(recipe("once"), 2)
    processor = load_processor(str(start))
    assert PreferenceCollator(processor)(rows)["pixel_values"].shape[0] == 2
    assert PreferenceCollator(processor, shared=False)(rows)["pixel_values"].shape[0] == 4


def test_rows_whose_images_differ_become_two_groups_of_one(recipe, start):
    row = rows_of(recipe("groups"), 1)[0]
    row["rejected_images"] = [row["images"][0].transpose(0)]
    groups = preference_groups(load_processor(str(start)), row)
    assert [len(g.answers) for g in groups] == [1, 1]


def test_another_number_of_rejected_images_is_refused(recipe, start):
    row = rows_of(recipe("wrong"), 1)[0]
    row["rejected_images"] = [row["images"][0]] * 2
    with pytest.raises(InputError, match="as many as images"):
        preference_groups(load_processor(str(start)), row)


@pytest.mark.slow
def test_a_second_run_computes_no_reference(recipe, caplog, monkeypatch):
    first = losses(recipe("first", trainer={"precompute_ref_log_probs": True}))
    monkeypatch.setattr("alignment.training.dpo.WeightedDPOTrainer.reference_token_logps", None)
    assert losses(recipe("second", trainer={"precompute_ref_log_probs": True})) == first


def test_the_reference_model_is_let_go_once_its_numbers_are_known(recipe):
    trainer = make_trainer(recipe("free", trainer={"precompute_ref_log_probs": True}), cache_folder() / "free")
    assert trainer.ref_model is None
    assert len(trainer.accelerator._models) <= 1


def test_rows_without_a_weight_are_told(recipe, tmp_path, caplog):
    table = pq.read_table(parquet(recipe("weighed").data.train))
    pq.write_table(table.drop_columns(["weight"]), tmp_path / "plain.parquet")
    trainer = {"precompute_ref_log_probs": False}
    for name, data in (("weighed", {}), ("plain", {"data": {"train": str(tmp_path / "plain")}})):
        caplog.clear()
        make_trainer(recipe(name, trainer=trainer, **data), cache_folder() / name)
        assert ("each weighs 1" in caplog.text) is (name == "plain")


def test_the_cache_tells_other_pixels_texts_weights_templates_and_tokenizers_apart(recipe, start):
    trainer = make_trainer(recipe("keys", trainer={"precompute_ref_log_probs": True}), cache_folder() / "keys")
    processor = trainer.data_collator.processor
    row = rows_of(recipe("keys"), 1)[0]
    others = [
        {**row, "images": [row["images"][0].transpose(0)]},
        {**row, "rejected_images": row["images"]},
        {**row, "chosen": row["rejected"]},
        {**row, "prompt": row["chosen"]},
    ]
    assert len({row_key(r) for r in [row, *others]}) == 5
    file = reference_file(trainer.model, processor)
    assert file == reference_file(trainer.model, processor)
    assert row_key(row) in read_references(file)
    processor.chat_template += " "
    template = reference_file(trainer.model, processor)
    processor.tokenizer.add_tokens(["pneumothorax"])
    tokenizer = reference_file(trainer.model, processor)
    next(trainer.model.parameters()).data.mul_(1.01)
    assert len({file, template, tokenizer, reference_file(trainer.model, processor)}) == 4


def test_the_references_read_back_are_those_that_were_written(tmp_path):
    from alignment.shared_prefix.reference_cache import write_references

    values = {"ab" * 32: [0.5, -1.0], "cd" * 32: [], "ef" * 32: [2.0]}
    write_references(tmp_path / "a" / "x.safetensors", values)
    assert read_references(tmp_path / "a" / "x.safetensors") == values
    assert read_references(tmp_path / "none.safetensors") == {}


def test_likelihoods_of_several_answers_are_those_of_each_answer_alone(recipe, start):
    model, processor = load_for_inference(str(start))
    rows = [{**row, "answers": [row["chosen"], row["rejected"], row["chosen"]]} for row in rows_of(recipe("l"), 2)]
    together = answer_logprobs(model, processor, rows, shared_prefix="on")
    for row, scores in zip(rows, together, strict=True):
        assert scores[0] == pytest.approx(scores[2], abs=1e-4)
        alone = [answer_logprobs(model, processor, [{**row, "answers": [a]}])[0][0] for a in row["answers"]]
        assert scores == pytest.approx(alone, abs=2e-4)


def chest(text):
    return {"role": "assistant", "content": text}


@pytest.fixture(scope="session")
def dialogues(tmp_path_factory):
    """Two own pairs behind a system prompt, earlier turns, and images between words; two images and one."""
    folder = tmp_path_factory.mktemp("own")
    for seed, name in enumerate(("a.png", "b.png")):
        pixels = torch.randint(256, (64, 64), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / name)
    before = [
        {"role": "system", "content": "You read chest films."},
        {"role": "user", "content": "Before: <image> and now: <image> Is there a nodule?"},
        chest("There is no nodule."),
        {"role": "user", "content": "Is there an effusion?"},
    ]
    one = [{"role": "user", "content": "<image>Is there a nodule?"}, chest("No."), before[-1]]
    records = [
        {"images": ["a.png", "b.png"], "messages": [*before, chest("Yes, on the left.")], "rejected_response": "No."},
        {"images": ["b.png"], "messages": [*one, chest("No.")], "rejected_response": "A large effusion on the right."},
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    spec = {"source": {"name": "preferences", "file": str(folder / "pairs.jsonl")}, "output": str(folder / "set"),
            "splits": {"all": 1.0}, "rows": {"preference": ["all"]}, "tasks": {}}  # fmt: skip
    return build(BuildSpec.model_validate(spec)) / "preference/all"


@pytest.mark.slow
def test_dialogues_with_several_images_train_to_the_losses_of_stock_trl(recipe, start, dialogues, tmp_path):
    """Two steps of one row: the second shows the gradient of the first. The reference weighs nothing in step 1."""
    trainer = {"max_steps": 2, "per_device_train_batch_size": 1, "learning_rate": 1e-2}
    ours = recipe(
        "own", weighting={"use": False}, data={"train": str(dialogues), "largest_first": False}, trainer=trainer
    )
    got = steps_of(ours)
    assert got[0]["tokens/saved"] > 0
    data = Dataset.from_parquet(f"{dialogues}.parquet")
    arguments = DPOConfig(
        output_dir=str(tmp_path / "stock"), report_to="none", max_length=None, bf16=False,
        model_init_kwargs={"dtype": "float32", "attn_implementation": "sdpa"}, **installed_keys(ours.trainer),
    )  # fmt: skip
    stock = DPOTrainer(
        model=str(start), args=arguments, processing_class=load_processor(str(start)),
        train_dataset=data.select_columns(["images", "prompt", "chosen", "rejected"]),
    )  # fmt: skip
    stock.train()
    want = [entry for entry in stock.state.log_history if "loss" in entry]
    for name in ("loss", "rewards/chosen", "rewards/rejected", "rewards/margins"):
        assert [entry[name] for entry in got] == pytest.approx([entry[name] for entry in want], abs=1e-4)
    assert got[1]["loss"] != pytest.approx(got[0]["loss"], abs=1e-3)
