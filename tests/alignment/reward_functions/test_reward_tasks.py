"""A reward pays for what was asked: TASKS of its module, ``tasks`` of a recipe, None for any other row."""

import asyncio
import math
from pathlib import Path

import pytest

from alignment.checks.faults import unpaid_warning
from alignment.checks.read_recipe import read_recipe
from alignment.config.recipe import Recipe
from alignment.planning.check import check_recipe
from alignment.reward_functions.adapter import AwaitedReward, TrlBatchReward, TrlReward
from alignment.reward_functions.combined import gated_rewards
from data_builders.grounding.grounding import TASKS as GROUNDING
from rewards.config.input_error import InputError
from rewards.config.strict_yaml import read_yaml, validated
from rewards.loading import BatchReward, Reward, available, available_batched, load_reward
from rewards.tasks import KNOWN, SEQUENCES

RECIPE = Path(__file__).parents[3] / "recipes/grpo/phantom_chest.yaml"
TRUTH = (
    '{"rule_set":"chest_xray@1","findings":{"cardiomegaly":{"polarity":"present"},'
    '"nodule":{"polarity":"absent"},"consolidation":{"polarity":"absent"},"effusion":{"polarity":"absent"},'
    '"pneumothorax":{"polarity":"absent"}}}'
)
HONEST = "cardiomegaly [[34,42,79,81]]"
DENIALS = "No nodule. No consolidation. No effusion. No pneumothorax."
REPORT = f"There is cardiomegaly. {DENIALS}"


@pytest.mark.parametrize("name", [*available(), *available_batched()])
def test_every_reward_names_the_known_tasks_that_it_pays_for(name):
    tasks = load_reward(name).tasks
    assert tasks is None or (tasks and set(tasks) <= set(KNOWN) and len(set(tasks)) == len(tasks))


def test_the_tasks_of_sequences_are_those_that_are_built():
    assert set(SEQUENCES) == {"sequence", *GROUNDING}


def total(response, task, tasks=None):
    """What the recipe of box and report prompts pays for a response to one row."""
    recipe = validated(Recipe, read_yaml(RECIPE), where="x")
    entries = [e.model_copy(update={"tasks": tasks}) for e in recipe.rewards]
    functions, weights = gated_rewards(recipe.model_copy(update={"rewards": entries}))
    row = {"boxes": [[[34, 42, 79, 81]] if task != "report" else None], "facts": [TRUTH], "task": [task], "id": ["a"]}
    scores = [f([response], **row)[0] for f in functions]
    return sum(w * s for w, s in zip(weights, scores, strict=True) if s is not None)


def test_denials_beside_a_box_and_unasked_reports_earn_nothing_more():
    assert total(HONEST, "box") == 1.0
    assert total(f"{HONEST} {DENIALS}", "box") <= 1.0
    assert total(REPORT, "box") == 0.0
    assert total(REPORT, "report") == 1.0
    assert total(HONEST, "presence") == 0.0


def test_a_row_without_a_task_counts_as_all():
    assert total(REPORT, None) == 1.0


def test_a_recipes_tasks_replace_those_of_the_reward():
    assert total(REPORT, "box", tasks=["box"]) == 1.0
    assert total(HONEST, "box", tasks=["report"]) == 0.0


def asked(reward, tasks, **columns):
    return asyncio.run(TrlBatchReward(reward, tasks)(["?"] * 3, ["a", "b", "c"], **columns))


class Lengths:
    columns = ("facts",)

    async def __call__(self, responses, facts):
        from rewards.loading import Judged

        assert len(responses) == len(facts)
        return Judged([self.given.get(r, 0.5) for r in responses])

    def __init__(self, **given):
        self.given = given


class Batched(BatchReward):
    def with_local(self, local):
        return self


def test_a_batch_reward_sees_the_rows_of_its_tasks_alone():
    reward = Batched("round_robin", Lengths(b=0.25))
    columns = {"facts": [1, 2, 3], "task": ["report", "box", "report"]}
    assert asked(reward, None, **columns) == [0.5, 0.25, 0.5]
    assert asked(reward, ("box",), **columns) == [None, 0.25, None]
    assert asked(reward, ("side",), **columns) == [None] * 3
    awaited = AwaitedReward(TrlBatchReward(reward, ("box",)))
    assert awaited(["a", "b", "c"], prompt=["?"] * 3, **columns) == [None, 0.25, None]


def test_rules_as_judge_pay_for_reports_and_models_for_all():
    assert load_reward("crpo").tasks == load_reward("round_robin").tasks == ("report",)
    assert load_reward("crpo", judge={"endpoint": "http://127.0.0.1:9/v1", "model": "x"}).tasks is None


def fault(path, *overrides):
    with pytest.raises(InputError) as caught:
        read_recipe(path, list(overrides))
    return str(caught.value)


def test_a_reward_that_no_row_is_of_is_an_error(write_recipe):
    told = fault(write_recipe("grpo"), "data.tasks=[box]")
    assert "rewards[1]: 'finding_f1' pays for rows of report, and" in told
    assert "tasks: [box]" in told
    assert "rewards[0]" not in told


def test_a_misspelt_task_gets_the_nearest_name(write_recipe):
    told = fault(write_recipe("grpo", rewards=[{"name": "length", "tasks": ["box", "reprot"]}]))
    assert "rewards[0].tasks: no task 'reprot'. Did you mean 'report'?" in told


def test_rows_that_no_weighted_reward_pays_are_told(write_recipe):
    rewards = [{"name": "box_overlap"}, {"name": "finding_f1", "weight": 0.0}]
    path = write_recipe("grpo", rewards=rewards)
    warning = unpaid_warning(read_recipe(path, ["data.tasks=[box, report]"]))
    assert warning.startswith("no reward with a weight pays for rows of report (")
    assert "box" not in warning
    assert check_recipe(path, ["data.tasks=[box, report]"])["warning"] == warning
    assert unpaid_warning(read_recipe(write_recipe("grpo"), ["data.tasks=[box, report]"])) is None
    assert unpaid_warning(read_recipe(write_recipe("dpo"))) is None


def beyond(value, bounds=(0.0, 1.0)):
    return Reward("mine", lambda response: value, bounds=bounds)


@pytest.mark.parametrize("value", [1.5, -0.01, math.nan, math.inf])
def test_a_reward_beyond_its_bounds_stops_the_run_with_one_sentence(value):
    with pytest.raises(InputError, match=r"reward 'mine' gave \S+ to an answer to row 'r7'; its bounds are 0 to 1\."):
        TrlReward(beyond(value))(["x"], id=["r7"])
    with pytest.raises(InputError, match=r"reward 'round_robin' gave .* to row 1 of its batch"):
        asked(Batched("round_robin", Lengths(b=value)), (), facts=[1, 2, 3])


def test_rounding_at_a_bound_is_none_of_it():
    assert TrlReward(beyond(1.0 + 1e-9))(["x"]) == [1.0 + 1e-9]
    assert TrlReward(beyond(-3.0, bounds=(-20.0, 20.0)))(["x"]) == [-3.0]


@pytest.mark.parametrize(
    ("name", "knobs", "says"),
    [
        ("finding_f1", {"size_credit": 5}, "'size_credit': got 5; expected a number of at least 0 and of at most 1."),
        ("finding_f1", {"size_credit": math.nan}, "'size_credit': got nan; expected a finite number of at least 0"),
        ("box_overlap", {"false_box_weight": -1}, "'false_box_weight': got -1; expected a number of at least 0."),
        ("factuality", {"absent_weight": math.inf}, "'absent_weight': got inf; expected a finite number"),
        ("box_measure", {"beta": 0.0}, "'beta': got 0.0; expected a number above 0."),
        ("length", {"min_words": 0}, "'min_words': got 0; expected a whole number of at least 1."),
        ("crpo", {"tie": 2.0}, "'tie': got 2.0; expected a number of at least 0 and of at most 1, or none."),
    ],
)
def test_a_knob_out_of_its_range_is_refused_with_the_range(name, knobs, says):
    with pytest.raises(InputError) as caught:
        load_reward(name, **knobs)
    assert says in str(caught.value)


@pytest.mark.parametrize("name", [*available(), *available_batched()])
def test_no_number_of_any_reward_may_be_nan_or_infinite(name):
    """The kind behind the case: whatever knob takes a float refuses what is none."""
    import inspect

    reward = load_reward(name)
    owner = reward.function if isinstance(reward, Reward) else type(reward.scorer)
    knobs = [n for n, p in inspect.signature(owner).parameters.items() if isinstance(p.default, float)]
    for knob in knobs:
        for value in (math.nan, math.inf, -math.inf):
            with pytest.raises(InputError, match=knob):
                load_reward(name, **{knob: value})


def test_weights_and_trainer_settings_must_be_finite(write_recipe):
    assert "rewards.0.weight" in fault(write_recipe("grpo", rewards=[{"name": "length", "weight": math.nan}]))
    assert "trainer.learning_rate: got inf, expected a finite number." in fault(
        write_recipe(), "trainer.learning_rate=.inf"
    )
    nested = {"lr_scheduler_kwargs": {"min_lr": math.nan}}
    assert "trainer.lr_scheduler_kwargs" in fault(write_recipe(trainer=nested))
    assert "model.init_std" in fault(write_recipe(), "model.init_std=.inf")
