"""Generation in which rows of one prompt share its prefill: the images are encoded and the cache is filled once.

Rests on steps of ``GenerationMixin`` that have no public hook: ``_prefill``, without which a model generates as ever,
and the encoding of images before it (before transformers 5.18 the prefill encodes them itself). Left out: beams, and
restarts from a filled cache.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from alignment.config.library_names import cache_in
from alignment.shared_prefix.image_rows import IMAGE_FIELDS, Fields, joined

ENCODE = "_prepare_multimodal_encoder_kwargs_for_generation"


def can_share_prefill(model: Any) -> bool:
    """Whether this model fills its cache in a step of its own."""
    return hasattr(model, "_prefill")


@contextmanager
def shared_prefill(model: Any, groups: Sequence[Sequence[int]] | None, rows: Sequence[Fields]) -> Generator[None]:
    """Within it, ``model.generate`` prefills each group of its batch once and copies the cache.

    Args:
        model: the model itself, not an adapter around it.
        groups: the rows of the batch that have the same prompt and images; None changes nothing.
        rows: each row's image fields, as ``by_row`` gives them.
    """
    if groups is None or not can_share_prefill(model) or len(groups) == sum(map(len, groups)):
        yield
        return
    first = torch.tensor([group[0] for group in groups])
    copy = torch.empty(sum(map(len, groups)), dtype=torch.long)
    for n, group in enumerate(groups):
        copy[list(group)] = n
    encode, prefill = getattr(model, ENCODE, None), model._prefill

    def encode_once(model_kwargs: dict[str, Any]) -> dict[str, Any]:
        assert encode is not None
        return encode(model_kwargs | _images_once(model_kwargs, first, rows))

    def prefill_once(input_ids: torch.Tensor, generation_config: Any, model_kwargs: dict[str, Any], **more: Any) -> Any:
        assert len(input_ids) == len(copy), "the groups are those of another batch"
        ours = model_kwargs | _tokens_once(model_kwargs, first.to(input_ids.device), len(copy))
        if encode is None:
            ours |= _images_once(model_kwargs, first, rows)
        outputs = prefill(input_ids[first.to(input_ids.device)], generation_config, ours, **more)
        outputs.logits = outputs.logits[copy.to(outputs.logits.device)]
        cache_in(outputs).batch_select_indices(copy.to(input_ids.device))
        return outputs

    steps = {"_prefill": prefill_once} | ({ENCODE: encode_once} if encode is not None else {})
    for name, step in steps.items():
        setattr(model, name, step)
    try:
        yield
    finally:
        for name in steps:
            delattr(model, name)


def _images_once(model_kwargs: dict[str, Any], first: torch.Tensor, rows: Sequence[Fields]) -> dict[str, Any]:
    """The image fields of each group's first row."""
    given = [name for name in IMAGE_FIELDS if isinstance(model_kwargs.get(name), torch.Tensor)]
    if not given:
        return {}
    fields = joined([rows[k] for k in first.tolist()])
    return {name: fields[name].to(model_kwargs[name]) for name in given}


def _tokens_once(model_kwargs: dict[str, Any], first: torch.Tensor, num_rows: int) -> dict[str, Any]:
    """Masks, positions and token types of each group's first row; images were taken care of before."""
    chosen = {}
    for name, value in model_kwargs.items():
        if isinstance(value, torch.Tensor) and name not in IMAGE_FIELDS:
            axis = 1 if name == "position_ids" and value.dim() == 3 else 0
            if value.dim() > axis and value.shape[axis] == num_rows:
                chosen[name] = value.index_select(axis, first)
    return chosen
