import json

import pytest

from alignment.checks.read_recipe import read_recipe
from alignment.config.reward_sections import CANARY_LIMITS, CanarySection
from alignment.reward_functions.canaries import Canaries, statistics
from alignment.reward_functions.combined import combined_rewards
from alignment.training.run import run
from rewards.boxes.coordinate_space import Units
from rewards.config.input_error import InputError

pytestmark = pytest.mark.filterwarnings("default")  # third-party deprecations of trl and accelerate
PROMPT = [
    {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "Where is the nodule?"}]}
]
FACTS = '{"rule_set":"chest_xray@1","findings":{"nodule":{"polarity":"present","boxes":[[0,0,10,10]]}}}'
SPAM = "nodule [" + ",".join("[0,0,100,100]" for _ in range(40)) + "]"


def columns(number):
    row = {"prompts": PROMPT, "task": "box", "facts": FACTS, "rule_set": "chest_xray@1",
           "answer": "nodule [[0,0,10,10]]", "boxes": [[0, 0, 10, 10]], "box_grid": 100}  # fmt: skip
    return {name: [value] * number for name, value in row.items()}


class Control:
    should_training_stop = False


def watched(write_recipe, **section):
    recipe = read_recipe(write_recipe("grpo", rewards=[{"name": "box_overlap"}], canaries={"every": 1, **section}))
    return combined_rewards(recipe, group_size=2)


def test_a_spam_policy_trips_every_alarm():
    found = statistics([SPAM, "", "[[0,0,100,100]] " * 30], [[[0, 0, 1, 1]], [], []], [Units(box_grid=100)] * 3)
    assert found["boxes_per_answer"] > 20
    assert found["whole_image_rate"] == pytest.approx(2 / 3)
    assert found["false_boxes_on_empty"] > CANARY_LIMITS["false_boxes_on_empty"] / 2
    assert found["distinct_words"] < 0.6
    assert found["empty_rate"] == pytest.approx(1 / 3)
    assert found["largest_box_share"] == pytest.approx(2 / 3)
    assert found["tag_rate"] == 0


def test_an_honest_policy_trips_none(write_recipe):
    combined, logged, control = watched(write_recipe, stop=True, patience=1), {}, Control()
    said = ["nodule [[0,0,10,10]]", "nodule [[0,0,9,10]]"]
    assert combined.functions[0](said, log_metric=logged.__setitem__, **columns(2)) == [1.0, pytest.approx(0.9)]
    combined.callbacks[0].on_step_end(None, None, control)
    assert not control.should_training_stop
    assert logged["canary/margin/whole image"] < 0
    assert logged["canary/boxes_per_answer"] == 1


@pytest.mark.parametrize(("stop", "patience", "stopped"), [(True, 2, True), (True, 3, False), (False, 1, False)])
def test_an_alarm_stops_the_run_only_if_asked_and_after_its_patience(write_recipe, stop, patience, stopped):
    combined, control = watched(write_recipe, stop=stop, patience=patience), Control()
    for _ in range(2):
        combined.functions[0]([SPAM, SPAM], log_metric=lambda name, value: None, **columns(2))
    combined.callbacks[0].on_step_end(None, None, control)
    assert control.should_training_stop is stopped


def test_one_good_batch_ends_a_streak():
    canaries = Canaries(CanarySection(every=1, patience=2), [], [], group_size=1, gather=lambda mine: [mine])
    for value in (100.0, 1.0, 100.0):
        canaries._judge({name: 1.0 for name in CANARY_LIMITS} | {"boxes_per_answer": value, "whole_image_rate": 0.0,
                                                                 "empty_rate": 0.0})  # fmt: skip
    assert canaries.alarms == []


def test_a_margin_above_zero_says_that_hacking_would_pay(write_recipe):
    recipe = read_recipe(write_recipe("grpo", rewards=[{"name": "medmo_box"}], canaries={"every": 1}))
    combined, logged = combined_rewards(recipe, group_size=2), {}
    combined.functions[0](["nothing", "nothing"], log_metric=logged.__setitem__, **columns(2))
    assert logged["canary/margin/whole image"] > 0.3


def test_canaries_are_silent_between_observations(write_recipe):
    combined, logged = watched(write_recipe, every=3), []
    for _ in range(4):
        combined.functions[0](["x", "x"], log_metric=lambda name, value: logged.append(name), **columns(2))
    assert logged.count("canary/words") == 2


def test_an_unknown_limit_is_refused(write_recipe):
    with pytest.raises(InputError, match="canaries"):
        read_recipe(write_recipe("grpo", canaries={"limits": {"boxes": 3.0}}))


@pytest.mark.slow
def test_canaries_are_logged_in_a_real_run_and_stop_it(write_recipe):
    changes = {
        "canaries": {"every": 1, "stop": True, "patience": 1, "limits": {"words": 0.0}},
        "trainer": {"max_steps": 4},
    }
    folder = run(read_recipe(write_recipe("grpo", **changes)))
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert "canary/margin/whole image" in log[0]
    assert "canary/words" in log[0]
    assert log[-1]["step"] == 1


@pytest.mark.slow
def test_canaries_watch_a_judged_reward_beside_a_plain_one(write_recipe, data, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(data / "prompt/align.parquet")
    pool = [[{"model": "weak", "text": "No nodule. No effusion."}]] * len(table)
    pq.write_table(table.append_column("counterparts", pa.array(pool)), tmp_path / "align.parquet")
    rewards = [{"name": "crpo"}, {"name": "finding_f1", "weight": 0.0}]
    path = write_recipe("grpo", rewards=rewards, canaries={"every": 1}, data={"train": str(tmp_path / "align.parquet")})
    folder = run(read_recipe(path))
    first = json.loads((folder / "log.jsonl").read_text().splitlines()[0])
    assert "canary/margin/judge flattery" in first
    assert "rewards/crpo/mean" in first
    assert 0 <= first["time/reward_share"] < 1


def test_gates_on_a_judged_reward_stay_refused(write_recipe, data, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(data / "prompt/align.parquet")
    pool = [[{"model": "weak", "text": "No nodule."}]] * len(table)
    pq.write_table(table.append_column("counterparts", pa.array(pool)), tmp_path / "align.parquet")
    gate = {"gates": [{"reward": "crpo", "needs": "think_format"}]}
    path = write_recipe(
        "grpo", rewards=[{"name": "crpo"}, {"name": "think_format"}], combination=gate,
        data={"train": str(tmp_path / "align.parquet")},
    )  # fmt: skip
    with pytest.raises(InputError, match="gates, schedules and domains"):
        combined_rewards(read_recipe(path), group_size=2)
