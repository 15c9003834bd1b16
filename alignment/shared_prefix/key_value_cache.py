"""The shared prefix for kernels that take no mask (flash attention): the prompt fills a cache, answers continue it.

The prompts go through the model once and leave their keys and values, gradients kept; every answer is a row of its own
over a copy of its prompt's cache, so that nobody needs a mask but the padding's. The hidden states are laid out as the
packed form has them, so that nothing behind the backbone knows the difference. Left out: gradient checkpointing, which
takes the cache away from the layers; and the packed form's one forward, which is the faster of the two.
Shape suffixes: B rows, L columns, A answers of the batch, P columns of prompts, T columns of answers.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from alignment.config.library_names import cache_in, cache_name, recomputes_activations

MARK = "_clinalign_cached"
TOKEN_FIELDS = ("token_type_ids", "mm_token_type_ids")


def continue_from_cache(backbone: Any) -> None:
    """Lets the backbone take ``segments`` and ``position_ids`` of a packed batch in place of its mask. Idempotent."""
    if getattr(backbone, MARK, False):
        return
    forward = backbone.forward

    def continued(*args: Any, segments: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if segments is None:
            return forward(*args, **kwargs)
        assert not (backbone.training and recomputes_activations(backbone)), "checkpointing takes the cache away"
        return _through_cache(forward, segments, kwargs)

    backbone.forward = continued
    setattr(backbone, MARK, True)


def _through_cache(forward: Callable[..., Any], segments_BL: torch.Tensor, inputs: dict[str, Any]) -> Any:
    """The backbone's output, with ``last_hidden_state`` (B, L, hidden) zero where there is padding."""
    inputs = {name: value for name, value in inputs.items() if name != "attention_mask"} | {"use_cache": True}
    positions, ids_BL = inputs.pop("position_ids"), inputs.pop("input_ids")
    types = {name: inputs.pop(name) for name in TOKEN_FIELDS if name in inputs}
    places_BP, prompt_BP = _prompt_places(segments_BL)
    output = forward(
        **inputs,
        **{name: _taken(values, places_BP, prompt_BP) for name, values in ({"input_ids": ids_BL} | types).items()},
        attention_mask=prompt_BP.long(),
        position_ids=_taken(positions, places_BP, prompt_BP),
    )
    hidden = output.last_hidden_state
    whole = hidden.new_zeros(*segments_BL.shape, hidden.shape[-1])
    whole = whole.masked_scatter((segments_BL == 0)[..., None], hidden[prompt_BP])
    if bool((segments_BL > 0).any()):
        cache = {cache_name(output): cache_in(output)}
        answers = _continued(forward, segments_BL, ids_BL, positions, types, prompt_BP, cache)
        whole = whole.masked_scatter((segments_BL > 0)[..., None], answers)
    output.last_hidden_state = whole
    setattr(output, cache_name(output), None)
    return output


def _continued(
    forward: Callable[..., Any],
    segments_BL: torch.Tensor,
    ids_BL: torch.Tensor,
    positions: torch.Tensor,
    types: dict[str, torch.Tensor],
    prompt_BP: torch.Tensor,
    cache: dict[str, Any],
) -> torch.Tensor:
    """Hidden states of all answer tokens (N, hidden), answer by answer. ``cache``: by the name that forwards take."""
    rows_A, places_AT, answer_AT = _answer_places(segments_BL)
    cache_in(cache).batch_select_indices(rows_A)
    output = forward(
        input_ids=_taken(ids_BL[rows_A], places_AT, answer_AT),
        position_ids=_taken(positions[..., rows_A, :], places_AT, answer_AT),
        attention_mask=torch.cat([prompt_BP[rows_A], answer_AT], dim=1).long(),
        use_cache=True,
        **cache,
        **{name: torch.zeros_like(places_AT) for name in types if name == "token_type_ids"},
    )
    return output.last_hidden_state[answer_AT]


def _prompt_places(segments_BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For prompts padded on the left, so that each ends where its answers begin: columns (B, P) and what is no padding.

    A sliding window then counts the same distance in columns as in positions.
    """
    length_B = (segments_BL == 0).sum(dim=1)
    width = int(length_B.max())
    columns_BP = torch.arange(width, device=segments_BL.device) - (width - length_B)[:, None]
    return columns_BP.clamp(min=0), columns_BP >= 0


def _answer_places(segments_BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Row of each answer that has tokens (A), their columns (A, T), padded on the right, and what is no padding."""
    row_N, column_N = (segments_BL > 0).nonzero(as_tuple=True)
    answer_N = row_N * (segments_BL.shape[1] + 1) + segments_BL[row_N, column_N]
    counts = torch.unique_consecutive(answer_N, return_counts=True)[1].tolist()
    columns = list(column_N.split(counts))
    mask = [torch.ones_like(c, dtype=torch.bool) for c in columns]
    rows_A = torch.stack([rows[0] for rows in row_N.split(counts)])
    return rows_A, pad_sequence(columns, batch_first=True), pad_sequence(mask, batch_first=True)


def _taken(values: torch.Tensor, places: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Values (..., rows, L) at these columns, 0 at padding."""
    return values.gather(-1, places.expand(*values.shape[:-1], places.shape[-1])).masked_fill(~mask, 0)
