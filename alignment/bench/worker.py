"""One method, measured in a process of its own so that its peak memory is its own; it takes a step when it is told to.

``python -m alignment.bench.worker SETTINGS.json TOLD SAYS`` with two open file descriptors; started by
``bench/side_by_side.py``.
"""

import gc
import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Step = Callable[[dict[str, Any]], None]
FORGET_PEAK = Path("/proc/self/clear_refs")


def main() -> None:
    """Reads the settings, and measures step by step."""
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with os.fdopen(int(sys.argv[2])) as orders, os.fdopen(int(sys.argv[3]), "w") as says:

        def step_done(measured: dict[str, Any]) -> None:
            """Tells what a step took, and waits until the next may begin."""
            of_step = {"cpu_s": time.process_time() - spent["cpu_s"], "peak_mib": peak_mib() - held["mib"]}
            says.write(json.dumps(measured | of_step) + "\n")
            says.flush()
            orders.readline()
            spent["cpu_s"] = time.process_time()

        spent = {"cpu_s": time.process_time()}
        says.write(json.dumps({"weights": MEASURED[settings["kind"]](settings, step_done)}) + "\n")


held = {"mib": 0.0}
"""What the process holds when its first step begins: libraries, model, data. Peaks are what steps take beyond it."""


def first_step_begins() -> None:
    """Peaks are counted from here: what was taken before, as to load the model, is forgotten where the system can."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif FORGET_PEAK.exists():
        gc.collect()
        FORGET_PEAK.write_text("5", encoding="ascii")  # proc(5): VmHWM starts again from what is held now
    held["mib"] = peak_mib()


def peak_mib() -> float:
    """Peak memory so far, in MiB: the accelerator's where there is one, else the process's.

    Linux keeps the peak of the process that started this one in ``ru_maxrss`` (getrusage(2)), so VmHWM is read there.
    """
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.is_file() and (high_water := re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"), re.M)):
        return int(high_water[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def train(settings: dict[str, Any], step_done: Step) -> str:
    """Steps of DPO or GRPO with loss and gradient norm; ``update_s`` leaves out GRPO's generating and judging.

    A step of GRPO is one generation and the updates that use it. Returns where the weights are, before and after.
    """
    from transformers import TrainerCallback

    trainer = (ours if settings["method"].startswith("ours") else stock)(settings)
    folder = Path(settings["output"]).parent
    trainer.save_model(str(folder / "before"))
    spent = {"begun": time.perf_counter(), "preparing": 0.0}

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            """Model, optimizer and data are made; the first batch is not."""
            first_step_begins()

        def on_log(self, *_: Any, logs: dict[str, Any] | None = None, **__: Any) -> None:
            """The step's loss is logged at its end; the next batch is made after this."""
            if logs and "loss" in logs:
                took = time.perf_counter() - spent["begun"]
                reached = {"loss": float(logs["loss"]), "grad_norm": float(logs["grad_norm"])}
                step_done({"step_s": took, "update_s": took - spent["preparing"], **reached})
                spent.update(begun=time.perf_counter(), preparing=0.0)

    if settings["kind"] == "grpo":
        # Private in TRL 1.16, and where answers are generated and scored: what is timed apart from the update.
        prepare = trainer._prepare_inputs

        def timed(batch: Any) -> Any:
            begun = time.perf_counter()
            inputs = prepare(batch)
            spent["preparing"] += time.perf_counter() - begun
            return inputs

        trainer._prepare_inputs = timed
    trainer.add_callback(Clock())
    trainer.train()
    trainer.save_model(str(folder / "after"))
    return str(folder)


def ours(settings: dict[str, Any]) -> Any:
    """The trainer of clinalign."""
    from alignment.config.recipe import Recipe
    from alignment.training.trainer import make_trainer

    trainer: dict[str, Any] = dict(settings["trainer"])
    if settings["kind"] == "dpo":
        trainer["precompute_ref_log_probs"] = settings["method"] == "ours"
    recipe = Recipe.model_validate(
        {
            "method": settings["kind"],
            "output": settings["output"],
            "model": {"path": settings["model"], "shared_prefix": "on"},
            "data": {"train": settings["data"], "largest_first": False},  # in the order of stock trl
            "rewards": [{"name": "think_format"}] if settings["kind"] == "grpo" else [],  # variety takes its place
            "weighting": {"use": False},
            "trainer": trainer,
        }
    )
    made = make_trainer(recipe, Path(settings["output"]))
    if settings["kind"] == "grpo":
        _pay_for_variety(made)
    return made


def stock(settings: dict[str, Any]) -> Any:
    """TRL's trainer on the same model, data and seed."""
    import trl

    from alignment.config.foreign_code import SAFE
    from alignment.data.row_cache import ROWS, stored_rows
    from alignment.models.generation import unsampled_tokens
    from alignment.models.processors import load_processor

    processor = load_processor(settings["model"])
    options = {"output_dir": settings["output"], "report_to": "none", "bf16": False, **settings["trainer"]}
    options["model_init_kwargs"] = {"dtype": "float32", "attn_implementation": "sdpa", **SAFE}
    data = stored_rows(Path(settings["data"]), Path(settings["output"]) / ROWS)
    common: dict[str, Any] = {"model": settings["model"], "train_dataset": data, "processing_class": processor}
    if settings["kind"] == "dpo":
        return trl.DPOTrainer(args=trl.DPOConfig(**options, max_length=None), **common)
    suppressed = {"suppress_tokens": unsampled_tokens(processor)}
    options["generation_kwargs"] = {**suppressed, **options["generation_kwargs"]}
    return _pay_for_variety(trl.GRPOTrainer(args=trl.GRPOConfig(**options), reward_funcs=[variety], **common))  # pyright: ignore[reportArgumentType]


def variety(completions: list[Any], **_: Any) -> list[float]:
    """A reward in which the answers of any model differ: different letters."""
    return [len(set(c[0]["content"])) / 10 for c in completions]


def _pay_for_variety(trainer: Any) -> Any:
    import torch

    trainer.reward_funcs, trainer.reward_func_names = [variety], ["variety"]
    trainer.reward_weights, trainer.reward_processing_classes = torch.ones(1), [None]
    return trainer


def likelihood(settings: dict[str, Any], step_done: Step) -> None:
    """Scoring several answers to each prompt, as a reward over candidates or an evaluation by likelihood does."""
    from alignment.data.row_cache import ROWS, stored_rows
    from alignment.models.loading import load_for_inference
    from alignment.shared_prefix.prompt_groups import answer_logprobs

    model, processor = load_for_inference(settings["model"])
    data: Any = stored_rows(Path(settings["data"]), Path(settings["output"]) / ROWS)
    shared = "on" if settings["method"] == "ours" else "off"
    first_step_begins()
    for _ in range(settings["trainer"]["max_steps"]):
        begun = time.perf_counter()
        scores = answer_logprobs(model, processor, [dict(row) for row in data], shared_prefix=shared)
        took = time.perf_counter() - begun
        mean = sum(map(sum, scores)) / sum(map(len, scores))
        step_done({"step_s": took, "update_s": took, "loss": -mean})


def build(settings: dict[str, Any], step_done: Step) -> None:
    """Building the phantom data set; there is nothing in TRL to set beside it."""
    from data_builders.build.build import build as build_data
    from data_builders.build.build_spec import read_spec

    first_step_begins()
    for k in range(settings["steps"]):
        begun = time.perf_counter()
        build_data(read_spec(Path(settings["spec"]), [f"output={settings['output']}_{k}"]))
        took = time.perf_counter() - begun
        step_done({"step_s": took, "update_s": took, "loss": 0.0})


MEASURED: dict[str, Callable[[dict[str, Any], Step], str | None]] = {
    "dpo": train,
    "grpo": train,
    "reward": likelihood,
    "build": build,
}

if __name__ == "__main__":
    main()
