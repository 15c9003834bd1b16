"""The demo's learning curves with a shared prefix and with the prompt repeated as trl does: how far apart do they lie?

Run: make demo && python tests/benchmarks/bench_curves.py    (2 CPU cores, 1 GB, about 6 min)
DPO's curves should agree to rounding. GRPO samples: once rounding changes one token, two runs see other answers, so
what is comparable there is the first steps, and the level at the end.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from alignment.checks.read_recipe import read_recipe
from alignment.training.run import run

RUNS = {
    "dpo": (
        ["model.path=runs/phantom_chest/sft", "data.train=runs/phantom_chest/pairs/preference/pairs"],
        ["loss", "rewards/margins", "grad_norm"],
    ),
    "grpo": (["model.path=runs/phantom_chest/dpo"], ["reward", "loss", "grad_norm"]),
}


def curve(method: str, setting: str, overrides: list[str], folder: Path) -> list[dict[str, Any]]:
    """The log of a run of the demo's recipe under one setting of ``model.shared_prefix``, a line a step."""
    settings = [f"model.shared_prefix={setting}", "trainer.logging_steps=1", "trainer.save_strategy=no"]
    output = folder / f"{method}_{setting}"
    recipe = read_recipe(Path(f"recipes/{method}/phantom_chest.yaml"), [*overrides, *settings, f"output={output}"])
    lines = [json.loads(line) for line in (run(recipe) / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def main() -> None:
    """Prints, for each method and logged value, the largest difference and the means of the last 20 steps."""
    for method, (overrides, names) in RUNS.items():
        with tempfile.TemporaryDirectory() as folder:
            on, off = (curve(method, setting, overrides, Path(folder)) for setting in ("on", "off"))
        for name in names:
            one, other = (np.array([line[name] for line in lines], dtype=float) for lines in (on, off))
            apart = np.abs(one - other)
            print(
                f"{method} {name}: {len(one)} steps, apart by at most {apart.max():.1e} (first step {apart[0]:.1e}), "
                f"mean of the last 20: on {one[-20:].mean():.4f}, off {other[-20:].mean():.4f}"
            )


if __name__ == "__main__":
    main()
