"""Do trainer and sampler (vLLM) see the same prompt? Asked of the first answers of a run, before its first step.

A sampler processes images by itself. With another pixel budget it makes another number of image tokens, or the same
number from other pixels, and training goes on, off-policy, without a word. So prompts and image tokens must be equal,
and the log-probabilities of the answers' first tokens must agree. One budget reaches both: ``vllm_pixels``.
Left out: later tokens, which differ where kernels differ, and are corrected by TRL's importance sampling.
"""

import statistics
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from rewards.config.input_error import InputError

TOLERANCE = 0.25
CURE = (
    "Trainer and sampler must have one pixel budget: set model.max_pixels (it reaches the processor, and vLLM's "
    "mm_processor_kwargs where it is colocated) and start a vLLM server with "
)


@dataclass(frozen=True)
class FirstToken:
    """A prompt as one side saw it, and the log-probability (nats) that this side gives an answer's first token."""

    prompt_ids: Sequence[int]
    token: int
    logprob: float | None


def check_sampler(
    trainer: Sequence[FirstToken],
    sampler: Sequence[FirstToken],
    *,
    image_token_id: int | None,
    pixels: dict[str, Any],
    tolerance: float = TOLERANCE,
) -> None:
    """Nothing where both sides agree on every prompt and, in the median, on the first token's log-probability.

    Args:
        trainer: how the trainer sees the prompts, and what it gives the tokens that the sampler drew.
        sampler: the same rows as the sampler saw them.
        image_token_id: the placeholder of which an image takes many.
        pixels: the trainer's image sizes, as ``vllm_pixels`` gives them; for the cure.
        tolerance: in nats. Kernels and bfloat16 cost hundredths, another image tenths and more.

    Raises: InputError that names the pixel budget.
    """
    cure = f"{CURE}--mm-processor-kwargs '{pixels}'."
    for row, (ours, theirs) in enumerate(zip(trainer, sampler, strict=True)):
        image_tokens = [list(side.prompt_ids).count(image_token_id) for side in (ours, theirs)]  # pyright: ignore
        if image_tokens[0] != image_tokens[1]:
            raise InputError(
                f"vLLM: prompt {row} has {image_tokens[0]} image tokens in the trainer, {image_tokens[1]} in the "
                f"sampler (of {len(ours.prompt_ids)} and {len(theirs.prompt_ids)} tokens). {cure}"
            )
        if list(ours.prompt_ids) != list(theirs.prompt_ids):
            raise InputError(
                f"vLLM: prompt {row} has {len(ours.prompt_ids)} tokens in the trainer, {len(theirs.prompt_ids)} in the "
                "sampler, or other ones: its tokenizer or chat template is not that of model.path."
            )
    apart = [
        abs(ours.logprob - theirs.logprob)
        for ours, theirs in zip(trainer, sampler, strict=True)
        if ours.logprob is not None and theirs.logprob is not None
    ]
    if apart and statistics.median(apart) > tolerance:
        raise InputError(
            f"vLLM: the first token's log-probability differs from the trainer's by {statistics.median(apart):.3f} "
            f"nats (median of {len(apart)} answers; {tolerance} is allowed): it sees other images or weights. {cure}"
        )


def vllm_pixels(processor: Any) -> dict[str, Any]:
    """``mm_processor_kwargs`` that give vLLM's image processor the sizes of this one, whatever set them."""
    images = getattr(processor, "image_processor", None)
    return {} if images is None else {"size": dict(images.size)}


@contextmanager
def one_pixel_budget(processor: Any) -> Generator[None]:
    """Within it, TRL starts a colocated vLLM with this processor's sizes; TRL itself hands on none.

    vLLM would otherwise read the sizes of the model's folder, which know nothing of ``model.max_pixels``.
    """
    import trl.generation.vllm_generation as backend

    engine = getattr(backend, "LLM", None)
    if engine is None:  # vLLM is not installed; TRL says so in its own words
        yield
        return
    setattr(backend, "LLM", partial(engine, mm_processor_kwargs=vllm_pixels(processor)))  # noqa: B010
    try:
        yield
    finally:
        setattr(backend, "LLM", engine)  # noqa: B010
