"""GRPO whose update is seen: a reward in which any model's answers differ, the same answers anywhere, weights compared.

With beta 0 and one iteration the loss of GRPO is 0 whatever the code does, and where all answers of a group earn the
same so is the gradient. Here a reference pulls, answers are used twice, and an untrained model's answers earn unlike
amounts.
"""

import zlib
from pathlib import Path

import torch

from alignment.models.loading import load_model
from alignment.reward_functions.adapter import TrlReward

PAID = [{"name": "length", "min_words": 8}]
"""In an untrained model's eight tokens one to three are whole words."""
SGD = {
    "optim": "sgd", "learning_rate": 0.03, "max_grad_norm": 1.0e9, "lr_scheduler_type": "constant", "seed": 5,
    "max_steps": 3, "beta": 0.1, "num_iterations": 2, "epsilon": 0.1, "num_generations": 4, "max_completion_length": 8,
}  # fmt: skip
"""Plain steps down the gradient, uncut: weights differ where gradients do, by as much, and not where rounding does."""


def weights_of(place):
    """The weights of a model, or of one saved in this folder, by name."""
    model = load_model(str(place)) if isinstance(place, Path) else place
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def largest_difference(one, other):
    """Between any two weights of the same name."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def assert_moved_alike(one, other, start, *, within):
    """The weights are equal to ``within`` of how far they have come from ``start``."""
    moved = largest_difference(start, other)
    assert moved > 1e-3
    assert largest_difference(one, other) <= within * moved


class Letters:
    """A reward that judges turns, in which also an untrained model's turns differ: by their different letters."""

    name, columns, optional, tasks, bounds = "letters", ("dialogue",), (), None, (0.0, 100.0)

    def read_of(self, columns):
        return {"dialogue": columns["dialogue"]}

    def by_turn(self, turns, **_):
        return [len(set(turn)) / 10 for turn in turns], 0.0

    def __call__(self, turns, **_):
        return sum(self.by_turn(turns)[0])

    def components(self, *_, **__):
        return {}


def pay_for_letters(trainer):
    """Lets GRPO over dialogues pay for letters in place of its own reward."""
    trainer.reward_funcs = [TrlReward(Letters())]


def force_answers(trainer):
    """Lets the trainer generate, then puts in place answers that follow from the prompt and the place in its group.

    What a model samples differs with the number of processes; these do not.
    """
    generate, tokenizer = trainer._generate_single_turn, trainer._tokenizer
    words = [k for k in range(len(tokenizer)) if tokenizer.decode([k]).startswith(" ")]

    def answer(prompt, place):
        seed = zlib.crc32(bytes(str((prompt, place)), "ascii"))
        chosen = torch.randint(len(words), (3 + place,), generator=torch.Generator().manual_seed(seed)).tolist()
        return [*(words[k] for k in chosen), tokenizer.eos_token_id]

    def forced(prompts, images, fields, num_generations, *more):
        generate(prompts, images, fields, num_generations, *more)
        before = trainer.accelerator.process_index * len(prompts)
        return [answer(prompt, (before + k) % num_generations) for k, prompt in enumerate(prompts)], None

    trainer._generate_single_turn = forced
