"""Groups of one prompt and its answers, from rows to a packed batch; likelihood of answers to evaluate or to rank.

Images are decoded and processed once a group. Left out: generation (see ``generation.py``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl import apply_chat_template
from trl.data_utils import prepare_multimodal_messages
from trl.trainer.utils import add_fused_lm_head

from alignment.shared_prefix.forward import answer_outputs, score_answers_only
from alignment.shared_prefix.layout import Batch, answer_sums, packed, repeated
from alignment.shared_prefix.support import Setting, base_model, resolved

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class Group:
    """A prompt with its images and the answers to it, rendered by the model's chat template."""

    images: list[Any]
    prompt: str
    answers: list[str]


def group(
    processor: Any,
    images: Sequence[Any],
    prompt: Messages | str,
    answers: Sequence[Messages | str],
    template: Mapping[str, Any] | None = None,
) -> Group:
    """The rendered group of a prompt and its answers (one or more). Plain texts count as rendered already.

    ``template``: further arguments of the chat template, as TRL's column ``chat_template_kwargs`` holds them.
    """
    if isinstance(prompt, str):
        return Group(list(images), prompt, [str(answer) for answer in answers])
    more: dict[str, Any] = {"chat_template_kwargs": dict(template)} if template else {}
    first, later = _divided(images, prompt)
    messages = prepare_multimodal_messages(prompt, images=first)
    completions = [prepare_multimodal_messages(a, images=later) for a in answers]  # pyright: ignore[reportArgumentType]
    rendered = [apply_chat_template({"prompt": messages, "completion": c, **more}, processor) for c in completions]
    return Group(list(images), rendered[0]["prompt"], [r["completion"] for r in rendered])


def _divided(images: Sequence[Any], prompt: Messages) -> tuple[list[Any], list[Any]]:
    """The images of a prompt, and those that open later turns. A prompt whose contents are texts shows all."""
    contents = [message["content"] for message in prompt]
    if any(isinstance(content, str) for content in contents):
        return list(images), []
    number = sum(block["type"] == "image" for content in contents for block in content)
    return list(images[:number]), list(images[number:])


def collated(processor: Any, groups: Sequence[Group], *, shared: bool, max_length: int | None = None) -> Batch:
    """The packed batch of these groups; not ``shared``: the repeated layout. Answers keep their order."""
    rows: list[tuple[Group, Sequence[str]]] = [(g, g.answers) for g in groups]
    rows = list(rows if shared else repeated(rows))
    images = [g.images for g, _ in rows]
    prompt = processor(
        text=[g.prompt for g, _ in rows],
        **({"images": images} if any(images) else {}),
        padding=True,
        padding_side="right",
        return_tensors="pt",
        add_special_tokens=False,
    )
    tokenizer = processor.tokenizer
    answers = [[tokenizer(a, add_special_tokens=False)["input_ids"] for a in texts] for _, texts in rows]
    return packed(dict(prompt), answers, pad_token_id=tokenizer.pad_token_id, max_length=max_length)


@torch.inference_mode()
def answer_logprobs(
    model: Any, processor: Any, rows: Sequence[dict[str, Any]], *, shared_prefix: Setting = "auto"
) -> list[list[float]]:
    """Summed log-probability, in nats, of each answer of each row (``images``, ``prompt``, ``answers``).

    For evaluation by likelihood and for ranking several answers; ``answers`` are messages, as ``chosen`` is.
    """
    if "forward" not in vars(base_model(model)):  # TRL's head lies over the class's own forward
        add_fused_lm_head(base_model(model))
    form = resolved(shared_prefix, model)
    score_answers_only(model, form)
    groups = [group(processor, r["images"], r["prompt"], r["answers"]) for r in rows]
    batch = collated(processor, groups, shared=form != "repeated")
    batch = {k: v.to(model.device) for k, v in batch.items()}
    sums = answer_sums(answer_outputs(model, batch).log_probs[0], batch["answer_lengths"]).tolist()
    counts = [len(g.answers) for g in groups]
    return [[sums.pop(0) for _ in range(count)] for count in counts]
