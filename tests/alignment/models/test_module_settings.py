"""Each part moves by its own learning rate; the tower is checkpointed by its own switch; kernels by what there is."""

import logging
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode

from alignment.checks.read_recipe import read_recipe
from alignment.config.model_section import ModelSection
from alignment.models import kernels
from alignment.models.loading import load_model, model_options
from alignment.models.module_settings import TowerCheckpointing, keep_input_dtype, set_modules, spare_frozen_tower
from alignment.models.parts import freeze, part_of
from alignment.training.trainer import make_trainer
from rewards.config.input_error import InputError
from tests.alignment.distributed.test_deepspeed import ROOT, launched
from tests.alignment.models.tiny_families import build, prompt_inputs, recompute, rows


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_each_part_moves_by_its_own_learning_rate(write_recipe, tmp_path):
    rates = {"vision": 0.0, "projector": 1.0e-5}
    recipe = read_recipe(
        write_recipe("sft", model={"learning_rates": rates}, trainer={"max_steps": 1, "lr_scheduler_type": "constant"})
    )
    trainer = make_trainer(recipe, tmp_path / "run")
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    moved = {"vision": 0.0, "projector": 0.0, "language": 0.0}
    for name, parameter in trainer.model.named_parameters():
        moved[part_of(name)] = max(moved[part_of(name)], float((parameter - before[name]).abs().max()))
    assert moved["vision"] == 0.0
    assert moved["projector"] == pytest.approx(1.0e-5, rel=0.05)  # Adam's first step is the learning rate
    assert moved["language"] == pytest.approx(1.0e-3, rel=0.05)
    assert sum(len(g["params"]) for g in trainer.optimizer.param_groups) == len(before)


@pytest.mark.slow
def test_a_rate_for_a_part_that_is_not_trained_is_refused(write_recipe, tmp_path):
    model = {"learning_rates": {"vision": 1.0e-5}, "freeze": ["vision"]}
    recipe = read_recipe(write_recipe("sft", model=model))
    with pytest.raises(InputError, match="nothing of vision is trained"):
        make_trainer(recipe, tmp_path / "run")


@pytest.mark.parametrize("rates", [{"eyes": 1.0e-5}, {"vision": -1.0}])
def test_a_rate_of_no_part_or_below_zero_is_refused(write_recipe, rates):
    with pytest.raises(InputError, match="learning_rates"):
        read_recipe(write_recipe("sft", model={"learning_rates": rates}))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_rates_hold_under_zero_2(write_recipe, tmp_path):
    model = {"learning_rates": {"vision": 0.0}}
    settings = {"max_steps": 1, "per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 1,
                "lr_scheduler_type": "constant", "deepspeed": str(ROOT / "recipes/deepspeed/zero2.json")}  # fmt: skip
    path = write_recipe("sft", model=model, trainer=settings)
    launched(path, tmp_path / "seen", 2)
    before = dict(load_model(str(tmp_path / "sft" / "init")).named_parameters())
    after = load_model(str(tmp_path / "sft" / "checkpoints" / "checkpoint-1"))
    moved = {part_of(name) for name, p in after.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"projector", "language"}


@pytest.mark.parametrize("on", [True, False])
def test_the_tower_is_checkpointed_by_its_own_switch_with_the_same_gradients(on):
    model = build("qwen2_5_vl").train()
    inputs = prompt_inputs("qwen2_5_vl", model, rows()[:1])

    def gradients():
        model.zero_grad()
        model(**inputs).logits.sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    expected = gradients()
    if not on:
        recompute(model)
    TowerCheckpointing(on=on).on_train_begin(None, None, None, model=model)
    switched = {
        name: m.gradient_checkpointing for name, m in model.named_modules() if hasattr(m, "gradient_checkpointing")
    }
    assert {value for name, value in switched.items() if part_of(name) == "vision"} == {on}
    assert {value for name, value in switched.items() if part_of(name) == "language"} == {not on}
    found = gradients()
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "idefics3", "llava"])
def test_no_gradient_goes_through_a_frozen_tower_and_none_changes(family):
    model = build(family).train()
    freeze(model, ["vision"])
    inputs = prompt_inputs(family, model, rows()[:1])
    tower = next(m for name, m in model.named_modules() if type(m) is torch.nn.ModuleList and part_of(name) == "vision")
    through: list[bool] = []
    tower[-1].register_forward_hook(
        lambda _, __, out: through.append((out[0] if type(out) is tuple else out).requires_grad)
    )

    def gradients():
        recompute(model)
        model.enable_input_require_grads()  # as trl does for adapters, and after every pass of the reference
        model.zero_grad()
        through.clear()
        model(**inputs).logits.sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    expected = gradients()
    assert through == [True], "transformers has stopped to ask for this gradient: spare_frozen_tower can go"
    assert spare_frozen_tower(model)
    for _ in range(2):
        found = gradients()
        assert through == [False]
        assert expected.keys() == found.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_tower_of_which_anything_is_trained_keeps_its_gradients():
    model = build("qwen2_5_vl")
    freeze(model, ["vision"])
    next(p for name, p in model.named_parameters() if "visual.blocks.0" in name).requires_grad_()
    assert not spare_frozen_tower(model)


@pytest.mark.filterwarnings("default")  # peft asks for a property that transformers is about to rename
def test_adapters_that_keep_their_inputs_type_give_the_same_bits_by_fewer_operators():
    model = build("qwen2_5_vl").bfloat16()
    torch.manual_seed(0)
    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)).train()
    inputs = prompt_inputs("qwen2_5_vl", model, rows()[:1])

    def update():
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16), Casts() as operators:
            model(**inputs).logits.float().square().mean().backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}, operators.casts

    expected, casts_before = update()
    adapted = keep_input_dtype(model)
    found, casts = update()
    assert adapted > 10
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert any(gradient.any() for gradient in found.values())
    assert casts_before - casts > 3.8 * adapted  # to float32 and back, forward and (but for the first layer) backward
    model.generate(**inputs, max_new_tokens=1, do_sample=False)  # without autocast: float32 adapters as before


@pytest.mark.filterwarnings("default")
def test_a_trainers_model_gets_both():
    model = get_peft_model(build("qwen2_5_vl"), LoraConfig(r=4, target_modules=["q_proj"]))
    set_modules(SimpleNamespace(model=model), ModelSection(path="x", freeze=["vision"]))
    hooks = [hook.func for module in model.modules() for hook in module._forward_pre_hooks.values()]
    assert [hook.__name__ for hook in hooks] == ["_not_checkpointed", "_without_gradient"]
    adapted = [m for m in model.modules() if isinstance(vars(m).get("_cast_input_dtype"), partial)]
    assert len(adapted) == 2  # one a layer


@pytest.mark.filterwarnings("default")
def test_dropout_stands_between_the_casts():
    model = get_peft_model(build("qwen2_5_vl"), LoraConfig(r=4, target_modules=["q_proj"], lora_dropout=0.1))
    assert keep_input_dtype(model) == 0


class Casts(TorchDispatchMode):
    """Counts casts."""

    def __init__(self):
        super().__init__()
        self.casts = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.casts += func is torch.ops.aten._to_copy.default
        return func(*args, **(kwargs or {}))


without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")


@without_gpu
def test_without_a_gpu_attention_is_sdpa_and_liger_is_off():
    assert kernels.attention("auto") == "sdpa"
    assert kernels.liger(ModelSection(path="x", liger=True)) == {}
    assert model_options(ModelSection(path="x", attention="auto"))["attn_implementation"] == "sdpa"


@without_gpu
def test_the_log_says_which_attention_was_taken_and_why(caplog):
    with caplog.at_level(logging.WARNING, "alignment.models.kernels"):
        kernels.attention("auto")
        kernels.attention("eager")
    assert caplog.messages == ["model.attention: auto takes sdpa: there is no GPU."]


@without_gpu
def test_what_needs_a_gpu_is_refused_in_one_sentence():
    with pytest.raises(InputError, match=r"clinalign\[gpu\]"):
        model_options(ModelSection(path="x", quantization="4bit"))
    with pytest.raises(InputError, match="flash_attention_2 is not usable here"):
        kernels.attention("flash_attention_2")
