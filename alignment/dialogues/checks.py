"""What is checked of each row before a model is trained on dialogues (of the recipe: ``config/dialogue_faults.py``).

A row whose reference dialogue does not fit is left out, with its reason, and counted in the log; what has no meaning
here at all (an image that first appears in a later turn, a row without a dialogue) stops the run.
"""

import logging
from collections import Counter
from typing import Any

from datasets import Dataset

from alignment.config.recipe import Recipe
from alignment.dialogues.turns import rendered
from alignment.models.loading import max_context
from alignment.shared_prefix.image_rows import undecoded
from data_builders.dialogues.writer import transcript
from rewards.config.input_error import InputError
from rewards.dialogues.dialogue import Dialogue, read_dialogue

logger = logging.getLogger(__name__)


def dialogues_that_fit(recipe: Recipe, model: Any, processor: Any, data: Dataset) -> Dataset:
    """The rows to train on.

    Raises: InputError if a row holds no dialogue, one opens a later turn with an image, images are missing, or no
    dialogue fits.
    """
    whole = recipe.trainer.get("max_completion_length", 256)
    context = max_context(model)
    named = data["id"] if "id" in data.column_names else [str(k) for k in range(len(data))]
    reasons: Counter[str] = Counter()
    kept: list[int] = []
    images = [len(row or []) for row in undecoded(data.select_columns(["images"]))["images"]]
    for k, (name, column) in enumerate(zip(named, data["dialogue"], strict=True)):
        dialogue = _dialogue(name, column, images[k])
        reason = _unfit(processor, dialogue, whole=whole, context=context)
        reasons[reason] += 1
        if not reason:
            kept.append(k)
    for reason, count in reasons.items():
        if reason:
            logger.warning("%d of %d dialogues left out: %s.", count, len(data), reason)
    if not kept:
        raise InputError(f"data.train: no dialogue is left: {', '.join(filter(None, reasons))}.")
    return data.select(kept)


def _dialogue(name: str, column: str | None, num_images: int) -> Dialogue:
    """The dialogue of a row, whose images all open its first turn."""
    if not column:
        raise InputError(f"data.train: row {name} holds no dialogue. Build a set of dialogues only (tasks: {{}}).")
    dialogue = read_dialogue(column)
    later = [k for k, turn in enumerate(dialogue.turns[1:], start=2) if turn.images]
    if later:
        raise InputError(
            f"data.train: row {name}: turn {later[0]} opens with an image; in GRPO over dialogues all images must "
            "open the first turn. Rebuild with image_turns of 1."
        )
    opening = dialogue.turns[0].images
    if opening != num_images:
        raise InputError(f"data.train: row {name}: its dialogue opens with {opening} images, but it has {num_images}.")
    return dialogue


def _unfit(processor: Any, dialogue: Dialogue, *, whole: int, context: int | None) -> str:
    """Why the reference dialogue does not fit, or nothing. Tokens of images are counted only in the rollout."""
    messages = transcript(dialogue)
    opening = _num_tokens(processor, rendered(processor, messages[:1], ask=True))
    everything = _num_tokens(processor, rendered(processor, messages))
    if context is not None and everything > context:
        return f"with its true answers longer than the model's context of {context} tokens"
    if everything - opening > whole:
        return f"with its true answers longer than trainer.max_completion_length ({whole} tokens)"
    return ""


def _num_tokens(processor: Any, text: str) -> int:
    return len(processor.tokenizer.encode(text, add_special_tokens=False))
