"""A vision tower's attention in one call for all windows of all images, instead of one call for each window.

Towers of the Qwen-VL kind split their patches by ``cu_seqlens``. Without the package ``flash_attn`` transformers does
so in Python: a call for every window in every layer, lengths copied to the CPU each time, and a GPU that waits. Here an
attention function is registered that takes all windows at once: by torch's ``varlen_attn`` in half precision on a GPU,
elsewhere by one call for all windows of one length. Left out: towers whose attention takes a mask.
"""

import inspect
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

NAME = "flash_in_one_call"
"""Transformers hands ``cu_seqlens`` over where the name of the attention has ``flash`` in it (5.17 to 5.24)."""
HALF = (torch.bfloat16, torch.float16)


def use_one_call(model: Any, setting: str = "auto") -> str:
    """Gives the towers of ``model`` this attention; says what was taken and why.

    ``setting``: ``auto`` (on a GPU, unless the tower has flash attention or ``eager``), ``one_call``, or ``windows``.
    """
    if setting == "windows" or (setting == "auto" and not torch.cuda.is_available()):
        return "vision tower: its own attention (" + ("asked for)" if setting == "windows" else "no GPU)")
    windowed = windowed_modules(model)
    if not windowed:
        return "vision tower: its own attention (not split by cu_seqlens)"
    # Private in transformers 5.23, whose public `set_attn_implementation` wants the tower's name, which differs by
    # family, and refuses models that cannot change theirs. Goes once it takes modules.
    taken = str(windowed[0].config._attn_implementation)
    if setting == "auto" and taken != NAME and ("flash" in taken or taken == "eager"):
        return f"vision tower: its own attention ({taken})"
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, one_call)
    for module in windowed:
        module.config._attn_implementation = NAME
    dtype = next((p.dtype for p in model.parameters() if p.dtype in HALF), torch.bfloat16)
    return f"vision tower: all windows in one call ({kernel_in_words(windowed[0].head_dim, dtype)})"


def kernel_in_words(size: int, dtype: torch.dtype) -> str:
    """Which kernel heads of this size get on this machine, and why no better one."""
    fault = varlen_fault(size, dtype) if torch.cuda.is_available() else "no GPU"
    return f"sdpa by window length: {fault}" if fault else "varlen_attn; in float32 sdpa by window length"


def windowed_modules(model: Any) -> list[Any]:
    """One module for each config by whose name modules decide how to split by ``cu_seqlens``."""
    found: dict[int, Any] = {}
    masked: set[int] = set()
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is None or not hasattr(config, "_attn_implementation"):
            continue
        forward = inspect.unwrap(type(module).forward)
        names = inspect.signature(forward).parameters
        if "cu_seqlens" in names and "is_flash_attention_requested" in forward.__code__.co_names:
            found[id(config)] = module
        if "attention_mask" in names:
            masked.add(id(config))
    return [module for key, module in found.items() if key not in masked]


def one_call(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each segment of ``cu_seq_lens_q``: (1, heads, T, size) to (1, T, heads, size)."""
    assert attention_mask is None
    assert cu_seq_lens_q is not None
    assert query.shape[0] == 1
    assert not dropout
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    if q.is_cuda and q.dtype in HALF and varlen_fault(q.shape[-1], q.dtype) is None:
        out = by_varlen(q, k, v, cu_seq_lens_q, max_length_q, scaling)
    else:
        out = by_length(q, k, v, cu_seq_lens_q, scaling)
    return out.unsqueeze(0), None


def by_varlen(q: Any, k: Any, v: Any, starts: torch.Tensor, longest: int | None, scale: float | None) -> torch.Tensor:
    """Torch's kernel for sequences of several lengths, over (T, heads, size)."""
    from torch.nn.attention.varlen import varlen_attn

    longest = int((starts[1:] - starts[:-1]).max()) if longest is None else int(longest)
    starts = starts.to(torch.int32)
    q, k, v = (states.contiguous() for states in (q, k, v))
    return varlen_attn(q, k, v, starts, starts, longest, longest, scale=scale)  # pyright: ignore[reportReturnType]


def by_length(q: Any, k: Any, v: Any, starts: torch.Tensor, scale: float | None) -> torch.Tensor:
    """One call of sdpa for all segments of one length, over (T, heads, size)."""
    edges = starts.tolist()
    groups: dict[int, list[int]] = {}
    for first, last in pairwise(edges):
        if last > first:
            groups.setdefault(last - first, []).append(first)
    parts, indices = list[torch.Tensor](), list[torch.Tensor]()
    for length, firsts in groups.items():
        index = (torch.tensor(firsts)[:, None] + torch.arange(length)).to(q.device)
        queries, keys, values = (states[index].transpose(1, 2) for states in (q, k, v))
        parts.append(scaled_dot_product_attention(queries, keys, values, scale=scale).transpose(1, 2).flatten(0, 1))
        indices.append(index.flatten())
    return torch.cat(parts)[torch.cat(indices).argsort()]


@lru_cache
def varlen_fault(size: int, dtype: torch.dtype) -> str | None:
    """Why ``varlen_attn`` cannot be used here for heads of this size; None where a small trial of it is right."""
    if find_spec("torch.nn.attention.varlen") is None:  # it is there from torch 2.10 on
        return "this torch has no varlen_attn"
    try:
        error = _trial(size, dtype)
    except (RuntimeError, TypeError, NotImplementedError, ValueError) as refused:
        return f"varlen_attn: {str(refused).splitlines()[0][:120]}"
    return None if error < 0.05 else f"varlen_attn: its trial is {error:.2f} off"


def _trial(size: int, dtype: torch.dtype, device: str = "cuda") -> float:
    """Relative error of its output and gradients, on three segments, against ``by_length`` in float32."""
    starts = torch.tensor([0, 16, 32, 37], dtype=torch.int32, device=device)
    generator = torch.Generator(device).manual_seed(0)
    drawn = torch.randn(3, 37, 2, size, generator=generator, device=device).to(dtype)
    with torch.enable_grad(), torch.autocast(device, enabled=False):
        wide, half = drawn.float().requires_grad_(), drawn.clone().requires_grad_()
        want = by_length(wide[0], wide[1], wide[2], starts, None)
        got = by_varlen(half[0], half[1], half[2], starts, 16, None)
        (want_gradient,) = torch.autograd.grad(want.square().sum(), wide)
        (gradient,) = torch.autograd.grad(got.float().square().sum(), half)
    pairs = ((got.detach(), want.detach()), (gradient, want_gradient))
    return max(float((found.float() - wanted).norm() / wanted.norm()) for found, wanted in pairs)
