"""The forward pass over a layout."""

from typing import Any

import torch

from alignment.shared_prefix.key_value_cache import MARK, continue_from_cache
from alignment.shared_prefix.layout import OWN_FIELDS, PADDING, Batch
from alignment.shared_prefix.masks import attention_mask, position_ids
from alignment.shared_prefix.support import Form, base_model


def model_inputs(model: Any, batch: Batch) -> dict[str, Any]:
    """What the model is given. Rows of one answer each need no mask of ours: that is the repeated layout."""
    inputs: dict[str, Any] = {k: v for k, v in batch.items() if k not in OWN_FIELDS}
    if int(batch["segments"].max()) <= 1:
        return inputs | {"attention_mask": (batch["segments"] != PADDING).long()}
    if getattr(base_model(model).base_model, MARK, False):
        return inputs | {"segments": batch["segments"], "position_ids": position_ids(model, batch)}
    return inputs | {"attention_mask": attention_mask(model, batch), "position_ids": position_ids(model, batch)}


def score_answers_only(model: Any, form: Form = "packed") -> None:
    """Lets TRL's fused head (``trl.trainer.utils.add_fused_lm_head``) project the answers' positions only.

    The backbone then takes ``answer_positions`` (N) and hands the head (1, N, hidden): neither prompt nor padding is
    projected, and no (tokens, vocabulary) tensor is built. ``form`` ``cached``: prompts go through a cache from now on.
    Idempotent.
    """
    backbone = base_model(model).base_model
    if form == "cached":
        continue_from_cache(backbone)
    if getattr(backbone, "_clinalign_positions", None) is not None:
        return
    chosen: list[torch.Tensor] = []
    backbone._clinalign_positions = chosen

    def take(_: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        chosen.clear()
        if "answer_positions" in kwargs:
            chosen.append(kwargs.pop("answer_positions"))
        return args, kwargs

    def give(_: Any, __: Any, output: Any) -> Any:
        if chosen:
            hidden = output.last_hidden_state
            output.last_hidden_state = hidden.reshape(-1, hidden.shape[-1])[chosen.pop()][None]
        return output

    backbone.register_forward_pre_hook(take, with_kwargs=True)
    backbone.register_forward_hook(give)


def answer_outputs(model: Any, batch: Batch, **more: Any) -> Any:
    """TRL's fused output for the answer tokens: ``log_probs`` (1, N), and what else the head was asked for."""
    return model(
        **model_inputs(model, batch),
        **more,
        use_cache=False,
        answer_positions=batch["answer_positions"],
        shift_labels=batch["answer_labels"][None],
        fused_lm_head=True,
    )
