"""Trains a recipe on this rank and writes what the rank saw; started by torchrun from test_deepspeed.py."""

import json
import os
import sys
from pathlib import Path

from alignment.engine import leave_process_group, stay_offline
from alignment.recipe import read_recipe
from alignment.train import make_trainer


def optimizer_elements(engine):
    """How many numbers the optimizer of a DeepSpeed engine keeps on this rank: its float32 copy and both moments."""
    zero = engine.optimizer
    copies = getattr(zero, "fp32_partitioned_groups_flat", None) or zero.single_partition_of_fp32_groups
    states = zero.optimizer.state.values()
    return sum(c.numel() for c in copies) + sum(s[k].numel() for s in states for k in ("exp_avg", "exp_avg_sq"))


def main() -> None:
    recipe_file, out = Path(sys.argv[1]), Path(sys.argv[2])
    stay_offline()
    recipe = read_recipe(recipe_file)
    trainer = make_trainer(recipe, Path(recipe.output))
    trainer.train()
    wrapped = trainer.model_wrapped
    params = list(trainer.model.parameters())
    held = sum(getattr(p, "ds_tensor", p).numel() for p in params)
    whole = sum(getattr(p, "ds_numel", p.numel()) for p in params)
    seen = {
        "engine": type(wrapped).__name__,
        "zero_stage": wrapped.zero_optimization_stage() if hasattr(wrapped, "zero_optimization_stage") else None,
        "processes": trainer.accelerator.num_processes,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "tokens_saved": [entry.get("tokens/saved", 0) for entry in trainer.state.log_history if "loss" in entry],
        "held": held,
        "optimizer_elements": optimizer_elements(wrapped) if hasattr(wrapped, "zero_optimization_stage") else None,
        "whole": whole,
    }
    (out / f"rank{os.environ.get('RANK', '0')}.json").write_text(json.dumps(seen))
    leave_process_group()


if __name__ == "__main__":
    main()
