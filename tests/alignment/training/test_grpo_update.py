"""The update of GRPO: weights after three steps against TRL's own trainer, and a loss worked out by hand."""

import math
from pathlib import Path

import pytest
import torch
import trl
from datasets import Dataset

from alignment.checks.read_recipe import read_recipe
from alignment.config.data_entries import parquet
from alignment.config.library_names import installed_keys
from alignment.models.generation import unsampled_tokens
from alignment.models.prepared import built_texts
from alignment.models.processors import load_processor
from alignment.models.tiny import build_tiny
from alignment.reward_functions.combined import combined_rewards
from alignment.training.trainer import make_trainer
from tests.alignment.training.moving_grpo import PAID, SGD, assert_moved_alike, weights_of

pytestmark = pytest.mark.filterwarnings("default")  # third-party deprecations of trl and accelerate


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    """A tiny model to start from, so that every run begins with the same weights."""
    folder = tmp_path_factory.mktemp("start") / "tiny"
    return build_tiny(built_texts(str(data / "instruction/sft")), folder, image_size=64)


@pytest.fixture
def recipe(write_recipe, start, tmp_path):
    def read(shared="on", **trainer):
        settings = {**SGD, "per_device_train_batch_size": 8, **trainer}
        model = {"path": str(start), "shared_prefix": shared}
        changes = {"model": model, "rewards": PAID, "trainer": settings, "output": str(tmp_path / "run")}
        return read_recipe(write_recipe("grpo", data={"largest_first": False}, **changes))  # TRL's order of rows

    return read


def stock(recipe):
    """TRL's trainer on the same model, rows, reward and settings."""
    processor = load_processor(recipe.model.path)
    arguments = trl.GRPOConfig(
        output_dir=f"{recipe.output}/stock", report_to="none", bf16=False, **installed_keys(recipe.trainer),
        model_init_kwargs={"dtype": "float32", "attn_implementation": "sdpa"},
        generation_kwargs={"suppress_tokens": unsampled_tokens(processor)},
    )  # fmt: skip
    return trl.GRPOTrainer(
        model=recipe.model.path,
        args=arguments,
        reward_funcs=combined_rewards(recipe, group_size=4).functions,
        train_dataset=Dataset.from_parquet(str(parquet(recipe.data.train))),
        processing_class=processor,
    )


def trained(trainer):
    """The weights after training, the log of its steps, and the answers that were rewarded."""
    judge, answers = trainer.reward_funcs[0], []

    def heard(completions, **columns):
        answers.extend(completion[0]["content"] for completion in completions)
        return judge(completions, **columns)

    trainer.reward_funcs = [heard]
    trainer.train()
    return weights_of(trainer.model), [entry for entry in trainer.state.log_history if "loss" in entry], answers


@pytest.mark.parametrize("shared", ["on", "off"])
def test_three_steps_end_at_the_weights_of_stock_trl(recipe, start, tmp_path, shared):
    asked = recipe(shared)
    weights, log, answers = trained(make_trainer(asked, tmp_path / "ours"))
    theirs, their_log, their_answers = trained(stock(asked))
    assert answers == their_answers
    assert_moved_alike(weights, theirs, weights_of(Path(start)), within=1e-4)
    for name in ("loss", "grad_norm", "kl", "reward_std", "clip_ratio/region_mean"):
        want = [entry[name] for entry in their_log if name in entry]
        assert [entry[name] for entry in log if name in entry] == pytest.approx(want, abs=1e-5, rel=1e-4), name
    assert all(entry["grad_norm"] > 0.1 for entry in log)
    assert [abs(entry["loss"]) > 5e-4 for entry in log] == [False, True, True]  # at first nothing has moved
    assert [entry["reward_std"] > 0 for entry in log if "reward_std" in entry] == [True, True]
    assert log[1]["clip_ratio/region_mean"] > 0


# Two answers to one prompt, of two tokens (advantage 1) and of one (advantage -1). ``RATIOS``: how much likelier each
# token is than under the old policy; the reference finds the second twice as likely as the policy does. Epsilon is .2
# below and .3 above.
RATIOS = [[1.5, 0.5], [0.5, 1.0]]
REFERENCE_OVER_POLICY = [[1.0, 2.0], [1.0, 1.0]]
KL = 0.5 * (2 - math.log(2) - 1)  # times the ratio, as TRL has it (arXiv 2512.02556)
# the mean over three tokens of -min(1.5, 1.3), -min(0.5, 0.8) + beta KL, -min(-0.5, -0.8)
LOSS = (-1.3 - 0.5 + 0.1 * KL + 0.8) / 3
# clipped: none; -0.5 + beta (KL + 0.5 (1 - 2)); clipped: none; no token
GRADIENT = [[0.0, (-0.5 + 0.1 * (KL - 0.5)) / 3], [0.0, 0.0]]


def by_hand(trainer, monkeypatch, advantages):
    """The loss of the two answers, and its gradient for their log-probabilities."""
    ratios, reference = torch.tensor(RATIOS), torch.tensor(REFERENCE_OVER_POLICY)
    logps = (math.log(0.5) + ratios.log()).requires_grad_()
    given = (logps, torch.zeros(2, 2), None)
    monkeypatch.setattr(trainer, "_get_per_token_logps_and_entropies", lambda *_, **__: given)
    trainer.current_gradient_accumulation_steps = 1  # set by TRL when training begins
    trainer.model.train()
    mask = torch.tensor([[1, 1], [1, 0]])
    tokens = {"prompt_ids": mask[:, :1], "prompt_mask": mask[:, :1], "completion_ids": mask, "completion_mask": mask}
    others = {
        "old_per_token_logps": torch.full((2, 2), math.log(0.5)),
        "ref_per_token_logps": (logps + reference.log()).detach(),
    }
    credit = {"advantages": advantages, "num_items_in_batch": torch.tensor(3)}
    loss = trainer._compute_loss(trainer.model, {**tokens, **others, **credit})
    loss.backward()
    return loss.item(), logps.grad


def test_the_loss_of_two_answers_is_the_number_worked_by_hand(recipe, tmp_path, monkeypatch):
    trainer = make_trainer(recipe(epsilon=0.2, epsilon_high=0.3), tmp_path / "run")
    loss, gradient = by_hand(trainer, monkeypatch, torch.tensor([1.0, -1.0]))
    assert loss == pytest.approx(LOSS, abs=1e-6)
    torch.testing.assert_close(gradient, torch.tensor(GRADIENT))


def test_the_loss_of_two_dialogues_is_the_number_worked_by_hand(write_recipe, marrow, tmp_path, monkeypatch):
    path = write_recipe(
        "grpo", data={"train": str(marrow / "prompt/align")}, rewards=[{"name": "dialogue_consistency"}],
        dialogue={"credit": "turn"}, trainer={**SGD, "epsilon": 0.2, "epsilon_high": 0.3, "max_completion_length": 400},
    )  # fmt: skip
    trainer = make_trainer(read_recipe(path), tmp_path / "run")
    loss, gradient = by_hand(trainer, monkeypatch, torch.tensor([[1.0, 1.0], [-1.0, 0.0]]))
    assert loss == pytest.approx(LOSS, abs=1e-6)
    torch.testing.assert_close(gradient, torch.tensor(GRADIENT))
