"""Positions and masks: each answer sees the prompt and itself."""

from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from alignment.shared_prefix.layout import PADDING, Batch
from alignment.shared_prefix.support import base_model


def position_ids(model: Any, batch: Batch) -> torch.Tensor:
    """Positions (B, L), or (3, B, L) where the model has M-RoPE: each answer starts at the prompt's last one + 1."""
    segments_BL = batch["segments"]
    prompt_BL = segments_BL == 0
    column_L = torch.arange(segments_BL.shape[1], device=segments_BL.device)
    rope_index = getattr(base_model(model).base_model, "get_rope_index", None)
    if rope_index is not None and "image_grid_thw" in batch:
        # on the CPU: it reads every image's grid and every row's kinds by themselves, each time waiting for a GPU
        known = {k: batch[k].cpu() for k in ("input_ids", "mm_token_type_ids", "image_grid_thw")}
        prompt, _ = rope_index(**known, attention_mask=prompt_BL.long().cpu())
        prompt = prompt.to(segments_BL.device)
    else:
        prompt = column_L.expand(1, *segments_BL.shape)
    last_B = prompt.masked_fill(~prompt_BL, -1).amax(dim=(0, 2))
    starts = torch.ones_like(prompt_BL)
    starts[:, 1:] = segments_BL[:, 1:] != segments_BL[:, :-1]
    within_BL = column_L - (column_L * starts).cummax(dim=1).values
    positions = torch.where(prompt_BL, prompt, last_B[:, None] + 1 + within_BL)
    return positions if rope_index is not None else positions[0]


def attention_mask(model: Any, batch: Batch) -> Any:
    """Who sees whom (B, 1, L, L): boolean for sdpa, additive for eager, blocks for flex; a dict where layers slide.

    Causal; an answer sees the prompt and itself; nobody sees padding but itself. Gemma 3's tokens of one image see one
    another, and its sliding layers count the distance in positions, not columns.
    """
    text = base_model(model).config.get_text_config()
    segments_BL = batch["segments"]
    query, key = segments_BL[:, :, None], segments_BL[:, None, :]
    columns = torch.arange(segments_BL.shape[1], device=segments_BL.device)
    itself = columns[:, None] == columns
    seen = (columns <= columns[:, None]) & ((key == 0) | ((key == query) & (key > 0)))
    if "token_type_ids" in batch:
        seen = seen | _same_image(batch["token_type_ids"])
    form = {"eager": _additive, "flex_attention": _blocks}.get(text._attn_implementation, _boolean)
    full = form((seen | itself)[:, None], base_model(model).dtype)
    if "sliding_attention" not in (getattr(text, "layer_types", None) or ()):
        return full
    position_BL = position_ids(model, batch)
    position_BL = position_BL[0] if position_BL.dim() == 3 else position_BL
    near = position_BL[:, :, None] - position_BL[:, None, :] < text.sliding_window
    return {
        "full_attention": full,
        "sliding_attention": form(((seen & near) | itself)[:, None], base_model(model).dtype),
    }


def _same_image(token_type_BL: torch.Tensor) -> torch.Tensor:
    """True (B, L, L) where two columns belong to the same run of image tokens."""
    image = token_type_BL == 1
    first = image.clone()
    first[:, 1:] &= ~image[:, :-1]
    run = first.long().cumsum(dim=1).masked_fill(~image, PADDING)
    return (run[:, :, None] == run[:, None, :]) & image[:, :, None]


def _boolean(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    del dtype
    return seen


def _additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


def _blocks(seen: torch.Tensor, dtype: torch.dtype) -> BlockMask:
    del dtype

    def visible(row: Any, head: Any, query: Any, key: Any) -> torch.Tensor:
        del head
        return seen[row, 0, query, key]

    rows, _, columns, _ = seen.shape
    return create_block_mask(visible, rows, None, columns, columns, device=str(seen.device))
