"""A chain of stages in one call of two ranks, beside the same stages each started by itself: the same bits."""

import json
import os
import shutil
import sys
import weakref

import pytest
import torch
import yaml

from alignment.checks.read_recipe import read_recipe
from alignment.training.run import run
from tests.alignment.conftest import TRAINER
from tests.alignment.distributed.test_ranks import both, exit_codes, launcher
from tests.alignment.resuming.resume_worker import Killed
from tests.alignment.resuming.test_resume_after_kill import ROOT, SERVER
from tests.alignment.training.moving_grpo import PAID, SGD, largest_difference, weights_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
STEPS = {
    "max_steps": 2, "per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 1, "logging_steps": 1,
    "seed": 5, "disable_tqdm": True, "activation_checkpointing": False,
}  # fmt: skip
SAMPLING = {"num_samples": 8, "max_new_tokens": 48, "batch_size": 2}
LIMIT_S = 240


def worker(words, kill_stage, log, env):
    """One rank of ``clinalign WORDS``, killed in the second step of the stage of this name."""
    from alignment.cli.app import main
    from alignment.resuming import training as resuming
    from alignment.training import run as train

    os.environ.update(env)
    torch.set_num_threads(1)
    noted, forget, models = resuming.note_rows, train._forget_rows, {}

    def with_killer(trainer, *more):
        noted(trainer, *more)
        models[trainer.args.output_dir] = weakref.ref(trainer.model)
        if kill_stage and f"/{kill_stage}/" in trainer.args.output_dir:
            trainer.add_callback(Killed(1))

    def with_count(folder):
        print("models in memory:", [place for place, model in models.items() if model() is not None])
        forget(folder)

    resuming.note_rows, train._forget_rows = with_killer, with_count
    with log.open("w") as opened:
        sys.stdout = sys.stderr = opened
        sys.argv = ["clinalign", *map(str, words)]
        main()


def two(tmp_path, *words, kill_stage=None):
    """What two ranks said, and their exit codes."""
    shared, logs = launcher(2) | {"OMP_NUM_THREADS": "1"}, [tmp_path / f"{k}.log" for k in range(2)]
    envs = [{**shared, "RANK": str(k), "LOCAL_RANK": str(k)} for k in range(2)]
    ranks = [SERVER.Process(target=worker, args=(words, kill_stage, logs[k], envs[k])) for k in range(2)]
    codes = exit_codes(ranks, LIMIT_S)
    return [log.read_text() for log in logs], codes


def trained(tmp_path, *words):
    said, codes = two(tmp_path, "train", *words)
    assert codes == [0, 0], "\n".join(text[-3000:] for text in said)
    assert [text.count("trained: ") for text in said] == [1, 0]
    return said


def chain_of(tmp_path, data, **trainer):
    """SFT, pairs, DPO and GRPO, each in steps that move the weights."""
    methods = {
        "sft": {"method": "sft", "data": {"train": str(data / "instruction/sft")}},
        "pairs": {"method": "pairs", "data": {"train": str(data / "prompt/align")}, "sampling": SAMPLING},
        "dpo": {"method": "dpo", "data": {"train": ""}},
        "grpo": {"method": "grpo", "data": {"train": str(data / "prompt/align")}, "rewards": PAID},
    }
    for name, content in methods.items():
        if name != "pairs":
            content["trainer"] = STEPS | (SGD | {"max_steps": 2} if name == "grpo" else TRAINER[name]) | trainer
        content |= {"output": "", "model": {"path": "tiny", "image_size": 64}}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    stages = [{"name": name, "recipe": f"{name}.yaml"} for name in methods]
    stages[2]["train"] = "pairs"
    path = tmp_path / "chain.yaml"
    path.write_text(yaml.safe_dump({"output": str(tmp_path / "chain"), "data": str(data), "stages": stages}))
    return path


@pytest.mark.parametrize(("stage", "kill"), [(2, "dpo"), (3, None)])
def test_a_chain_under_zero_gives_the_weights_of_its_stages_one_by_one(data, tmp_path, stage, kill):
    chain = chain_of(tmp_path, data, deepspeed=str(ROOT / f"recipes/deepspeed/zero{stage}.json"))
    if kill:  # its second trained stage, in which it then goes on
        _, codes = two(tmp_path, "train", chain, kill_stage=kill)
        assert codes == [-9, -9]
        assert not (tmp_path / "chain/dpo/model").exists()
    said = trained(tmp_path, chain)
    assert said[0].count("models in memory: []") == said[0].count("models in memory") == 4
    for name, start in (("dpo", "sft"), ("grpo", "dpo")):
        trained(tmp_path, tmp_path / f"chain/{name}/recipe.resolved.yaml", f"output={tmp_path / name}")
        before, in_chain, alone = (tmp_path / place / "model" for place in (f"chain/{start}", f"chain/{name}", name))
        assert largest_difference(weights_of(in_chain), weights_of(alone)) == 0
        assert largest_difference(weights_of(in_chain), weights_of(before)) > 1e-3


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    """A tiny untrained model: most of what it samples is wrong, and some of it can be read."""
    from alignment.models.prepared import built_texts
    from alignment.models.tiny import build_tiny

    folder = tmp_path_factory.mktemp("start") / "tiny"
    return build_tiny(built_texts(str(data / "instruction/sft")), folder, image_size=64)


def test_two_ranks_write_the_pairs_of_one_and_ask_an_llm_once(write_recipe, start, server, tmp_path):
    wrong = "There is a large pneumothorax on the left."
    server.answer = lambda body: (
        '{"number": null}' if "Candidates" in body["messages"][-1]["content"] else json.dumps({"answer": wrong})
    )
    sampling = SAMPLING | {
        "kinds": ["own_error", "degraded", "lesion_noise", "llm"], "noise": {"step": 900},
        "llm": {"model": "m", "endpoint": server.url, "max_attempts": 1},
    }  # fmt: skip
    recipe = write_recipe("pairs", model={"path": str(start)}, trainer={}, sampling=sampling)
    trained(tmp_path, recipe)
    asked_by_two = len(server.requests)
    run(read_recipe(recipe, [("output", str(tmp_path / "one"))]))
    assert len(server.requests) == 2 * asked_by_two > 0
    for name in ("pairs.parquet", "card.json"):
        assert (tmp_path / "pairs/preference" / name).read_bytes() == (tmp_path / "one/preference" / name).read_bytes()


def test_a_fault_that_rank_0_finds_alone_ends_pairs_on_both(write_recipe, start, data, tmp_path):
    shutil.copytree(data / "prompt", tmp_path / "bare/prompt")  # without the card, which says the units of boxes
    recipe = write_recipe(
        "pairs", model={"path": str(start)}, trainer={}, sampling=SAMPLING | {"kinds": ["own_error", "lesion_noise"]},
        data={"train": str(tmp_path / "bare/prompt/align")},
    )  # fmt: skip
    said, codes = both(["train", recipe], tmp_path)
    assert codes == [2, 2], said
    assert "".join(said).count("the units of its boxes") == 1
