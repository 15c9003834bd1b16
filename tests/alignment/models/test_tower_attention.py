"""All windows of a vision tower in one call: the numbers of one call for each window."""

import contextlib
import inspect
import sys
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.attention import varlen

from alignment.models import tower_attention
from alignment.models.tower_attention import NAME, by_length, by_varlen, use_one_call, varlen_fault, windowed_modules
from tests.alignment.models.tiny_families import PATCH, build, recompute

WINDOWED = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]
GRIDS = [[1, 4, 6], [1, 10, 6], [1, 4, 6]]
"""Three images in patches: a window of Qwen2.5-VL's toy is 4 x 4, so that there are windows of 16, 8, and 4."""


def tower_and_patches(family):
    model = build(family)
    torch.manual_seed(3)
    patches = torch.randn(sum(h * w for _, h, w in GRIDS), 3 * 2 * PATCH**2)
    return model, patches, torch.tensor(GRIDS)


def features_and_gradients(model, patches, grids):
    """The tower's features, and the gradient of every parameter that has one, and of the pixels."""
    model.zero_grad()
    patches = patches.clone().requires_grad_()
    found = model.model.visual(patches, grid_thw=grids)
    features = found.pooler_output if hasattr(found, "pooler_output") else found
    features = torch.cat(list(features)) if isinstance(features, (list, tuple)) else features
    weights = torch.linspace(-1, 1, features.numel()).view_as(features)
    (weights * features).sum().backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return features.detach(), gradients | {"pixels": patches.grad}


def calls_of(monkeypatch):
    """How many calls of sdpa there are, counted in the registered function."""
    calls = []
    real = tower_attention.scaled_dot_product_attention
    monkeypatch.setattr(
        tower_attention, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or real(*a, **k)
    )
    return calls


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("family", WINDOWED)
def test_features_and_gradients_are_those_of_one_call_a_window(family, checkpointed, monkeypatch):
    model, patches, grids = tower_and_patches(family)
    want, want_gradients = features_and_gradients(model, patches, grids)
    if checkpointed:
        recompute(model.train())
    calls = calls_of(monkeypatch)
    use_one_call(model, "one_call")
    got, gradients = features_and_gradients(model, patches, grids)
    torch.testing.assert_close(got, want, atol=1e-6 * float(want.abs().max()), rtol=1e-6)
    assert gradients.keys() == want_gradients.keys()
    for name, wanted in want_gradients.items():
        assert (gradients[name] - wanted).norm() <= 2e-6 * wanted.norm() + 1e-7, name
    # two layers; images of 24 and 60 patches; the first layer of Qwen2.5-VL has windows of three sizes instead
    layers = 5 if family == "qwen2_5_vl" else 4
    assert len(calls) == layers * (2 if checkpointed else 1)


def test_the_language_model_and_towers_without_windows_are_left_alone():
    model = build("qwen2_5_vl")
    said = use_one_call(model, "one_call")
    assert said == "vision tower: all windows in one call (sdpa by window length: no GPU)"
    assert model.config.vision_config._attn_implementation == NAME
    assert model.config.get_text_config()._attn_implementation == "sdpa"
    assert model.config._attn_implementation == "sdpa"
    assert NAME not in str(model.config.to_dict())  # nothing of it is saved
    other = build("idefics3")
    assert use_one_call(other, "one_call") == "vision tower: its own attention (not split by cu_seqlens)"
    assert other.config.vision_config._attn_implementation == "sdpa"
    assert len(windowed_modules(model)) == 1


def test_without_a_gpu_auto_leaves_the_model_as_it_is():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    model = build("qwen2_5_vl")
    assert use_one_call(model) == "vision tower: its own attention (no GPU)"
    assert use_one_call(model, "windows") == "vision tower: its own attention (asked for)"
    assert model.config.vision_config._attn_implementation == "sdpa"


def test_windows_of_several_lengths_come_back_in_their_order():
    torch.manual_seed(0)
    edges = [0, 4, 4, 6, 10, 11, 15]  # one is empty
    q, k, v = torch.randn(3, 15, 2, 8)
    got = by_length(q, k, v, torch.tensor(edges, dtype=torch.int32), 0.3)
    for first, last in pairwise(edges):
        scores = torch.einsum("qhd,khd->hqk", q[first:last], k[first:last]) * 0.3
        want = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v[first:last])
        torch.testing.assert_close(got[first:last], want)


def test_torch_takes_the_arguments_that_it_is_given(monkeypatch):
    """On a CPU the kernel itself cannot run: the call is bound to its signature, by the installed torch."""
    bound = {}
    signature = inspect.signature(varlen.varlen_attn)

    def heard(*args, **kwargs):
        bound.update(signature.bind(*args, **kwargs).arguments)
        return args[0]

    monkeypatch.setattr(varlen, "varlen_attn", heard)
    q, k, v = torch.randn(3, 2, 6, 8).transpose(1, 2).unbind(0)
    by_varlen(q, k, v, torch.tensor([0, 4, 6]), None, 0.5)
    assert (bound["max_q"], bound["max_k"], bound["scale"]) == (4, 4, 0.5)
    assert bound["cu_seq_q"].dtype == bound["cu_seq_k"].dtype == torch.int32
    assert all(isinstance(bound[n], Tensor) and bound[n].is_contiguous() for n in ("query", "key", "value"))


def test_a_kernel_that_fails_or_is_wrong_is_told_and_not_taken(monkeypatch):
    varlen_fault.cache_clear()
    with contextlib.ExitStack() as later:
        later.callback(varlen_fault.cache_clear)
        monkeypatch.setattr(tower_attention, "_trial", lambda *_: 0.7)
        assert varlen_fault(80, torch.bfloat16) == "varlen_attn: its trial is 0.70 off"
        monkeypatch.setattr(tower_attention, "_trial", lambda *_: 0.004)
        assert varlen_fault(88, torch.bfloat16) is None

        def refuses(*_):
            raise RuntimeError("head size is not supported\nmore")

        monkeypatch.setattr(tower_attention, "_trial", refuses)
        assert varlen_fault(80, torch.float16) == "varlen_attn: head size is not supported"
        monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
        assert varlen_fault(96, torch.float16) == "this torch has no varlen_attn"


def test_the_trial_tells_a_wrong_kernel_from_rounding(monkeypatch):
    monkeypatch.setattr(
        tower_attention, "by_varlen", lambda q, k, v, starts, _, scale: by_length(q, k, v, starts, scale)
    )
    assert 0 < tower_attention._trial(80, torch.bfloat16, "cpu") < 0.02
    monkeypatch.setattr(
        tower_attention, "by_varlen", lambda q, k, v, *_: by_length(q, k, v, torch.tensor([0, 37]), None)
    )
    assert tower_attention._trial(80, torch.bfloat16, "cpu") > 0.05  # windows forgotten


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_varlen_is_right_for_the_heads_of_qwen():
    for size in (72, 80, 128):
        assert varlen_fault(size, torch.bfloat16) is None
