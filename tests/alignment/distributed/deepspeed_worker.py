"""Trains a recipe on this rank, writes what the rank saw and saves the model; started from test_deepspeed.py.

With a third argument ``forced`` GRPO trains on answers that do not depend on the number of ranks; with ``letters`` its
dialogues earn what an untrained model's differ in.
"""

import json
import os
import sys
from pathlib import Path

from alignment.checks.read_recipe import read_recipe
from alignment.distributed.processes import leave_process_group
from alignment.training.trainer import make_trainer
from tests.alignment.training.moving_grpo import force_answers, pay_for_letters


def optimizer_elements(engine):
    """How many numbers the optimizer of a DeepSpeed engine keeps on this rank: its float32 copy and both moments."""
    zero = engine.optimizer
    copies = getattr(zero, "fp32_partitioned_groups_flat", None) or zero.single_partition_of_fp32_groups
    states = zero.optimizer.state.values()
    moments = ("exp_avg", "exp_avg_sq")  # of Adam; plain SGD has none
    return sum(c.numel() for c in copies) + sum(s[k].numel() for s in states for k in moments if k in s)


def note_images(trainer):
    """A list that gains, with each batch trained on, whether it holds images."""
    compute, seen = trainer.compute_loss, []

    def noted(model, inputs, *more, **options):
        seen.append(inputs.get("pixel_values") is not None)
        return compute(model, inputs, *more, **options)

    trainer.compute_loss = noted
    return seen


def main() -> None:
    recipe_file, out = Path(sys.argv[1]), Path(sys.argv[2])
    recipe = read_recipe(recipe_file)
    trainer = make_trainer(recipe, Path(recipe.output))
    if "forced" in sys.argv[3:] and recipe.method == "grpo":
        force_answers(trainer)
    if "letters" in sys.argv[3:]:
        pay_for_letters(trainer)
    with_images = note_images(trainer)
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    wrapped = trainer.model_wrapped
    params = list(trainer.model.parameters())
    held = sum(getattr(p, "ds_tensor", p).numel() for p in params)
    whole = sum(getattr(p, "ds_numel", p.numel()) for p in params)
    seen = {
        "engine": type(wrapped).__name__,
        "zero_stage": wrapped.zero_optimization_stage() if hasattr(wrapped, "zero_optimization_stage") else None,
        "processes": trainer.accelerator.num_processes,
        "losses": [entry["loss"] for entry in log],
        "grad_norms": [entry["grad_norm"] for entry in log],
        "reward_stds": [entry["reward_std"] for entry in log if "reward_std" in entry],
        "tokens_saved": [entry.get("tokens/saved", 0) for entry in log],
        "with_images": with_images,
        "held": held,
        "optimizer_elements": optimizer_elements(wrapped) if hasattr(wrapped, "zero_optimization_stage") else None,
        "whole": whole,
    }
    (out / f"rank{os.environ.get('RANK', '0')}.json").write_text(json.dumps(seen))
    trainer.save_model(str(out / "model"))
    leave_process_group()


if __name__ == "__main__":
    main()
