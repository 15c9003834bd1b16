"""Reward models: real Bradley-Terry runs of a few steps on a tiny model, saved, loaded, and used as a GRPO reward."""

import json
import math

import pytest
import torch
from datasets import Dataset

from alignment.checks.read_recipe import read_recipe
from alignment.models.loading import load_for_inference
from alignment.models.reward_model import answer_ends, answer_scores, reward_model_on, scores_of
from alignment.models.reward_model_files import load_reward_model
from alignment.reward_functions.adapter import TrlBatchReward
from alignment.shared_prefix.prompt_groups import collated, group
from alignment.training.reward_training import RewardCollator, preference_loss
from alignment.training.run import run
from alignment.training.trainer import make_trainer
from data_builders.schema import message_text
from rewards.config.input_error import InputError
from rewards.loading import load_reward

pytestmark = pytest.mark.filterwarnings("default")  # third-party deprecations of trl and accelerate


@pytest.fixture
def trained(write_recipe):
    return run(read_recipe(write_recipe("reward_model")))


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    """A tiny model to start from."""
    from alignment.models.prepared import built_texts
    from alignment.models.tiny import build_tiny

    folder = tmp_path_factory.mktemp("start") / "tiny"
    return build_tiny(built_texts(str(data / "instruction/sft")), folder, image_size=64)


@pytest.fixture(scope="module")
def pairs(data):
    return list(Dataset.from_parquet(str(data / "preference/align.parquet")))


def asked(row):
    return {k: row[k] for k in ("images", "prompt")} | {
        "answers": [message_text(row[s]) for s in ("chosen", "rejected")]
    }


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_loss_is_ln_2_where_the_margin_is_met_exactly_and_weights_scale_it():
    two, zero = torch.tensor([2.0, 2.0]), torch.zeros(2)
    assert preference_loss(two, zero, two, None, "mean").item() == pytest.approx(math.log(2))
    weighted = preference_loss(two, zero, zero, torch.tensor([3.0, 1.0]), "mean")
    assert weighted.item() == pytest.approx(2 * math.log(1 + math.exp(-2)))
    assert preference_loss(two, zero, zero, torch.tensor([3.0, 1.0]), "sum_w").item() == pytest.approx(
        math.log(1 + math.exp(-2))
    )


def test_the_score_is_read_at_the_last_token_of_each_answer():
    batch = {"segments": torch.tensor([[0, 0, 1, 1, 2, -1], [0, 1, 2, 2, 2, 2]])}
    assert answer_ends(batch).tolist() == [3, 4, 7, 11]


@pytest.mark.slow
def test_a_run_logs_the_loss_of_its_own_margins_and_saves_safetensors_and_processor(trained):
    first = log_of(trained)[0]
    assert {"loss", "accuracy", "margin", "mean_reward", "tokens/saved"} <= set(first)
    assert first["tokens/saved"] > 0
    names = {file.name for file in (trained / "model").iterdir()}
    assert {"model.safetensors", "config.json", "processor_config.json"} <= names
    assert not any(name.endswith((".bin", ".pt")) for name in names - {"training_args.bin"})


@pytest.mark.slow
def test_a_saved_model_scores_as_the_trained_one_did(write_recipe, pairs, tmp_path):
    recipe = read_recipe(write_recipe("reward_model"))
    trainer = make_trainer(recipe, tmp_path / "run")
    trainer.train()
    trainer.save_model(str(tmp_path / "run/model"))
    trainer.processing_class.save_pretrained(tmp_path / "run/model")
    trainer.model.eval()
    rows = [asked(row) for row in pairs[:3]]
    model, processor = load_reward_model(str(tmp_path / "run"))
    want = scores_of(trainer.model, processor, rows)
    assert scores_of(model, processor, rows) == [pytest.approx(scores, abs=1e-5) for scores in want]
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("family", ["idefics3", "qwen3_vl", "llava"])
def test_sharing_the_prompt_changes_no_score(data, pairs, tmp_path, family):
    from alignment.models.prepared import built_texts
    from alignment.models.tiny import build_tiny

    folder = build_tiny(built_texts(str(data / "instruction/sft")), tmp_path / family, family=family, image_size=64)
    vlm, processor = load_for_inference(str(folder))
    model = reward_model_on(vlm).eval()
    rows = [asked(row) for row in pairs[:3]]
    shared, apart = (scores_of(model, processor, rows, shared_prefix=setting) for setting in ("on", "off"))
    assert [s for row in shared for s in row] == pytest.approx([s for row in apart for s in row], abs=1e-4)


@pytest.mark.slow
def test_scores_learn_to_prefer_what_is_preferred(write_recipe, pairs):
    path = write_recipe("reward_model", trainer={"max_steps": 30, "learning_rate": 3.0e-3, "logging_steps": 5})
    folder = run(read_recipe(path))
    entries = [entry for entry in log_of(folder) if "loss" in entry]
    assert entries[-1]["loss"] < 0.75 * entries[0]["loss"]
    assert entries[-1]["margin"] > 0.5
    model, processor = load_reward_model(str(folder))
    scores = scores_of(model, processor, [asked(row) for row in pairs])
    assert sum(chosen > rejected for chosen, rejected in scores) > 0.7 * len(scores)


@pytest.mark.slow
def test_lora_trains_the_head_and_the_adapter_and_loads(write_recipe, start, pairs):
    path = write_recipe("reward_model", model={"path": str(start), "lora": {"rank": 2}})
    folder = run(read_recipe(path))
    assert [file.name for file in (folder / "model").glob("*model*.safetensors")] == ["adapter_model.safetensors"]
    model, processor = load_reward_model(str(folder))
    fresh = reward_model_on(load_for_inference(str(start))[0], seed=42).eval()
    row = [asked(pairs[0])]
    assert scores_of(model, processor, row)[0] != pytest.approx(scores_of(fresh, processor, row)[0], abs=1e-6)
    names = [name for name, _ in model.named_parameters()]
    assert any("score.modules_to_save" in name for name in names)
    assert not any("lora" in name and "score" in name for name in names)


@pytest.mark.slow
def test_rejected_images_are_what_the_rejected_answer_is_scored_under(trained, pairs):
    model, processor = load_reward_model(str(trained))
    row = {k: pairs[0][k] for k in ("images", "prompt", "chosen")} | {"rejected": pairs[0]["chosen"]}
    noised = row | {"rejected_images": [row["images"][0].transpose(0)]}
    for given, equal in ((row, True), (noised, False)):
        batch = RewardCollator(processor)([given])
        scores = answer_scores(model, {k: v for k, v in batch.items() if k in KEPT or k.startswith("pixel")})
        assert (abs(scores[0] - scores[1]).item() < 1e-5) is equal


KEPT = ("input_ids", "segments", "answer_positions", "answer_labels", "answer_lengths")


@pytest.mark.slow
def test_the_margin_of_a_row_enters_the_batch(trained, pairs):
    _, processor = load_reward_model(str(trained))
    plain, with_margin = pairs[0], {**pairs[1], "margin": 1.5}
    assert RewardCollator(processor)([plain, with_margin])["margin"].tolist() == [0.0, 1.5]


def test_a_language_model_is_no_reward_model(start):
    with pytest.raises(InputError, match="no reward model"):
        load_reward_model(str(start))


def test_a_recipe_that_names_no_reward_model_is_refused_before_training(write_recipe, start):
    path = write_recipe("grpo", rewards=[{"name": "reward_model", "path": str(start)}])
    with pytest.raises(InputError, match=r"rewards\[0\]: knob 'path': .*no reward model"):
        read_recipe(path)


@pytest.mark.slow
def test_lora_on_an_adapter_is_refused(write_recipe, start, tmp_path):
    adapter = run(read_recipe(write_recipe("sft", model={"path": str(start), "lora": {"rank": 2}})))
    path = write_recipe("reward_model", model={"path": str(adapter), "lora": {"rank": 2}})
    with pytest.raises(InputError, match="adapter itself"):
        run(read_recipe(path))


@pytest.mark.slow
def test_an_adapter_is_merged_where_the_whole_model_is_trained(write_recipe, start, pairs):
    adapter = run(read_recipe(write_recipe("sft", model={"path": str(start), "lora": {"rank": 2}})))
    folder = run(read_recipe(write_recipe("reward_model", model={"path": str(adapter)})))
    assert len(scores_of(*load_reward_model(str(folder)), [asked(pairs[0])])[0]) == 2


@pytest.mark.slow
def test_grpo_trains_on_a_reward_model_by_name(write_recipe, trained):
    rewards = [{"name": "reward_model", "path": str(trained)}, {"name": "finding_f1", "weight": 0.0}]
    folder = run(read_recipe(write_recipe("grpo", rewards=rewards)))
    assert all("rewards/reward_model/mean" in entry for entry in log_of(folder) if "loss" in entry)


@pytest.mark.slow
def test_as_a_reward_it_scores_a_group_as_it_scores_each_answer_alone(trained, pairs):
    import asyncio

    reward = TrlBatchReward(load_reward("reward_model", path=str(trained)))
    texts = ["No effusion.", "There is a nodule on the left.", ""]
    row = pairs[0]
    together = asyncio.run(reward(prompts=[row["prompt"]] * 3, completions=texts, images=[row["images"]] * 3))
    alone = [
        asyncio.run(reward(prompts=[row["prompt"]], completions=[text], images=[row["images"]]))[0] for text in texts
    ]
    assert together == pytest.approx(alone, abs=1e-4)
    blank = [row["images"][0].point(lambda value: 0)]
    other = asyncio.run(reward(prompts=[row["prompt"]], completions=texts[:1], images=[blank]))
    assert other[0] != pytest.approx(together[0], abs=1e-5)


@pytest.mark.slow
def test_the_packed_rows_of_a_batch_keep_the_order_of_the_answers(trained, pairs):
    model, processor = load_reward_model(str(trained))
    rows = [asked(row) for row in pairs[:4]]
    whole = scores_of(model, processor, rows, batch_size=100)
    assert scores_of(model, processor, rows, batch_size=1) == [pytest.approx(s, abs=1e-4) for s in whole]
    groups = [
        group(processor, r["images"], r["prompt"], [[{"role": "assistant", "content": a}] for a in r["answers"]])
        for r in rows
    ]
    batch = collated(processor, groups, shared=True)
    assert answer_scores(model, batch).tolist() == pytest.approx([s for row in whole for s in row], abs=1e-4)


def test_a_frozen_language_model_leaves_the_head_to_train(write_recipe, tmp_path):
    recipe = read_recipe(write_recipe("reward_model", model={"freeze": ["vision", "language"]}))
    model = make_trainer(recipe, tmp_path / "run").model
    trained = {name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"model", "score"}
    assert all("connector" in n or n == "score.weight" for n, p in model.named_parameters() if p.requires_grad)


@pytest.mark.slow
def test_an_audit_shows_a_reward_model_the_images(write_recipe, trained):
    from alignment.audit.run import audit

    recipe = write_recipe("grpo", rewards=[{"name": "reward_model", "path": str(trained)}])
    found = audit(read_recipe(recipe), name="test", limit=4)
    assert found.constant == []
    totals = {policy.name: policy.total for policy in found.policies}
    assert totals["honest"] is not None
    assert len({*totals.values()} - {None}) > 3
