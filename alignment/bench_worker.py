"""One measured run of one method, in a process of its own so that its peak memory is its own.

``python -m alignment.bench_worker SETTINGS.json OUT.json``; started by ``bench.py``.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from alignment.engine import stay_offline

SEED = 7


def main() -> None:
    """Reads the settings, runs, writes what was measured."""
    stay_offline()
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    measured = MEASURED[settings["kind"]](settings)
    Path(sys.argv[2]).write_text(json.dumps(measured), encoding="utf-8")


def peak_mib() -> float:
    """Peak memory so far, in MiB: the accelerator's where there is one, else the process's."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def train(settings: dict[str, Any]) -> dict[str, Any]:
    """Some steps of DPO or GRPO. The first is left out of the times: it pays for what is paid once."""
    import trl  # noqa: F401
    from transformers import TrainerCallback

    before = peak_mib()
    trainer = (ours if settings["method"].startswith("ours") else stock)(settings)
    clock, preparing = [], []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.append(time.perf_counter())

    if settings["kind"] == "grpo":
        prepare = trainer._prepare_inputs

        def timed(batch: Any) -> Any:
            begun = time.perf_counter()
            inputs = prepare(batch)
            preparing.append(time.perf_counter() - begun)
            return inputs

        trainer._prepare_inputs = timed
    trainer.add_callback(Clock())
    trainer.train()
    steps = [b - a for a, b in zip(clock, clock[1:], strict=False)]
    updates = [step - spent for step, spent in zip(steps, preparing[1:], strict=True)] if preparing else steps
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"step_s": steps, "update_s": updates, "peak_mib": peak_mib() - before, "losses": losses}


def ours(settings: dict[str, Any]) -> Any:
    """clinalign's trainer."""
    from alignment.recipe import Recipe
    from alignment.train import make_trainer

    trainer: dict[str, Any] = dict(settings["trainer"])
    if settings["kind"] == "dpo":
        trainer["precompute_ref_log_probs"] = settings["method"] == "ours"
    recipe = Recipe.model_validate(
        {
            "method": settings["kind"],
            "output": settings["output"],
            "model": {"path": settings["model"], "shared_prefix": "on"},
            "data": {"train": settings["data"]},
            "rewards": [{"name": "box_overlap"}] if settings["kind"] == "grpo" else [],
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
    from datasets import Dataset

    from alignment.generation import unsampled_tokens
    from alignment.models import load_processor

    processor = load_processor(settings["model"])
    options = {"output_dir": settings["output"], "report_to": "none", "bf16": False, **settings["trainer"]}
    options["model_init_kwargs"] = {"dtype": "float32", "attn_implementation": "sdpa"}
    data = Dataset.from_parquet(settings["data"])
    common: dict[str, Any] = {"model": settings["model"], "train_dataset": data, "processing_class": processor}
    if settings["kind"] == "dpo":
        return trl.DPOTrainer(args=trl.DPOConfig(**options, max_length=None), **common)
    suppressed = {"suppress_tokens": unsampled_tokens(processor)}
    options["generation_kwargs"] = {**suppressed, **options["generation_kwargs"]}
    return _pay_for_variety(trl.GRPOTrainer(args=trl.GRPOConfig(**options), reward_funcs=[variety], **common))


def variety(completions: list[Any], **_: Any) -> list[float]:
    """A reward in which the answers of any model differ: different letters."""
    return [len(set(c[0]["content"])) / 10 for c in completions]


def _pay_for_variety(trainer: Any) -> Any:
    import torch

    trainer.reward_funcs, trainer.reward_func_names = [variety], ["variety"]
    trainer.reward_weights, trainer.reward_processing_classes = torch.ones(1), [None]
    return trainer


def likelihood(settings: dict[str, Any]) -> dict[str, Any]:
    """Scoring several answers to each prompt, as a reward over candidates or an evaluation by likelihood does."""
    from datasets import Dataset

    from alignment.models import load_for_inference
    from alignment.prompt_groups import answer_logprobs

    before = peak_mib()
    model, processor = load_for_inference(settings["model"])
    rows = [dict(row) for row in Dataset.from_parquet(settings["data"])]
    shared = "on" if settings["method"] == "ours" else "off"
    steps, scores = [], []
    for _ in range(settings["trainer"]["max_steps"]):
        begun = time.perf_counter()
        scores = answer_logprobs(model, processor, rows, shared_prefix=shared)
        steps.append(time.perf_counter() - begun)
    mean = sum(map(sum, scores)) / sum(map(len, scores))
    return {"step_s": steps[1:], "update_s": steps[1:], "peak_mib": peak_mib() - before, "losses": [-mean]}


def build(settings: dict[str, Any]) -> dict[str, Any]:
    """Building the phantom data set; there is nothing in TRL to set beside it."""
    from data_builders.build import build as build_data
    from data_builders.build_spec import read_spec

    before = peak_mib()
    begun = time.perf_counter()
    build_data(read_spec(Path(settings["spec"]), [f"output={settings['output']}"]))
    spent = time.perf_counter() - begun
    return {"step_s": [spent], "update_s": [spent], "peak_mib": peak_mib() - before, "losses": []}


MEASURED = {"dpo": train, "grpo": train, "reward": likelihood, "build": build}

if __name__ == "__main__":
    main()
