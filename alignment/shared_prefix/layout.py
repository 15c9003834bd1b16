"""One prompt, many answers, computed once; exact to rounding.

A row is laid out as ``[prompt | answer 1 | ... | answer G | padding]`` and goes through the model once: an answer's
positions go on from the prompt's last one, and its tokens attend to the prompt and to themselves only. Every number
equals that of the repeated layout (the prompt once for each answer), which is the same layout with one answer a row.

Kernels that take no mask (flash attention) get the same from a cache (``shared_prefix/key_value_cache.py``).
Shape suffixes: B rows, L columns, A answers of the batch, N answer tokens of the batch.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from peft import PeftModel
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from alignment.shared_prefix.key_value_cache import MARK, TOKEN_FIELDS, continue_from_cache
from rewards.config.input_error import InputError

Setting = Literal["auto", "on", "cached", "off"]
Form = Literal["packed", "cached", "repeated"]
Batch = dict[str, torch.Tensor]
PADDING = -1
OWN_FIELDS = ("segments", "answer_positions", "answer_labels", "answer_lengths")
# Proven equal to the repeated layout by tests/alignment/test_shared_prefix_families.py.
PROVEN = (
    *("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava", "llava_next", "llava_onevision"),
    *("gemma3", "idefics3", "smolvlm", "internvl"),
)
MASKED_KERNELS = ("sdpa", "eager", "flex_attention")
logger = logging.getLogger(__name__)


def refusal(model: Any) -> str | None:
    """Why this model can share a prefix in no form, or None if it can."""
    config = base_model(model).config
    text = config.get_text_config()
    if config.model_type not in PROVEN:
        return f"{config.model_type} is not among the families proven exact ({', '.join(PROVEN)})"
    if getattr(text, "sliding_window", None) and "sliding_attention" not in (getattr(text, "layer_types", None) or ()):
        return f"{text.model_type} slides its attention window in a way that is not handled"
    if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
        return "a prompt-learning adapter puts its own tokens before the prompt"
    return None


def resolved(setting: Setting, model: Any, *, checkpointing: bool = False) -> Form:
    """The form in which answers are scored: ``packed`` where the attention kernel takes a mask, else ``cached``.

    ``auto`` falls back to the repeated layout with one line in the log.

    Args:
        setting: the recipe's; ``cached`` asks for that form whatever the kernel.
        model: the policy.
        checkpointing: whether training recomputes activations, which no cache survives.

    Raises: InputError if ``on`` or ``cached`` is asked of a model that cannot.
    """
    if setting == "off":
        return "repeated"
    kernel = base_model(model).config.get_text_config()._attn_implementation
    cached = setting == "cached" or kernel not in MASKED_KERNELS
    reason = refusal(model)
    if reason is None and cached and checkpointing:
        why = "as asked" if setting == "cached" else f"as '{kernel}' takes no mask"
        reason = f"through a cache, {why}, it needs trainer.activation_checkpointing: false"
    if reason and setting != "auto":
        raise InputError(f"model.shared_prefix: '{setting}' is not possible: {reason}. Use 'auto' or 'off'.")
    if reason:
        logger.warning("shared prefix is off: %s; every answer gets its own copy of the prompt.", reason)
        return "repeated"
    return "cached" if cached else "packed"


def base_model(model: Any) -> Any:
    """The model beneath adapters and engines."""
    model = getattr(model, "module", model)
    return model.get_base_model() if isinstance(model, PeftModel) else model


def packed(
    prompt: Batch, answers: Sequence[Sequence[Sequence[int]]], *, pad_token_id: int, max_length: int | None = None
) -> Batch:
    """The packed batch of prompts (padded on the right, with their pixels) and the token ids of each row's answers.

    Gains ``segments`` (B, L): 0 prompt, k answer k of the row, -1 padding; ``answer_positions`` (N): the flat index of
    the position that predicts a token; ``answer_labels`` (N); ``answer_lengths`` (A): tokens of every answer in turn.

    Args:
        prompt: what the processor gives for the prompts alone.
        answers: for each row, one or more answers. An empty answer has log-probability 0.
        pad_token_id: fills the columns behind a row's last answer.
        max_length: prompt and answer together are cut to this many tokens, as TRL does.

    Raises: InputError if a prompt alone is longer than ``max_length``.
    """
    lengths = prompt["attention_mask"].sum(dim=1).tolist()
    answers = [[_cut(a, length, max_length) for a in row] for row, length in zip(answers, lengths, strict=True)]
    width = max(length + sum(map(len, row)) for row, length in zip(answers, lengths, strict=True))
    batch = {k: v for k, v in prompt.items() if k != "attention_mask"}
    for name in ("input_ids", *(f for f in TOKEN_FIELDS if f in prompt)):
        fill = pad_token_id if name == "input_ids" else 0
        batch[name] = _widened(prompt[name], prompt["attention_mask"], width, fill)
    segments_BL = torch.full((len(lengths), width), PADDING)
    positions: list[torch.Tensor] = []
    for b, (row, length) in enumerate(zip(answers, lengths, strict=True)):
        segments_BL[b, :length] = 0
        start = length
        for k, answer in enumerate(row, 1):
            stop = start + len(answer)
            batch["input_ids"][b, start:stop] = torch.tensor(answer, dtype=torch.long)
            segments_BL[b, start:stop] = k
            before = torch.tensor([length - 1, *range(start, stop - 1)][: len(answer)], dtype=torch.long)
            positions.append(b * width + before)
            start = stop
    flat = [token for row in answers for answer in row for token in answer]
    return batch | {
        "segments": segments_BL,
        "answer_positions": torch.cat(positions),
        "answer_labels": torch.tensor(flat, dtype=torch.long),
        "answer_lengths": torch.tensor([len(answer) for row in answers for answer in row]),
    }


def _cut(answer: Sequence[int], prompt_length: int, max_length: int | None) -> Sequence[int]:
    if max_length is None:
        return answer
    if prompt_length > max_length:
        raise InputError(f"trainer.max_length: {max_length} is shorter than a prompt ({prompt_length} tokens).")
    return answer[: max_length - prompt_length]


def _widened(values: torch.Tensor, mask: torch.Tensor, width: int, fill: int) -> torch.Tensor:
    """The prompt's columns in ``width`` columns, everything behind the prompt filled."""
    out = values.new_full((len(values), width), fill)
    columns = min(width, values.shape[1])
    out[:, :columns] = values.masked_fill(mask == 0, fill)[:, :columns]
    return out


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


def answer_sums(token_values_N: torch.Tensor, answer_lengths_A: torch.Tensor) -> torch.Tensor:
    """Sums over each answer's tokens (A).

    >>> answer_sums(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1, 0, 2])).tolist()
    [1.0, 0.0, 6.0]
    """
    answer_N = torch.repeat_interleave(
        torch.arange(len(answer_lengths_A), device=answer_lengths_A.device), answer_lengths_A
    )
    return token_values_N.new_zeros(len(answer_lengths_A)).index_add(0, answer_N, token_values_N)


def by_answer(token_values_N: torch.Tensor, answer_lengths_A: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The values as a table (A, T), padded with 0, and its mask (A, T): for terms that look at single tokens."""
    parts = token_values_N.split(answer_lengths_A.tolist())
    table = torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
    columns = torch.arange(table.shape[1], device=table.device)
    return table, columns < answer_lengths_A[:, None]


def tokens_computed(batch: Batch) -> tuple[int, int]:
    """Tokens that went through the model, and tokens that the repeated layout would have added."""
    segments_BL = batch["segments"]
    prompt_B = (segments_BL == 0).sum(dim=1)
    answers_B = segments_BL.amax(dim=1)
    return int((segments_BL != PADDING).sum()), int((prompt_B * (answers_B - 1).clamp(min=0)).sum())


def repeated(rows: Iterable[tuple[Any, Sequence[Any]]]) -> list[tuple[Any, list[Any]]]:
    """The repeated layout: one row for each answer, in the order of the answers.

    >>> repeated([("p", ["a", "b"]), ("q", ["c"])])
    [('p', ['a']), ('p', ['b']), ('q', ['c'])]
    """
    return [(prompt, [answer]) for prompt, answers in rows for answer in answers]
