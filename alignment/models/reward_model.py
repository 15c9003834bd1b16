"""A reward model from any VLM: its backbone and a scalar head on the last token of an answer (Bradley-Terry).

Answers to one prompt share its forward (``shared_prefix/layout.py``). Saved as the VLM's own checkpoint without its
language head and with ``score.weight``, beside the processor. Left out: heads that pool over tokens, and scores of
steps.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from alignment.shared_prefix.forward import model_inputs
from alignment.shared_prefix.layout import Batch
from alignment.shared_prefix.prompt_groups import Group, collated, group
from alignment.shared_prefix.support import Setting, resolved
from data_builders.imaging.images import pixels

OF_BACKBONE = ("answer_positions", "answer_labels", "answer_lengths", "segments")


class RewardModel(PreTrainedModel):
    """A backbone (``model``) with a linear head (``score``) from its hidden size to one number."""

    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, backbone: PreTrainedModel, *, seed: int = 0) -> None:
        super().__init__(backbone.config)
        self.config.num_labels = 1
        self.model = backbone
        width = backbone.config.get_text_config().hidden_size
        drawn = torch.randn(1, width, generator=torch.Generator().manual_seed(seed)) / (width + 1) ** 0.5
        self.score = nn.Linear(width, 1, bias=False, dtype=backbone.dtype)
        self.score.weight.data = drawn.to(backbone.dtype)
        self.post_init()

    def init_weights(self) -> None:
        """Nothing is drawn anew: the backbone came with its weights."""

    def forward(self, answer_ends: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """Scores (A) in float32 from the hidden states at ``answer_ends`` (A), flat indices into (B, L)."""
        hidden_BLD = self.model(**inputs, use_cache=False).last_hidden_state
        return self.score(hidden_BLD.flatten(0, 1)[answer_ends])[:, 0].float()


def answer_ends(batch: Batch) -> torch.Tensor:
    """Flat index into (B, L) of the last token of each answer (A), in the order of the answers."""
    segments_BL = batch["segments"]
    last_BL = segments_BL > 0
    last_BL[:, :-1] &= segments_BL[:, :-1] != segments_BL[:, 1:]
    return last_BL.flatten().nonzero()[:, 0]


def answer_scores(model: Any, batch: Batch) -> torch.Tensor:
    """One forward: the score of each answer (A)."""
    inputs = {name: values for name, values in model_inputs(model, batch).items() if name not in OF_BACKBONE}
    return model(answer_ends=answer_ends(batch), **inputs)


def shares_prompt(setting: Setting, model: Any) -> bool:
    """Whether answers share a forward. Where the kernel takes no mask they do not: scores have no cached form."""
    return resolved(setting, model) == "packed"


def reward_model_on(vlm: Any, *, seed: int = 0) -> RewardModel:
    """A fresh head on the backbone of a loaded VLM; an adapter is merged first."""
    if isinstance(vlm, PeftModel):
        vlm = vlm.merge_and_unload()
    return RewardModel(vlm.base_model, seed=seed)


@torch.inference_mode()
def scores_of(
    model: Any,
    processor: Any,
    rows: Sequence[Mapping[str, Any]],
    *,
    batch_size: int = 64,
    shared_prefix: Setting = "auto",
) -> list[list[float]]:
    """The score of each answer of each row (``images``, ``prompt``, and ``answers`` as texts), in nats.

    ``batch_size``: answers in one forward, except that those of one row stay together.
    """
    shared = shares_prompt(shared_prefix, model)
    groups = [_prompt_group(processor, row) for row in rows]
    found: list[list[float]] = []
    for chunk in _chunks(groups, batch_size):
        batch = {k: v.to(model.device) for k, v in collated(processor, chunk, shared=shared).items()}
        scores = iter(answer_scores(model, batch).tolist())
        found += [[next(scores) for _ in one.answers] for one in chunk]
    return found


def _prompt_group(processor: Any, row: Mapping[str, Any]) -> Group:
    answers = [[{"role": "assistant", "content": text}] for text in row["answers"]]
    return group(
        processor, [pixels(i) for i in row["images"]], [_unfilled(message) for message in row["prompt"]], answers
    )


def _unfilled(message: dict[str, Any]) -> dict[str, Any]:
    """The message with bare image blocks, as rows have them; TRL hands prompts over with the images in them."""
    content = message["content"]
    if isinstance(content, str):
        return message
    return {**message, "content": [{"type": "image"} if block["type"] == "image" else block for block in content]}


def _chunks(groups: Sequence[Group], size: int) -> Iterator[list[Group]]:
    """Groups in turn, with and without images apart: a processor takes no batch of both."""
    chunk: list[Group] = []
    for one in groups:
        full = sum(len(g.answers) for g in chunk) + len(one.answers) > size
        if chunk and (full or bool(chunk[0].images) != bool(one.images)):
            yield chunk
            chunk = []
        chunk.append(one)
    if chunk:
        yield chunk
