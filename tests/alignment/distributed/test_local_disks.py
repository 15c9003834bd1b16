"""Two ranks whose relative paths lie on different disks, as on two nodes: a run's folder is shared, or it is said."""

import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from alignment.checks.read_recipe import read_recipe
from alignment.distributed import shared_folder
from alignment.training.run import run
from tests.alignment.distributed.test_ranks import exit_codes, launcher, rank
from tests.alignment.resuming.test_resume_after_kill import SERVER, recipe_of, start
from tests.alignment.training.moving_grpo import largest_difference, weights_of

__all__ = ["start"]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
NOT_SHARED = "is not one folder for all nodes: rank 1 on "


def at(disk, words, log, env):
    """A rank of ``clinalign WORDS``, whose working directory is ``disk``."""
    os.chdir(disk)
    shared_folder.SEEN_WITHIN_S = 0.5
    rank(words, log, env)


def both(disks, *words, **env):
    """What the ranks said, and their exit codes."""
    shared, logs = {**launcher(2), "OMP_NUM_THREADS": "1", **env}, [disk.with_suffix(".log") for disk in disks]
    asked = [*map(str, words)]
    ranks = [
        SERVER.Process(target=at, args=(disks[k], asked, logs[k], {**shared, "RANK": str(k), "LOCAL_RANK": "0"}))
        for k in range(2)
    ]
    codes = exit_codes(ranks)
    return [log.read_text() for log in logs], codes


@pytest.fixture
def disks(tmp_path):
    """The working directories of two ranks."""
    folders = [tmp_path / name for name in ("node0", "node1")]
    for folder in folders:
        folder.mkdir()
    return folders


def refused(said, codes):
    """The one sentence with which both have ended."""
    assert codes == [2, 2], said
    told = [line for line in "".join(said).splitlines() if line.startswith("error: ")]
    assert len(told) == 1, said
    return told[0]


def files_in(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_a_first_start_in_folders_of_the_nodes_own_is_refused_and_leaves_nothing(write_recipe, disks):
    assert f"output: out/run {NOT_SHARED}" in refused(*both(disks, "train", write_recipe(output="out/run")))
    assert [files_in(disk) for disk in disks] == [set(), set()]


@pytest.mark.parametrize("what", ["a run that was killed", "a run that is finished elsewhere"])
def test_a_second_start_in_folders_of_the_nodes_own_is_refused_too(what, write_recipe, disks):
    recipe = write_recipe(output="out/run")
    for place, disk in enumerate(disks):
        folder = disk / "out/run"
        (folder / "checkpoints/checkpoint-1").mkdir(parents=True)
        content = read_recipe(recipe).model_dump(mode="json")
        (folder / "recipe.resolved.yaml").write_text(yaml.safe_dump(content))
        if place and what == "a run that is finished elsewhere":
            (folder / "model").mkdir()
            (folder / "model/config.json").write_text("{}")
    assert f"output: out/run {NOT_SHARED}" in refused(*both(disks, "train", recipe))


def test_a_run_that_rank_0_knows_as_finished_is_left_by_all(write_recipe, disks):
    recipe = write_recipe(output="out/run")
    (disks[0] / "out/run/model").mkdir(parents=True)
    (disks[0] / "out/run/model/config.json").write_text("{}")
    content = read_recipe(recipe).model_dump(mode="json")
    (disks[0] / "out/run/recipe.resolved.yaml").write_text(yaml.safe_dump(content))
    said, codes = both(disks, "train", recipe)
    assert codes == [0, 0], said
    assert not files_in(disks[1])


def test_a_chain_in_folders_of_the_nodes_own_is_refused_before_its_first_stage(write_recipe, disks, tmp_path):
    write_recipe()
    chain = {"output": "out/chain", "stages": [{"name": "first", "recipe": "sft.yaml"}]}
    (tmp_path / "chain.yaml").write_text(yaml.safe_dump(chain))
    assert f"output: out/chain {NOT_SHARED}" in refused(*both(disks, "train", tmp_path / "chain.yaml"))
    assert [files_in(disk) for disk in disks] == [set(), set()]


def test_another_recipe_under_the_same_name_on_another_node_is_named(write_recipe, disks):
    for place, disk in enumerate(disks):
        shutil.move(write_recipe(trainer={"learning_rate": [1.0e-3, 1.0e-4][place]}), disk / "sft.yaml")
    told = refused(*both(disks, "train", "sft.yaml"))
    assert "rank 1 reads another one than rank 0 (trainer.learning_rate: 0.0001 instead of 0.001)" in told


def test_a_model_that_one_node_lacks_is_named(write_recipe, disks, start):
    shutil.copytree(start, disks[0] / "models/base/tiny")
    recipe = write_recipe(model={"path": "models/base/tiny"})
    told = refused(*both(disks, "train", recipe))
    assert "'models/base/tiny' is neither a folder nor a name on the Hugging Face hub. (Found by rank 1 on " in told


def test_a_copy_of_the_model_that_has_not_all_of_it_is_named(write_recipe, disks, start):
    for disk in disks:
        shutil.copytree(start, disk / "models/tiny")
    (disks[1] / "models/tiny/generation_config.json").unlink()
    told = refused(*both(disks, "train", write_recipe(model={"path": "models/tiny"})))
    assert "model.path: models/tiny: rank 1 reads another one than rank 0 (generation_config.json: None instead" in told


def copied(data, disks):
    """The built set on each disk, of other times."""
    for place, disk in enumerate(disks):
        shutil.copytree(data, disk / "data")
        for file in (disk / "data").rglob("*.parquet"):
            os.utime(file, (place, place))


def test_each_node_trains_on_its_own_copy_of_the_data_and_writes_nothing_beside_it(
    write_recipe, data, disks, start, tmp_path, monkeypatch
):
    """The shared folder of caches is the node's own too, and that of rank 0 alone knows the rows already."""
    copied(data, disks)
    settings = {"per_device_train_batch_size": 2, "max_steps": 3, "save_steps": 9, "precompute_ref_log_probs": True}
    both_of = {"trainer": settings, "data": {"train": str(data / "preference/align")}}
    whole = recipe_of(write_recipe, tmp_path, "whole", "dpo", start, **both_of)
    monkeypatch.setenv("CLINALIGN_CACHE", str(disks[0] / "cache"))
    run(read_recipe(whole).model_copy(update={"output": str(tmp_path / "before")}))
    both_of["data"] = {"train": "data/preference/align"}
    broken = recipe_of(write_recipe, tmp_path, "copies", "dpo", start, **both_of)
    before = [files_in(disk / "data") for disk in disks]
    said, codes = both(disks, "train", broken, CLINALIGN_CACHE="cache")
    assert codes == [0, 0], said
    said, codes = both(disks, "train", whole, CLINALIGN_CACHE=str(tmp_path / "cache"))
    assert codes == [0, 0], said
    assert [files_in(disk / "data") for disk in disks] == before
    assert largest_difference(weights_of(tmp_path / "copies/model"), weights_of(tmp_path / "whole/model")) == 0
    assert not list((tmp_path / "copies").glob(".rows"))
    assert {Path(name).parts[0] for name in files_in(disks[1] / "cache")} == {"row_lengths"}


def test_a_copy_with_other_bytes_is_named_with_its_node_and_both_digests(write_recipe, data, disks):
    copied(data, disks)
    file = disks[1] / "data/instruction/sft.parquet"
    table = pq.read_table(file)
    pq.write_table(table.slice(0, len(table) - 1), file)
    told = refused(*both(disks, "train", write_recipe(data={"train": "data/instruction/sft"})))
    assert "data/instruction/sft.parquet: rank 1 on " in told
    from data_builders.digest import sha256

    for disk in disks:
        assert sha256(disk / "data/instruction/sft.parquet")[:12] in told
