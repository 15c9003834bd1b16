"""Dialogues with a model under evaluation: every answer greedy, each after all that was said before."""

from collections.abc import Sequence
from typing import Any

import torch

from alignment.dialogues.rollout import Conversation, Sampled, inputs_so_far, num_sampled, opened, roll_out
from alignment.metrics.evaluated_row import EvaluatedRow
from alignment.models.generation import decoding, unsampled_tokens


def dialogue_responses(
    model: Any, processor: Any, rows: Sequence[EvaluatedRow], *, max_answer_tokens: int
) -> list[list[str]]:
    """The model's turns in each row's dialogue. There are fewer than were scripted where its context was full."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    ends = _ends(model, processor)

    @torch.inference_mode()
    def answer(talks: list[Conversation]) -> list[Sampled]:
        inputs = inputs_so_far(processor, talks).to(model.device)
        settings = decoding() | {"max_new_tokens": max_answer_tokens, "suppress_tokens": unsampled_tokens(processor)}
        out = model.generate(**inputs, **settings)
        generated = out[:, inputs["input_ids"].shape[1] :].tolist()
        kept = [ids[: num_sampled(ids, ends)] for ids in generated]
        return [(ids, [0.0] * len(ids)) for ids in kept]

    talks = opened(processor, rows)
    roll_out(
        talks,
        answer,
        processor,
        max_answer_tokens=max_answer_tokens,
        max_tokens=lambda talk: context - len(talk.prompt_ids) if context else 2**31,
    )
    return [talk.answers for talk in talks]


def _ends(model: Any, processor: Any) -> list[int]:
    """The tokens that end a turn."""
    known = model.generation_config.eos_token_id
    listed = known if isinstance(known, list) else [known]
    return [token for token in (*listed, processor.tokenizer.eos_token_id) if token is not None]
