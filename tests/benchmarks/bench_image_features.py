"""What a frozen tower's features kept on disk save: SFT with the tower computed anew, filling the disk, and reading it.

Run: python tests/benchmarks/bench_image_features.py    (1 CPU core, 2 GB, about 2 min)
The tower is run without gradients as it is frozen, so what can be saved is its forward pass.
"""

import json
import os
import tempfile
from pathlib import Path

from alignment.checks.read_recipe import read_recipe
from alignment.training.run import run
from data_builders.build.build import build
from data_builders.build.build_spec import read_spec

ROOT = Path(__file__).parents[2]
MODEL = ["model.image_size=256", "model.freeze=[vision, projector]"]
TRAINER = ["trainer.max_steps=60", "trainer.per_device_train_batch_size=8", "trainer.dataloader_num_workers=0"]


def seconds(folder: Path, name: str, *, cached: bool) -> float:
    """Seconds of one training run of 60 steps."""
    settings = [f"data.train={folder}/data/instruction/sft", f"output={folder}/{name}", "trainer.save_strategy=no"]
    settings += [*MODEL, *TRAINER, f"model.cache_image_features={str(cached).lower()}"]
    done = run(read_recipe(ROOT / "recipes/sft/phantom_chest.yaml", settings))
    lines = [json.loads(line) for line in (done / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return next(line["train_runtime"] for line in lines if "train_runtime" in line)


def main() -> None:
    """Prints the seconds of each run, thrice in turn, and the least of each against the least without."""
    took: dict[str, list[float]] = {"computed": [], "written": [], "read": []}
    for k in range(3):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            os.environ["CLINALIGN_CACHE"] = str(folder / "cache")
            spec = ["source.patients=400", "source.size=256", f"source.seed={k}", f"output={folder}/data"]
            build(read_spec(ROOT / "recipes/data/phantom_chest.yaml", spec))
            for name, cached in (("computed", False), ("written", True), ("read", True)):
                took[name].append(seconds(folder, name, cached=cached))
            size = sum(file.stat().st_size for file in (folder / "cache").rglob("*.safetensors"))
    best = {name: min(runs) for name, runs in took.items()}
    for name, runs in took.items():
        listed = ", ".join(f"{s:.1f}" for s in runs)
        print(f"features {name}: {listed} s, {best['computed'] / best[name]:.2f} times as fast")
    print(f"on disk: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
