"""Answers from a model to prompt rows, in batches of like tasks; greedy or sampled.

Several samples of a prompt start from one prefill of it (``shared_prefix/prefill.py``). Left out: vLLM.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from trl.data_utils import prepare_multimodal_messages

from alignment.shared_prefix.image_rows import IMAGE_FIELDS, OF_IMAGES, by_row, with_images
from alignment.shared_prefix.prefill import can_share_prefill, shared_prefill
from alignment.shared_prefix.support import base_model

NEUTRAL: dict[str, Any] = {
    **{"do_sample": False, "num_beams": 1, "temperature": 1.0, "top_k": 50, "top_p": 1.0, "typical_p": 1.0},
    **{"repetition_penalty": 1.0, "length_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0},
    **{"epsilon_cutoff": 0.0, "eta_cutoff": 0.0},
    **dict.fromkeys(("min_p", "min_new_tokens", "guidance_scale", "exponential_decay_length_penalty", "stop_strings")),
    **dict.fromkeys(("bad_words_ids", "sequence_bias", "suppress_tokens", "begin_suppress_tokens")),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id", "penalty_alpha", "dola_layers")),
    **dict.fromkeys(("prompt_lookup_num_tokens",)),
}
"""What decides which token comes next, set to have no effect (transformers' own defaults)."""


def decoding(temperature: float | None = None) -> dict[str, Any]:
    """Settings of ``generate`` for greedy answers (None), or for samples of the whole distribution.

    What a checkpoint's own ``generation_config`` asks for (Qwen2.5-VL ships a repetition penalty of 1.05) changes no
    answer, since ``generate`` would take it wherever nothing is said. Its special tokens stay.
    """
    return NEUTRAL if temperature is None else NEUTRAL | {"do_sample": True, "temperature": temperature, "top_k": 0}


def unsampled_tokens(processor: Any) -> list[int]:
    """Special tokens that a model must never write: every one but the end of its turn.

    A sampled image placeholder would break the next forward pass.
    """
    tokenizer = processor.tokenizer
    return sorted(set(tokenizer.all_special_ids) - {tokenizer.eos_token_id})


def generate(
    model: Any,
    processor: Any,
    rows: Sequence[Mapping[str, Any]],
    *,
    max_new_tokens: int | dict[str, int],
    batch_size: int = 64,
    num_samples: int = 1,
    temperature: float | None = None,
    token_bias: dict[int, float] | None = None,
) -> list[list[str]]:
    """``num_samples`` answers to each row (``images`` or ``image``, ``prompt``), in row order.

    ``max_new_tokens``: one bound, or one for each ``task``. ``temperature`` None decodes greedily; otherwise the
    global torch seed decides. ``token_bias``: nats added to the logits of tokens. Rows are batched by task, so that
    short answers do not wait for long ones.
    """
    rows = [_in_blocks(row) for row in rows]
    answers: dict[int, list[str]] = {}
    for indices, limit in like_batches(rows, max_new_tokens, batch_size):
        batch = [rows[i] for i in indices]
        how: dict[str, Any] = dict(num_samples=num_samples, temperature=temperature, token_bias=token_bias)
        texts = _generate_batch(model, processor, batch, limit, **how)
        answers |= {i: texts[k * num_samples : (k + 1) * num_samples] for k, i in enumerate(indices)}
    return [answers[i] for i in range(len(rows))]


def _in_blocks(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with a list of images; of messages that are plain text, as TRL's rows have them, blocks are made."""
    row = with_images(row)
    if all(not isinstance(message["content"], str) for message in row["prompt"]):
        return row
    return row | {"prompt": prepare_multimodal_messages(row["prompt"], images=list(row["images"]))}


def like_batches(
    rows: Sequence[Mapping[str, Any]], limits: int | dict[str, int], size: int
) -> list[tuple[list[int], int]]:
    """Row indices in batches of one limit and one kind (with or without images)."""
    groups: dict[tuple[int, bool], list[int]] = {}
    for index, row in enumerate(rows):
        limit = limits if isinstance(limits, int) else limits.get(row.get("task", ""), max(limits.values()))
        groups.setdefault((limit, bool(row["images"])), []).append(index)
    return [(g[k : k + size], limit) for (limit, _), g in groups.items() for k in range(0, len(g), size)]


@torch.inference_mode()
def _generate_batch(
    model: Any,
    processor: Any,
    rows: list[dict[str, Any]],
    limit: int,
    *,
    num_samples: int,
    temperature: float | None,
    token_bias: dict[int, float] | None,
) -> list[str]:
    inputs = model_inputs(processor, rows).to(model.device)
    settings = decoding(temperature) | {"max_new_tokens": limit, "suppress_tokens": unsampled_tokens(processor)}
    if any((token_bias or {}).values()):
        settings["sequence_bias"] = {(token,): bias for token, bias in (token_bias or {}).items()}
    images = {name: inputs[name] for name in IMAGE_FIELDS if name in inputs}
    parts = by_row(images, [len(row["images"]) for row in rows])
    if num_samples == 1 or parts is None or not can_share_prefill(base_model(model)):
        out = model.generate(**inputs, **settings, num_return_sequences=num_samples)
    else:
        copies = {n: v if n in images else v.repeat_interleave(num_samples, dim=0) for n, v in inputs.items()}
        spread = [part for part in parts for _ in range(num_samples)]
        copies |= {n: torch.cat([part[n] for part in spread]) for n in OF_IMAGES if n in images}  # positions need them
        groups = [range(k * num_samples, (k + 1) * num_samples) for k in range(len(rows))]
        with shared_prefill(base_model(model), groups, spread):
            out = model.generate(**copies, **settings)
    return processor.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def model_inputs(processor: Any, rows: Sequence[Mapping[str, Any]], *, answers: list[str] | None = None) -> Any:
    """What the model is given for these prompts: tokens padded on the left, pixels where there are images.

    ``answers``: what stands behind each prompt, such as the truth to be scored.
    """
    texts = [processor.apply_chat_template(r["prompt"], add_generation_prompt=True, tokenize=False) for r in rows]
    texts = [text + answer for text, answer in zip(texts, answers or [""] * len(texts), strict=True)]
    images = {"images": [list(r["images"]) for r in rows]} if any(r["images"] for r in rows) else {}
    return processor(
        text=texts, **images, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
    )
