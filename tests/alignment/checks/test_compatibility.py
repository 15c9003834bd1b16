"""What is refused together is refused by the check, and stands in the printed table."""

from functools import cache
from pathlib import Path

import pytest

from alignment.checks.compatibility import REFUSED, WORKS, incompatibilities, table
from alignment.checks.read_recipe import TRAINER_IS_NEXT, read_recipe
from alignment.config.recipe import Recipe
from alignment.training.trainer import make_trainer
from rewards.config.input_error import InputError
from tests.alignment.distributed.test_deepspeed import ROOT

SKIPS = ("skip", "skipif")
ZERO3 = str(ROOT / "recipes/deepspeed/zero3.json")
LORA = {"rank": 4}
CURRICULUM = {"stages": [{"of": ["1"], "steps": 2}]}
GRPO = {"method": "grpo", "rewards": [{"name": "box_overlap"}]}
# For each refused pair, the smallest recipe that holds it.
HOLDS = [
    {"model": {"quantization": "4bit", "lora": LORA}, "trainer": {"deepspeed": ZERO3}},
    {"model": {"quantization": "4bit"}},
    {"model": {"quantization": "4bit", "lora": LORA, "path": "ADAPTER"}},
    {"model": {"shared_prefix": "on", "attention": "flash_attention_2"}, **GRPO},
    {"model": {"shared_prefix": "on"}, "dialogue": {}, **GRPO},
    {"dialogue": {}, "trainer": {"use_vllm": True}, **GRPO},
    {"dialogue": {}, "trainer": {"use_transformers_continuous_batching": True}, **GRPO},
    {"dialogue": {}, "canaries": {"every": 1}, **GRPO},
    {"trainer": {"deepspeed": ZERO3, "use_cpu": True}},
    {"model": {"lora": LORA}, "trainer": {"deepspeed": ZERO3, "precompute_ref_log_probs": True}, "method": "dpo"},
    {"trainer": {"sync_ref_model": True, "precompute_ref_log_probs": True}, "method": "dpo"},
    {"weighting": {"token_kl_coefficient": 0.1}, "trainer": {"precompute_ref_log_probs": True}, "method": "dpo"},
    {"weighting": {"consistency": 0.1}, "trainer": {"precompute_ref_log_probs": True}, "method": "dpo"},
    {"trainer": {"sync_ref_model": True, "deepspeed": ZERO3}, "method": "dpo"},
    {"model": {"lora": LORA}, "trainer": {"sync_ref_model": True}, "method": "dpo"},
    {"trainer": {"sync_ref_model": True}, **GRPO},
    {"trainer": {"loss_type": ["sigmoid", "sft"]}, "method": "dpo"},
    {"trainer": {"deepspeed": ZERO3, "ds3_gather_for_generation": False}, **GRPO},
    {"model": {"lora": LORA, "path": "ADAPTER"}, "method": "reward_model"},
    {"data": {"train": "x", "curriculum": CURRICULUM, "batch_tokens": 512}},
    {"data": {"train": "x", "curriculum": CURRICULUM}, "trainer": {"train_sampling_strategy": "group_by_length"}},
    {"model": {"tower_checkpointing": True, "freeze": ["vision"]}},
]


def recipe_of(changes):
    plain = {"method": "sft", "output": "runs/x", "model": {"path": "tiny"}, "data": {"train": "x"}}
    content = plain | changes
    return Recipe.model_validate(content | {"model": {"path": "tiny"} | content["model"]})


@pytest.mark.parametrize(
    ("rule", "changes"), list(zip(REFUSED, HOLDS, strict=True)), ids=lambda x: getattr(x, "place", "")
)
def test_each_refused_pair_is_refused_by_its_own_rule(rule, changes, tmp_path):
    if changes.get("model", {}).get("path") == "ADAPTER":
        (tmp_path / "adapter_config.json").write_text("{}")
        changes = changes | {"model": changes["model"] | {"path": str(tmp_path)}}
    recipe = recipe_of(changes)
    assert rule.applies(recipe)
    assert [line for line in incompatibilities(recipe) if line.startswith(f"{rule.place}: {rule.why}")]


@pytest.mark.parametrize(("rule", "changes"), list(zip(REFUSED, HOLDS, strict=True))[8:12], ids=lambda x: "")
def test_no_trainer_is_made_of_what_the_table_refuses(rule, changes, tmp_path):
    with pytest.raises(InputError) as refused:
        make_trainer(recipe_of(changes), tmp_path / "run")  # whose data are not there
    assert f"{rule.place}: {rule.why}; {rule.cure}" in str(refused.value)


@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
def test_a_plain_recipe_holds_none(method):
    assert incompatibilities(recipe_of(GRPO if method == "grpo" else {"method": method})) == []


def test_a_line_of_the_table_says_works_and_by_which_test_or_not_tried_or_refused():
    rows = [[cell.strip() for cell in line.split("|")] for line in table().splitlines()[2:]]
    assert {len(row) for row in rows} == {6}
    for _, _, _, verdict, why, _ in rows:
        if verdict.startswith("works: "):
            assert "::test_" in why
        else:
            assert verdict in ("not tried", "refused")
            assert why


@pytest.fixture(scope="module")
def collected(request):
    """A function that gives the tests which pytest finds in a file of this folder and does not skip, by name."""

    @cache
    def of(file):
        module = pytest.Module.from_parent(request.session, path=next(Path(__file__).parents[1].rglob(file)))
        run = [i for i in request.session.genitems(module) if not any(i.get_closest_marker(name) for name in SKIPS)]
        return {item.name for item in run} | {item.originalname for item in run}

    return of


@pytest.mark.parametrize("works", [w for w in WORKS if w.shown_by], ids=lambda w: f"{w.one} and {w.other}")
def test_what_is_said_to_work_names_a_test_that_is_run(works, collected):
    file, _, name = works.shown_by.partition("::")
    assert name in collected(file)


def test_several_faults_are_said_at_once(write_recipe):
    path = write_recipe("sft", model={"quantization": "4bit"}, trainer={"deepspeed": ZERO3})
    with pytest.raises(InputError) as refused:
        read_recipe(path)
    first, second, next_look = str(refused.value).splitlines()
    assert f"{path}, line " in first
    assert "model.quantization: " in second
    assert next_look == f"{path}: {TRAINER_IS_NEXT}"
