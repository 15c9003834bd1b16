"""Counterparts asked once, and CRPO end to end in TRL's trainer."""

import asyncio
import json
import shutil
import subprocess
import sys

import pytest
import yaml
from datasets import Dataset

from alignment.checks.read_recipe import read_recipe
from alignment.cli.filters import score_lines
from alignment.config.reward_entry import RewardEntry
from alignment.reward_functions.adapter import TrlBatchReward, trl_rewards
from alignment.reward_functions.counterparts import pool_tournament, weights_version, write_counterparts
from alignment.training.run import run
from data_builders.locks import only_one
from rewards.config.input_error import InputError
from rewards.llm.reply_cache import AppendLog

pytestmark = pytest.mark.filterwarnings("default")  # third-party deprecations of trl and accelerate


@pytest.fixture(scope="module")
def models(data, tmp_path_factory):
    """Two tiny models of different seeds, by name."""
    folder = tmp_path_factory.mktemp("models")
    paths = {}
    for seed in (1, 2):
        recipe = {
            "method": "sft", "output": str(folder / f"m{seed}"), "data": {"train": str(data / "instruction/sft")},
            "model": {"path": "tiny", "image_size": 64, "seed": seed},
            "trainer": {"max_steps": 1, "per_device_train_batch_size": 4, "activation_checkpointing": False,
                        "save_strategy": "no", "disable_tqdm": True, "seed": seed},
        }  # fmt: skip
        file = folder / f"{seed}.yaml"
        file.write_text(yaml.safe_dump(recipe))
        paths[f"m{seed}"] = str(run(read_recipe(file)))
    return paths


def written(data, out, models, **settings):
    return write_counterparts(
        str(data / "prompt/align"), str(out), models, tasks=["report"], limit=6, max_new_tokens=8, **settings
    )


def test_every_row_gets_one_answer_of_each_model_and_keeps_its_columns(data, models, tmp_path):
    card = written(data, tmp_path / "pool" / "align", models)
    rows = Dataset.from_parquet(card["written"])
    before = Dataset.from_parquet(str(data / "prompt/align.parquet"))
    assert set(rows.column_names) == {*before.column_names, "counterparts"}
    assert all([a["model"] for a in row["counterparts"]] == ["m1", "m2"] for row in rows)
    assert rows[0]["images"][0].size == (64, 64)
    assert card["models"]["m1"] == {
        "path": models["m1"], "version": weights_version(models["m1"]), "answers": len(rows),
    }  # fmt: skip
    assert weights_version(models["m1"]) != weights_version(models["m2"])


def test_a_second_run_asks_no_model_again(data, models, tmp_path, monkeypatch):
    first = written(data, tmp_path / "align", models)
    content = Dataset.from_parquet(first["written"])["counterparts"][:]

    def refuse(path):
        raise AssertionError(f"{path} was loaded again")

    monkeypatch.setattr("alignment.reward_functions.counterparts.load_for_inference", refuse)
    again = written(data, tmp_path / "align", models)
    assert Dataset.from_parquet(again["written"])["counterparts"][:] == content


def test_a_run_that_was_killed_asks_only_what_is_missing(data, models, tmp_path, monkeypatch):
    import alignment.reward_functions.counterparts as module

    written(data, tmp_path / "align", {"m1": models["m1"]})
    log = tmp_path / "align.counterparts.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:4]) + lines[4][:9])
    asked, real = [], module.generate
    monkeypatch.setattr(
        module,
        "generate",
        lambda model, processor, rows, **how: asked.extend(rows) or real(model, processor, rows, **how),
    )
    card = written(data, tmp_path / "align", {"m1": models["m1"]})
    assert len(asked) == card["rows"] - 4
    assert len(list(AppendLog(log).unread())) == card["rows"]


def test_an_endpoint_is_asked_with_the_images_and_its_failures_are_counted(data, tmp_path, server):
    file = tmp_path / "gpt.yaml"
    file.write_text(json.dumps({"model": "big", "endpoint": server.url, "max_attempts": 1, "concurrency": 1}))
    server.script = [200, 500]
    card = written(data, tmp_path / "align", {"big": str(file)})
    assert card["models"]["big"] == {"path": str(file), "version": "big", "answers": card["rows"] - 1}
    content = server.requests[0]["messages"][0]["content"]
    assert content[0]["image_url"]["url"].startswith("data:image/png;base64,")
    pools = Dataset.from_parquet(card["written"])["counterparts"][:]
    assert sorted(map(len, pools)) == [0, *[1] * (card["rows"] - 1)]


def test_missing_rows_and_models_are_one_clear_error(data, models, tmp_path):
    with pytest.raises(InputError, match=r"no rows of task reprot. Did you mean 'report'\?"):
        write_counterparts(str(data / "prompt/align"), str(tmp_path / "x"), models, tasks=["presence", "reprot"])
    with pytest.raises(InputError, match="no folder runs/none"):
        written(data, tmp_path / "x", {"a": "runs/none"})


def test_rows_that_are_no_pool_are_never_replaced(data, tmp_path):
    shutil.copy(data / "prompt/align.parquet", tmp_path / "mine.parquet")
    before = (tmp_path / "mine.parquet").read_bytes()
    for source in (data / "prompt/align", tmp_path / "mine"):
        with pytest.raises(InputError, match=r"(is not replaced|would be written over)"):
            write_counterparts(str(source), str(tmp_path / "mine"), {"a": "runs/none"})
    assert (tmp_path / "mine.parquet").read_bytes() == before


def test_a_second_process_at_one_pool_is_told_at_once(data, tmp_path):
    with only_one(tmp_path / "align.parquet"), pytest.raises(InputError, match="is writing there now"):
        written(data, tmp_path / "align", {"a": "runs/none"})


def test_a_model_that_answers_nothing_is_an_error(data, tmp_path, server):
    file = tmp_path / "gpt.yaml"
    file.write_text(json.dumps({"model": "big", "endpoint": server.url, "max_attempts": 1}))
    server.script = [500] * 99
    with pytest.raises(InputError, match=r"--model big=.*: answered none of \d+ rows"):
        written(data, tmp_path / "align", {"big": str(file)})
    assert not (tmp_path / "align.parquet").exists()


def pool_of(path, facts):
    """A pool of one row that two models answered."""
    said = [{"model": "a", "text": "There is a nodule."}, {"model": "b", "text": "No nodule."}]
    row = {"prompt": [{"role": "user", "content": "Report?"}], "counterparts": said, "facts": facts}
    Dataset.from_list([row]).to_parquet(path)
    return str(path)


def test_a_pool_on_which_the_judge_decides_nothing_has_no_win_rate(tmp_path):
    with pytest.raises(InputError, match="judge facts decided none of 1 comparisons; facts knows rows with facts"):
        pool_tournament(pool_of(tmp_path / "x.parquet", ""))
    known = '{"rule_set":"chest_xray@1","findings":{"nodule":{"polarity":"present"}}}'
    assert pool_tournament(pool_of(tmp_path / "y.parquet", known))["tallies"]["a against b"]["won"] == 1


def test_grpo_trains_on_crpo_beside_a_plain_reward(data, models, tmp_path, write_recipe):
    written(data, tmp_path / "pool" / "align", models)
    path = write_recipe(
        "grpo",
        model={"path": models["m1"]},
        data={"train": str(tmp_path / "pool" / "align")},
        rewards=[{"name": "crpo", "judge": "facts"}, {"name": "round_robin", "weight": 0.5}, {"name": "finding_f1"}],
    )
    folder = run(read_recipe(path))
    logged = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    keys = {key for entry in logged for key in entry}
    assert {"rewards/crpo/mean", "rewards/round_robin/mean", "rewards/finding_f1/mean"} <= keys
    assert {"crpo/win_rate", "crpo/failure_rate", "crpo/accuracy", "round_robin/failure_rate"} <= keys
    assert all(0 <= entry["rewards/crpo/mean"] <= 1 for entry in logged if "rewards/crpo/mean" in entry)


def test_a_recipe_whose_data_lack_the_counterparts_says_so(write_recipe):
    path = write_recipe("grpo", rewards=[{"name": "crpo"}])
    with pytest.raises(InputError, match="'crpo' reads column 'counterparts'"):
        read_recipe(path)


def test_a_judge_that_fails_gives_none_to_the_trainer(server):
    server.script = [500] * 99
    judge = {"model": "j", "endpoint": server.url, "max_attempts": 1}
    (reward,), weights = trl_rewards([RewardEntry.model_validate({"name": "crpo", "weight": 2.0, "judge": judge})])
    assert isinstance(reward, TrlBatchReward)
    logged = {}
    prompt = [{"role": "user", "content": [{"type": "text", "text": "Describe."}]}]
    found = asyncio.run(
        reward(
            [prompt], [[{"role": "assistant", "content": "x"}]], log_metric=logged.__setitem__, trainer_state=None,
            counterparts=[[{"model": "a", "text": "b"}]], images=[[]],
        )
    )  # fmt: skip
    assert (found, weights, reward.__name__, logged) == ([None], [2.0], "crpo", {"crpo/failure_rate": 1.0})


@pytest.mark.slow
def test_a_pool_is_played_out_from_the_command_line(data, models, tmp_path):
    pool = written(data, tmp_path / "pool" / "align", models)["written"]
    command = [sys.executable, "-m", "alignment", "winrate", pool, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert set(found["elo (95 % interval)"]) == {"m1", "m2"}
    assert sum(found["tallies"]["m1 against m2"][k] for k in ("won", "tied", "lost", "failed")) == found["rows"]
    leaked = subprocess.run(
        [*command, "--model", "m1", "--model", "m2", "--trained-against", "m2"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert leaked.returncode == 2
    assert "m2 was trained against" in leaked.stderr


@pytest.mark.slow
def test_the_command_wants_different_names(data, tmp_path):
    command = [sys.executable, "-m", "alignment", "counterparts", str(data / "prompt/align"), str(tmp_path / "x")]
    done = subprocess.run([*command, "--model", "runs/x"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "expected different NAME=MODEL" in done.stderr


def test_rows_are_scored_by_a_batch_reward_from_a_shell():
    row = {
        "response": "There is a nodule on the left.", "prompt": "Describe.",
        "facts": '{"rule_set":"chest_xray@1","findings":{"nodule":{"polarity":"present","side":"left"}}}',
        "counterparts": [{"model": "a", "text": "No nodule."}],
    }  # fmt: skip
    (line,) = score_lines("crpo", ["preset=published", "judge=facts"], [json.dumps(row)])
    assert json.loads(line)["score"] == 0.75  # language is a tie, which the paper pays like a loss
    with pytest.raises(InputError, match="line 1: 'crpo' reads counterparts"):
        list(score_lines("crpo", [], [json.dumps({"response": "x", "prompt": "y", "facts": None})]))
