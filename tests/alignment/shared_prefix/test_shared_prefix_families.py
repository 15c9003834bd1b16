"""The shared prefix against the repeated layout, family by family: log-probabilities and gradients.

The reference is the plainest there is: every prompt with every answer alone, the model's own mask and positions,
full logits, ``log_softmax``.
"""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from trl.trainer.utils import add_fused_lm_head

from alignment.shared_prefix.forward import answer_outputs, score_answers_only
from alignment.shared_prefix.layout import answer_sums, packed
from alignment.shared_prefix.support import base_model
from tests.alignment.models.tiny_families import FAMILIES, PAD, Row, build, prompt_inputs, recompute, rows

pytestmark = pytest.mark.filterwarnings("default")


def alone(family, model, row, answer):
    """Summed log-probability of one answer, by the model's own forward on prompt and answer alone."""
    single = Row(row.before, [*row.after, *answer], [], row.images)
    inputs = prompt_inputs(family, base_model(model), [single])
    logits = model(**inputs).logits[0].float()
    logps = logits[:-1].log_softmax(-1).gather(1, inputs["input_ids"][0, 1:, None])[:, 0]
    return logps[-len(answer) :].sum()


def one_by_one(family, model, batch):
    return torch.stack([alone(family, model, row, answer) for row in batch for answer in row.answers])


def together(family, model, batch):
    """The same sums from one forward of the packed batch."""
    inputs = packed(prompt_inputs(family, base_model(model), batch), [r.answers for r in batch], pad_token_id=PAD)
    return answer_sums(answer_outputs(model, inputs).log_probs[0], inputs["answer_lengths"])


def prepared(model):
    add_fused_lm_head(base_model(model))
    score_answers_only(model)
    return model


def gradients(model, sums):
    """Gradients of a loss that weighs every answer differently."""
    model.zero_grad()
    weights = torch.linspace(-1.0, 1.5, len(sums))
    (weights * sums).sum().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(family, model, batch, *, logp=2e-4, relative=1e-4):
    want, got = one_by_one(family, model, batch), together(family, model, batch)
    torch.testing.assert_close(got, want, atol=logp, rtol=0)
    want_grads, got_grads = gradients(model, want), gradients(model, got)
    assert want_grads.keys() == got_grads.keys()
    assert any(g.abs().max() > 0 for g in want_grads.values())
    whole = torch.stack([g.norm() for g in want_grads.values()]).norm().item()
    for name, gradient in want_grads.items():  # some are zero but for rounding, such as the keys' biases
        error = (gradient - got_grads[name]).norm().item()
        assert error < relative * max(gradient.norm().item(), 0.01 * whole), name


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_and_gradients_equal_the_repeated_layout(family, attention):
    assert_same(family, prepared(build(family, attention)), rows())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_image_changes_every_answer(family):
    model, batch = prepared(build(family)), rows()[:1]
    other = [Row(batch[0].before, batch[0].after, batch[0].answers, [batch[0].images[0].flip(1) * 2])]
    with torch.no_grad():
        change = (together(family, model, batch) - together(family, model, other)).abs()
    assert change.min() > 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_exact_with_gradient_checkpointing_and_a_frozen_tower(family):
    model = prepared(build(family)).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("vision" not in name and "visual" not in name)
    recompute(model)
    assert_same(family, model, rows()[:2])


@pytest.mark.parametrize("family", ["qwen2_5_vl", "idefics3", "gemma3"])
def test_exact_with_lora(family):
    base = prepared(build(family))
    torch.manual_seed(3)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    model = get_peft_model(base, config)
    assert_same(family, model, rows()[:2])
    assert all(p.requires_grad == ("lora_" in n) for n, p in model.named_parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_close_in_bfloat16(family):
    model = prepared(build(family)).bfloat16()
    batch = [Row(r.before, r.after, r.answers, [i.bfloat16() for i in r.images]) for r in rows()[:2]]
    with torch.no_grad():
        want, got = one_by_one(family, model, batch), together(family, model, batch)
    torch.testing.assert_close(got, want, atol=0.5, rtol=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_answer_a_row_is_the_repeated_layout(family):
    model, batch = prepared(build(family)), rows()
    split = [Row(r.before, r.after, [a], r.images) for r in batch for a in r.answers]
    with torch.no_grad():
        torch.testing.assert_close(together(family, model, split), together(family, model, batch), atol=2e-4, rtol=0)


def test_text_only_rows_alone_are_exact():
    model = prepared(build("qwen3_vl"))
    assert_same("qwen3_vl", model, [Row([5, 6], [7, 8], [[9, 10], [11]]), Row([5], [6], [[12, 13, 14]])])
