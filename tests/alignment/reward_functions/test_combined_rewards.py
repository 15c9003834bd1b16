import pytest

from alignment.checks.read_recipe import read_recipe
from alignment.reward_functions.combined import combined_rewards
from alignment.training.run import run
from alignment.training.trainer import make_trainer
from rewards.combination import as_table, normalised, weighted_sum
from rewards.config.input_error import InputError

pytestmark = pytest.mark.filterwarnings("default")  # third-party deprecations of trl and accelerate
GOOD, BARE = "<think>a</think><answer>nodule [[0,0,10,10]]</answer>", "nodule [[0,0,10,10]]"
GATED = [{"name": "box_overlap"}, {"name": "think_format", "weight": 0.2}]


def of_recipe(write_recipe, **changes):
    return read_recipe(write_recipe("grpo", **changes))


def fault_of(write_recipe, **changes):
    with pytest.raises(InputError) as caught:
        of_recipe(write_recipe, **changes)
    return str(caught.value)


def test_mode_and_weights_reach_trl_by_its_own_names(write_recipe):
    recipe = of_recipe(write_recipe, combination={"mode": "normalize_then_sum"})
    assert combined_rewards(recipe, group_size=2).arguments == {
        "reward_weights": [1.0, 1.0],
        "multi_objective_aggregation": "normalize_then_sum",
    }


def test_a_shut_gate_costs_the_box_reward_and_logs_what_it_was(write_recipe):
    gates = {"gates": [{"reward": "box_overlap", "needs": "think_format"}]}
    combined = combined_rewards(of_recipe(write_recipe, rewards=GATED, combination=gates), group_size=2)
    logged = {}
    boxes = [[[0, 0, 10, 10]]] * 2
    scores = combined.functions[0]([GOOD, BARE], log_metric=logged.__setitem__, boxes=boxes)
    assert scores == [1.0, 0.0]
    assert logged["box_overlap/before_gate"] == 1.0
    assert combined.functions[0].__name__ == "box_overlap"
    assert combined.functions[1]([GOOD, BARE]) == [1.0, 0.0]


def test_a_schedule_tightens_the_threshold_as_the_model_succeeds_and_is_kept_in_the_checkpoint(write_recipe):
    schedule = {"reward": "box_measure", "start": 0.3, "end": 0.5, "step": 0.1, "window": 1, "success": 0.9}
    rewards = [{"name": "box_measure", "formula": "iou_at"}]

    def fresh():
        recipe = of_recipe(write_recipe, rewards=rewards, combination={"schedules": [schedule]})
        return combined_rewards(recipe, group_size=2)

    def score(combined, height, **more):
        return combined.functions[0](["[[0,0,10,10]]"], boxes=[[[0, 0, 10, height]]], **more)

    first, second = fresh(), fresh()
    training = {"log_metric": lambda name, value: None}
    assert score(first, 25, **training) == [1.0]  # IoU .4 at threshold .3
    assert score(first, 10) == [1.0]  # no training batch: nothing moves
    assert score(first, 10, **training) == [1.0]
    assert score(first, 25, **training) == [0.0]  # the threshold is .5 now
    kept = first.callbacks[0].kept_state()
    assert kept == {"box_measure": {"value": 0.5, "recent": []}}
    second.callbacks[0].restore_state(kept)
    assert score(second, 25) == [0.0]


def test_drpo_is_one_finished_advantage(write_recipe):
    recipe = of_recipe(write_recipe, rewards=GATED, combination={"domains": {"column": "task"}})
    combined = combined_rewards(recipe, group_size=2)
    assert combined.arguments == {"reward_weights": [1.0], "scale_rewards": "none"}
    assert "task" in combined.columns
    scores = combined.functions[0](
        [GOOD, "", BARE, BARE], boxes=[[[0, 0, 10, 10]]] * 4, task=["box", "box", "report", "report"]
    )
    assert scores[0] == -scores[1] > 0
    assert scores[2:] == [0.0, 0.0]


def test_split_groups_under_drpo_are_refused(write_recipe):
    recipe = of_recipe(write_recipe, combination={"domains": {"column": "task"}})
    with pytest.raises(InputError, match="no whole groups of 3"):
        combined_rewards(recipe, group_size=3)


@pytest.mark.parametrize(
    ("combination", "says"),
    [
        ({"gates": [{"reward": "box_overlp", "needs": "finding_f1"}]}, "Did you mean 'box_overlap'"),
        ({"schedules": [{"reward": "box_overlap", "start": 0.1, "end": 0.5}]}, "no knob 'threshold'"),
        ({"domains": {"column": "taks"}}, "Did you mean 'task'"),
        ({"domains": {"column": "task"}, "mode": "normalize_then_sum"}, "leave 'mode' out"),
        ({"mod": "normalize_then_sum"}, "Did you mean 'mode'"),
    ],
)
def test_faults_are_told_with_their_cure(write_recipe, combination, says):
    assert says in fault_of(write_recipe, combination=combination)


def test_the_mode_is_said_once(write_recipe):
    changes = {"combination": {"mode": "normalize_then_sum"}, "trainer": {"multi_objective_aggregation": "x"}}
    assert "leave it out of one of the two" in fault_of(write_recipe, **changes)


def test_soft_overlong_reads_what_the_trainer_gives(write_recipe):
    recipe = of_recipe(write_recipe, rewards=[{"name": "soft_overlong", "max_tokens": 10, "cache_tokens": 5}])
    assert combined_rewards(recipe, group_size=2).functions[0](["x"], completion_ids=[[1] * 10]) == [-1.0]


@pytest.fixture
def sft_model(write_recipe):
    return run(read_recipe(write_recipe()))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["sum_then_normalize", "normalize_then_sum"])
def test_advantages_of_either_mode_are_by_hand_what_trl_makes_of_the_recipe(write_recipe, sft_model, mode, tmp_path):
    trainer = {"max_steps": 1, "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 12}
    overlap = {"name": "report_overlap", "held_to_facts": False, "weight": 0.3}
    rewards = [{"name": "length", "min_words": 20, "weight": 1.0}, overlap]
    recipe = of_recipe(
        write_recipe, model={"path": str(sft_model)}, trainer=trainer, rewards=rewards, combination={"mode": mode}
    )
    made = make_trainer(recipe, tmp_path)
    made.train()
    table = as_table([list(made._logs["rewards"][name]) for name in ("length", "report_overlap")])
    found = list(made._logs["advantages"])
    assert max(map(abs, found)) > 0.1
    if mode == "sum_then_normalize":
        want = normalised(weighted_sum(table, [1.0, 0.3])[:, None], group_size=4)
    else:  # GDPO: each reward by its group, the sum over the batch
        want = normalised(weighted_sum(normalised(table, group_size=4), [1.0, 0.3])[:, None], group_size=8)
    assert want[:, 0] == pytest.approx(found, abs=1e-3)


@pytest.mark.slow
def test_drpo_trains_and_logs_each_reward(write_recipe, sft_model):
    recipe = of_recipe(
        write_recipe, model={"path": str(sft_model)}, rewards=GATED, combination={"domains": {"column": "task"}}
    )
    log = (run(recipe) / "log.jsonl").read_text()
    assert "think_format/mean" in log
    assert "box_overlap/mean" in log
