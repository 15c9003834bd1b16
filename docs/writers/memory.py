"""The memory of large recipes by ZeRO stage, as ``clinalign check`` estimates it: kept by ``make evidence MEMORY=1``.

The estimate needs no GPU and is the same on every machine, but takes ten seconds a recipe; so its figures are kept, and
the page is made of them. The rows are the demo's: build them first.
"""

import json
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from docs.writers.pieces import code, table

RECIPES = {
    "recipes/sft/qwen2_5_vl_7b_lora.yaml": 1,
    "recipes/sft/qwen2_5_vl_7b_full.yaml": 1,
    "recipes/grpo/qwen2_5_vl_7b_lora.yaml": 1,
    "recipes/dpo/qwen2_5_vl_72b_lora.yaml": 1,
    "recipes/sft/qwen2_5_vl_72b_full.yaml": 4,
}
"""Nodes of eight GPUs by recipe."""
CODE = ("alignment", *RECIPES)
"""What the estimate depends on: the commit that is kept is the last one that touched it."""
STAGES = {"zero2": "ZeRO-2", "zero3": "ZeRO-3", "zero3_offload": "ZeRO-3, offload"}
FILE = "docs/evidence/data/memory/checks.json"
INTRO = """Memory of one rank in GB on the device (beside it: on the host), 1,500 tokens a row, all of them taken for an
image's: torch's peak of allocated tensors of the largest batch, without the CUDA context (about 1 GB) and generation's
cache. What it is worth: [will it fit?](../train/cluster.md#will-it-fit). Nothing here was measured; what was stands
beside its estimate under [one GPU](gpu.md)."""

Json = dict[str, Any]


def memory_page(kept: Json) -> str:
    """The page of kept checks."""
    rows = [
        [code(check["command"]), str(check["ranks"]), *(_gigabytes(check["memory"][stage]) for stage in STAGES)]
        for check in kept["checks"]
    ]
    listed = table(["command", "ranks", *STAGES.values()], rows)
    made = f"Commit `{kept['commit']}`, {kept['day']}, transformers {kept['transformers']}; `make evidence MEMORY=1`."
    return f"# Memory by ZeRO stage\n\n{INTRO}\n\n{listed}\n\n{made}\n"


def _gigabytes(stage: Json) -> str:
    return f"{stage['device']:.2f}" + (f" ({stage['cpu']:.2f})" if stage["cpu"] else "")


def _check(recipe: str, nodes: int) -> Json:
    command = ["check", recipe, "--nodes", str(nodes), "--gpus", "8", "--tokens", "1500"]
    check = [sys.executable, "-m", "alignment", *command, "--json"]
    found = json.loads(subprocess.run(check, check=True, capture_output=True, text=True).stdout)
    memory = {stage: {k: found["memory_gb_per_rank"][stage][k] for k in ("device", "cpu")} for stage in STAGES}
    return {"command": " ".join(["clinalign", *command]), "ranks": found["ranks"], "memory": memory}


def main() -> None:
    """Keeps the checks of every recipe."""
    last = ["git", "log", "-1", "--format=%H", "--", *CODE]
    commit = subprocess.run(last, check=True, capture_output=True, text=True).stdout.strip()
    kept = {
        "commit": commit,
        "day": datetime.now(UTC).date().isoformat(),
        "transformers": version("transformers"),
        "checks": [_check(recipe, nodes) for recipe, nodes in RECIPES.items()],
    }
    Path(FILE).parent.mkdir(parents=True, exist_ok=True)
    Path(FILE).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
