"""Training stops at the first number that is none, with one sentence and nothing saved as finished."""

import math
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from alignment.checks.read_recipe import read_recipe
from alignment.resuming.finite import FiniteTraining, check_weights
from alignment.training.run import run
from alignment.training.trainer import make_trainer
from rewards.config.input_error import InputError

pytestmark = pytest.mark.filterwarnings("default")  # third-party deprecations of trl and accelerate


class Plain:
    def __init__(self, loss, norm, scaler=None, precision="no"):
        self.loss, self.norm = torch.tensor(loss), norm
        self.accelerator = SimpleNamespace(scaler=scaler, mixed_precision=precision)
        self.args, self.state = SimpleNamespace(output_dir="runs/x"), SimpleNamespace(global_step=4)

    def training_step(self):
        return self.loss

    def _get_grad_norm(self):
        return self.norm


class Trainer(FiniteTraining, Plain):
    pass


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_or_a_gradient_norm_that_is_not_finite_stops_the_run(value):
    with pytest.raises(InputError, match=rf"^runs/x: the loss of step 5 is {value}; training stops .* finished\."):
        Trainer(value, 1.0).training_step()
    with pytest.raises(InputError, match=f"the gradient norm of step 5 is {value};"):
        Trainer(1.0, value)._get_grad_norm()


def test_what_is_finite_passes_unchanged():
    assert Trainer(2.5, 1.0).training_step() == 2.5
    assert Trainer(1.0, 0.5)._get_grad_norm() == 0.5
    assert Trainer(1.0, None)._get_grad_norm() is None


def test_a_step_that_a_scaler_skips_is_no_fault():
    assert Trainer(1.0, math.inf, scaler=object())._get_grad_norm() == math.inf
    assert Trainer(1.0, math.inf, precision="fp16")._get_grad_norm() == math.inf


def weighed(*, frozen=False, divided=False, value=math.nan):
    model = torch.nn.Linear(2, 1)
    held = torch.tensor([[1.0, value]])
    if divided:  # as ZeRO-3 leaves it: an empty tensor, and this process' part beside it
        model.weight.data, model.weight.ds_tensor = torch.empty(0), held
    else:
        model.weight.data = held
    model.weight.requires_grad_(not frozen)
    accelerator = SimpleNamespace(gather=lambda held: held, device="cpu")
    return SimpleNamespace(
        model=model, accelerator=accelerator, args=SimpleNamespace(output_dir="runs/x"),
        state=SimpleNamespace(global_step=4),
    )  # fmt: skip


@pytest.mark.parametrize("divided", [False, True])
def test_a_trained_weight_that_is_not_finite_is_named(divided):
    with pytest.raises(InputError, match=r"after step 4 trained tensors are not finite \(1, the first is weight\)"):
        check_weights(weighed(divided=divided))
    check_weights(weighed(divided=divided, value=0.5))


def test_frozen_weights_are_not_what_training_made():
    check_weights(weighed(frozen=True))


def test_another_process_weights_count_too():
    trainer = weighed(value=0.5)
    trainer.accelerator.gather = lambda held: torch.tensor([0, 3])
    with pytest.raises(InputError, match=r"not finite \(3\)"):
        check_weights(trainer)


VARIED = [{"name": "length", "min_words": 100, "max_words": 100}]
METHODS = [
    "sft",
    pytest.param("dpo", marks=pytest.mark.slow),
    pytest.param("grpo", marks=pytest.mark.slow),
    pytest.param("reward_model", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("method", METHODS)
def test_a_run_whose_weights_overflow_ends_without_a_model(write_recipe, method):
    changes = {"rewards": VARIED} if method == "grpo" else {}
    trainer = {"learning_rate": 1.0e39, "max_steps": 1, "num_generations": 4} if method == "grpo" else {}
    path = write_recipe(method, trainer={"learning_rate": 1.0e39, "max_steps": 1, **trainer}, **changes)
    recipe = read_recipe(path)
    with pytest.raises(InputError, match="not finite"):
        run(recipe)
    folder = path.parent / method
    assert (folder / "recipe.resolved.yaml").is_file()
    assert not (folder / "model").exists()
    assert not (folder / "model.unfinished").exists()


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_that_becomes_nan_stops_every_method(write_recipe, method, tmp_path, monkeypatch):
    trainer = make_trainer(read_recipe(write_recipe(method)), tmp_path)
    compute = type(trainer).compute_loss
    monkeypatch.setattr(type(trainer), "compute_loss", lambda *a, **k: compute(*a, **k) * math.nan)
    with pytest.raises(InputError, match="the loss of step 1 is nan"):
        trainer.train()


def test_an_infinite_learning_rate_never_starts(write_recipe):
    from alignment.cli.app import app

    done = CliRunner().invoke(app, ["train", str(write_recipe()), "trainer.learning_rate=.inf"])
    assert done.exit_code != 0
    assert "trainer.learning_rate: got inf, expected a finite number." in done.stderr


def test_a_checkpoint_is_never_written_of_weights_that_are_not_finite(write_recipe, tmp_path):
    path = write_recipe(trainer={"learning_rate": 1.0e39, "save_strategy": "steps", "save_steps": 1})
    trainer = make_trainer(read_recipe(path), tmp_path)
    with pytest.raises(InputError, match="not finite"):
        trainer.train()
    assert not list((tmp_path / "checkpoints").glob("checkpoint-*"))
