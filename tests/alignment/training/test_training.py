"""Real runs of a few steps with TRL's trainers on a tiny model built on the spot."""

import json
import os
import shutil
import subprocess

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from datasets import Dataset

from alignment.checks.read_recipe import read_recipe
from alignment.config.data_entries import parquet
from alignment.config.generation_section import generation_of
from alignment.models.loading import load_for_inference, load_model
from alignment.models.parts import freeze
from alignment.models.processors import load_processor
from alignment.training.provenance import git_commit
from alignment.training.run import run
from alignment.training.trainer import make_trainer
from rewards.config.input_error import InputError

pytestmark = pytest.mark.filterwarnings("default")  # third-party deprecations of trl and accelerate


def trained(path, *overrides):
    return run(read_recipe(path, list(overrides)))


@pytest.fixture
def sft_run(write_recipe):
    return trained(write_recipe())


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("family", ["idefics3", "qwen3_vl", "llava"])
def test_each_tiny_family_trains_saves_and_loads(write_recipe, family):
    folder = trained(write_recipe(model={"family": family}))
    model, processor = load_for_inference(str(folder))
    assert processor.tokenizer.padding_side == "left"
    assert sum(p.numel() for p in model.parameters()) < 500_000


def test_a_run_keeps_its_recipe_versions_seed_and_data_hash(sft_run):
    facts = json.loads((sft_run / "provenance.json").read_text())
    assert set(facts) == {"packages", "git_commit", "seed", "data_sha256", "started_from", "started_from_sha256"}
    assert len(next(iter(facts["data_sha256"].values()))) == 64
    resolved = yaml.safe_load((sft_run / "recipe.resolved.yaml").read_text())
    assert (resolved["method"], resolved["trainer"]["max_steps"]) == ("sft", 2)


def git(folder, *words):
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "PATH": os.environ["PATH"]}
    named = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    return subprocess.run(["git", "-C", folder, *named, *words], env=own, text=True, capture_output=True, check=True)


def repository(folder):
    folder.mkdir(exist_ok=True)
    (folder / "notes.txt").write_text("private")
    git(folder, "init")
    git(folder, "add", "notes.txt")
    git(folder, "commit", "-m", "x")
    return git(folder, "rev-parse", "HEAD").stdout.strip()


def test_the_commit_is_the_packages_own_and_never_that_of_where_it_runs(tmp_path, monkeypatch):
    private = repository(tmp_path / "hospital")
    monkeypatch.chdir(tmp_path / "hospital")
    assert git_commit() != private
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "hospital" / ".git"))
    assert git_commit() != private


def test_a_package_that_a_repository_merely_holds_has_no_commit(tmp_path):
    private = repository(tmp_path)
    package = tmp_path / "venv" / "alignment"
    package.mkdir(parents=True)
    (package / "train.py").write_text("")
    assert git_commit(package) is None
    git(tmp_path, "add", "venv")
    assert git_commit(package) == private
    assert git_commit(tmp_path / "gone") is None


def test_a_finished_run_is_left_as_it_is(write_recipe, sft_run):
    before = (sft_run / "model" / "model.safetensors").stat().st_mtime_ns
    assert trained(write_recipe()) == sft_run
    assert (sft_run / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_how_a_model_is_evaluated_makes_no_other_run_of_it(write_recipe, sft_run):
    """What an older version did not know of neither: ``eval`` finds the section in the run's folder afterwards."""
    file, weights = sft_run / "recipe.resolved.yaml", sft_run / "model" / "model.safetensors"
    content, before = yaml.safe_load(file.read_text()), weights.stat().st_mtime_ns
    del content["generation"], content["rule_sets"]
    file.write_text(yaml.safe_dump(content))
    assert trained(write_recipe(), "generation.max_new_tokens.report=400") == sft_run
    assert weights.stat().st_mtime_ns == before
    assert generation_of(str(sft_run)).bound("report") == 400


def test_another_recipe_in_the_same_folder_is_refused(write_recipe, sft_run):
    with pytest.raises(InputError, match="another recipe"):
        trained(write_recipe(), "trainer.max_steps=3")


def test_a_run_whose_origin_was_trained_anew_is_no_longer_finished(write_recipe, sft_run, tmp_path):
    """Else a chain would call a stage done that goes back to weights which are there no more."""
    recipe = read_recipe(write_recipe("dpo", model={"path": str(sft_run)}))
    folder = run(recipe)
    assert run(recipe) == folder
    weights = sft_run / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\x80\x3f")
    with pytest.raises(InputError, match=rf"dpo: was trained from other weights of {sft_run} than .* --fresh"):
        run(recipe)
    assert run(recipe, fresh=True) == folder
    assert run(recipe) == folder


def test_a_finished_run_is_not_that_of_other_rows(write_recipe, data, tmp_path):
    own = tmp_path / "instruction"
    shutil.copytree(data / "instruction", own)
    recipe = read_recipe(write_recipe(data={"train": str(own / "sft")}))
    folder = run(recipe)
    table = pq.read_table(own / "sft.parquet")
    pq.write_table(table.slice(1), own / "sft.parquet")
    with pytest.raises(InputError, match=r"sft: was trained on other rows of .* --fresh"):
        run(recipe)
    (own / "sft.parquet").unlink()  # a run outlives its data
    assert run(recipe) == folder


def test_a_folder_without_a_checkpoint_is_refused(write_recipe, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no checkpoint"):
        trained(write_recipe(model={"path": str(tmp_path / "empty")}))


def test_weighted_dpo_starts_at_weight_times_ln_2(write_recipe, sft_run):
    folder = trained(write_recipe("dpo", model={"path": str(sft_run)}))
    first = log_of(folder)[0]
    assert first["loss"] == pytest.approx(first["weight"] * 0.6931472, abs=1e-3)
    assert first["rewards/margins"] == pytest.approx(0.0, abs=1e-5)


def test_unweighted_dpo_starts_at_ln_2(write_recipe, sft_run):
    folder = trained(write_recipe("dpo", model={"path": str(sft_run)}, weighting={"use": False}))
    assert log_of(folder)[0]["loss"] == pytest.approx(0.6931472, abs=1e-4)


def test_rejected_images_change_only_the_rejected_side(write_recipe, sft_run, data):
    recipe = read_recipe(write_recipe("dpo", model={"path": str(sft_run)}))
    trainer = make_trainer(recipe, sft_run.parent / "dpo")
    rows = Dataset.from_parquet(str(parquet(recipe.data.train)))
    row = {k: rows[0][k] for k in ("images", "prompt", "chosen", "rejected", "weight")}
    noised = {**row, "rejected_images": [row["images"][0].transpose(0)]}
    clean, other = trainer.data_collator([dict(row)]), trainer.data_collator([noised])
    assert torch.equal(clean["pixel_values"][0], other["pixel_values"][0])
    assert not torch.equal(other["pixel_values"][0], other["pixel_values"][1])
    assert torch.equal(clean["answer_labels"], other["answer_labels"])


def test_grpo_logs_each_reward_and_its_components(write_recipe, sft_run):
    rewards = [{"name": "box_overlap"}, {"name": "finding_f1"}]
    tasks = {"tasks": ["box", "report"]}
    folder = trained(write_recipe("grpo", model={"path": str(sft_run)}, rewards=rewards, data=tasks))
    keys = set().union(*log_of(folder))
    assert {"rewards/box_overlap/mean", "rewards/finding_f1/mean"} <= keys
    assert any(key.startswith("finding_f1/") for key in keys)


def test_pairs_prefer_the_truth_over_the_models_own_error(write_recipe, sft_run):
    changes = {"trainer": {}, "sampling": {"num_samples": 8, "max_new_tokens": 48}}
    folder = trained(write_recipe("pairs", model={"path": str(sft_run)}, **changes))
    for row in Dataset.from_parquet(str(folder / "preference" / "pairs.parquet")):
        assert row["chosen"] != row["rejected"]
        assert 0 < row["weight"] == row["relevance"] <= 1


def test_lora_trains_only_adapters_and_goes_on_from_them(write_recipe, sft_run):
    folder = trained(write_recipe("dpo", model={"path": str(sft_run), "lora": {"rank": 2}}))
    assert json.loads((folder / "model" / "adapter_config.json").read_text())["r"] == 2
    trained_names = [name for name, p in load_model(str(folder), trainable=True).named_parameters() if p.requires_grad]
    assert trained_names
    assert all("lora_" in name for name in trained_names)


def test_frozen_parts_do_not_change(write_recipe):
    folder = trained(write_recipe(model={"freeze": ["vision", "projector"]}))
    before, after = load_model(str(folder / "init")).state_dict(), load_model(str(folder)).state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert not any("vision" in name or "connector" in name for name in moved)


def test_freezing_what_is_not_there_is_refused():
    with pytest.raises(InputError, match="vision matches no parameter"):
        freeze(torch.nn.Linear(2, 2), ["vision"])


def test_the_pixel_budget_reaches_the_processor(sft_run):
    processor = load_processor(str(sft_run), max_pixels=32 * 32)
    assert max(processor.image_processor.size.values()) <= 64


def test_a_killed_run_goes_on_from_its_last_checkpoint(write_recipe, tmp_path):
    whole = trained(write_recipe(trainer={"max_steps": 4, "save_strategy": "steps", "save_steps": 2}))
    want = load_model(str(whole)).state_dict()
    for leftover in ("model", "log.jsonl"):
        target = whole / leftover
        for file in target.iterdir() if target.is_dir() else [target]:
            file.unlink()
    last = whole / "checkpoints" / "checkpoint-4"
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    (whole / "model").rmdir()
    first = whole / "checkpoints" / "checkpoint-2" / "trainer_state.json"
    written = first.stat().st_mtime_ns
    resumed = load_model(
        str(trained(write_recipe(trainer={"max_steps": 4, "save_strategy": "steps", "save_steps": 2})))
    )
    assert all(torch.equal(value, want[name]) for name, value in resumed.state_dict().items())
    # from the start it would have come to the same weights, and have written this checkpoint again
    assert first.stat().st_mtime_ns == written
    assert (last / "trainer_state.json").is_file()


def test_a_small_model_is_computed_by_one_thread_unless_the_environment_says_otherwise(sft_run, monkeypatch):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        load_model(str(sft_run))
        assert torch.get_num_threads() == 2
        monkeypatch.delenv("OMP_NUM_THREADS")
        load_model(str(sft_run))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
