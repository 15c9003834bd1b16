"""How many tokens a row costs, image tokens among them, so that batches can be made of rows of like length.

An image's tokens depend on its size alone: one image of each size is processed. Left out: sizing batches by tokens;
with ``trainer.train_sampling_strategy: group_by_length`` TRL keeps the number of rows and takes the longest first, so
that a batch that does not fit memory is found at once.
"""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from alignment.prompt_groups import group


def token_counts(processor: Any, data: Dataset, answers: Sequence[str]) -> list[int]:
    """Tokens of each row: the prompt with its images, and the answers in these columns behind it."""
    of_images: dict[tuple[tuple[int, int], ...], int] = {}
    counts = []
    for row in data:
        fields: Any = row
        made = group(processor, fields["images"], fields["prompt"], [fields[name] for name in answers])
        text = sum(len(processor.tokenizer(t, add_special_tokens=False)["input_ids"]) for t in made.answers)
        plain = len(processor.tokenizer(made.prompt, add_special_tokens=False)["input_ids"])
        sizes = tuple(image.size for image in made.images)
        if sizes not in of_images:
            images = {"images": [made.images]} if sizes else {}
            of_images[sizes] = len(processor(text=[made.prompt], **images)["input_ids"][0]) - plain
        counts.append(text + plain + of_images[sizes])
    return counts


def with_lengths(data: Dataset, processor: Any, arguments: Any, answers: Sequence[str]) -> Dataset:
    """The data with the column that TRL groups by, where the arguments ask for grouping by length."""
    if arguments.train_sampling_strategy != "group_by_length":
        return data
    return data.add_column(arguments.length_column_name, token_counts(processor, data, answers))
