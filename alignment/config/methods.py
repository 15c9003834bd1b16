"""The methods of this program, an entry each: whatever differs from one to another is asked of this table.

A method is added by its entry here and the file that its ``make`` names. Left out: its formulas, and what it does not
go together with (``alignment/checks/compatibility.py``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from rewards.config.input_error import nearest

PAIR = ("chosen", "rejected")


@dataclass(frozen=True)
class Method:
    """What is to be known of a method before it runs.

    ``make``: who makes its trainer or, where nothing is trained, does its work, as ``module:function``; it stands above
    this room and is loaded late. ``config``: the class of TRL that reads ``trainer``; None: nothing is trained.
    ``columns``: those that its rows need; ``answers``: those of them that are learnt from. ``sections``: what it reads
    of the recipe's sections that only some methods do; ``needs``: those without which it does not run.
    ``generates``: its trainer answers the prompts itself, several times each. ``shares_prompts``: several answers lie
    behind one prompt. ``beta``: how strongly it is held to a reference by default; None: it knows none.
    ``batch_tokens``: its batches can be made by tokens. ``new_head``: it trains a head beside the model.
    """

    make: str
    columns: tuple[str, ...]
    config: str | None = None
    answers: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    generates: bool = False
    shares_prompts: bool = False
    beta: float | None = None
    batch_tokens: bool = False
    new_head: bool = False

    @property
    def trains(self) -> bool:
        """Whether a model comes of it."""
        return self.config is not None

    @property
    def trains_the_model_alone(self) -> bool:
        """Whether nothing but the model's own weights could be trained."""
        return self.trains and not self.new_head

    @property
    def seeds(self) -> tuple[str, ...]:
        """The keys of a recipe that hold its seeds."""
        return ("trainer.seed", "model.seed") if self.trains else ("sampling.seed",)

    @property
    def maker(self) -> Callable[..., Any]:
        """The function that ``make`` names."""
        module, _, name = self.make.partition(":")
        return getattr(import_module(module), name)


METHODS = {
    "sft": Method(
        make="alignment.training.sft:sft_trainer",
        config="SFTConfig",
        columns=("images", "prompt", "completion"),
        answers=("completion",),
        sections=("data.curriculum",),
        batch_tokens=True,
    ),
    "dpo": Method(
        make="alignment.training.dpo:dpo_trainer",
        config="DPOConfig",
        columns=("images", "prompt", *PAIR),
        answers=PAIR,
        sections=("weighting",),
        shares_prompts=True,
        beta=0.1,
        batch_tokens=True,
    ),
    "grpo": Method(
        make="alignment.training.grpo:grpo_trainer",
        config="GRPOConfig",
        columns=("images", "prompt"),
        sections=("rewards", "combination", "canaries", "dialogue"),
        needs=("rewards",),
        generates=True,
        shares_prompts=True,
        beta=0.0,
    ),
    "pairs": Method(
        make="alignment.pairs.write_pairs:write_pairs",
        columns=("images", "prompt", "facts", "task"),
        sections=("sampling",),
    ),
    "reward_model": Method(
        make="alignment.training.reward_training:reward_trainer",
        config="RewardConfig",
        columns=("images", "prompt", *PAIR),
        answers=PAIR,
        sections=("weighting",),
        new_head=True,
    ),
}


def known_method(name: str) -> str:
    """The name, if it is a method's. Raises: ValueError with the nearest name."""
    if name not in METHODS:
        raise ValueError(f"no method '{name}'.{nearest(name, [*METHODS])} There are: {', '.join(METHODS)}.")
    return name


def readers_of(section: str) -> list[str]:
    """The methods that read a section of a recipe; none where all do."""
    return [name for name, method in METHODS.items() if section in method.sections]


def trains(name: object) -> bool:
    """Whether a model comes of what a recipe's file names as its method; also where it names no method of ours."""
    return not isinstance(name, str) or name not in METHODS or METHODS[name].trains


def config_class(method: str) -> type:
    """TRL's config of a method that trains."""
    import trl

    return getattr(trl, str(METHODS[method].config))
