"""SFT, own pairs, DPO and GRPO on phantom radiographs: a model from scratch, judged on held-out patients.

On a GPU about 30 million parameters, elsewhere the project's tiny model for a few steps. Each stage trains for so many
seconds (its learning rate falls with the time left), so that the whole fits whatever the machine. SFT's reports and
boxes carry the flaws of weak annotators (see recipes/data/phantom_chest.yaml); the truth that is judged against is
clean. One seed: differences within the intervals say nothing.
"""

import math
import os
import shutil
import time

from verify_figures import LeftOut, aside

SECONDS = {"sft": 70.0, "dpo": 10.0, "grpo": 36.0}
TINY_SECONDS = {"sft": 2.0, "dpo": 0.5, "grpo": 0.5}
METRICS = (
    *("balanced_accuracy", "side_accuracy", "mean_iou", "hallucination_rate", "omission_rate", "finding_f1"),
    *("report_parse_failure", "box_parse_failure"),
)


def drawn(figures, short):
    """Where the phantoms lie."""
    return aside(figures.folder, "phantoms-short" if short else "phantoms")


def spec(size, folder, *, short=False):
    """The data set's spec."""
    return {
        "source": {
            "name": "phantom_chest",
            "patients": 40 if size.tiny else 250 if short else 3000,
            "images_per_patient": 2,
            "size": 64 if size.tiny else 128,
            "prevalence": 0.4,
            "seed": 7,
        },
        "output": str(folder),
        "seed": 1,
        "splits": {"sft": 0.6, "align": 0.3, "test": 0.1},
        "rows": {"instruction": ["sft"], "preference": ["align"], "prompt": ["align", "test"]},
        "tasks": {"presence": 3, "side": 1, "box": 2, "report": 1},
        "prompt_tasks": {"box": 1, "report": 1},
        "eval_splits": ["test"],
        "eval_tasks": {"presence": "all", "side": "all", "box": "all", "report": 1},
        "box_grid": 100,
        "flaws": {"splits": ["sft"], "invented_findings": 0.2, "loose_boxes": 1.35},
    }


def draw(figures, size, *, short=False):
    """What needs no GPU, ahead and beside the other parts: phantoms, the untrained model, the lengths of all rows."""
    from alignment.config.data_entries import parquet
    from alignment.config.methods import METHODS
    from alignment.data.row_tokens import lengths_of_file
    from alignment.models.prepared import built_texts, built_whole
    from alignment.models.processors import load_processor
    from alignment.models.tiny import build_tiny
    from data_builders.build.build import build
    from data_builders.build.build_spec import BuildSpec

    begun = time.time()
    data = drawn(figures, short)
    build(BuildSpec.model_validate(spec(size, data, short=short)))
    figures.add("phantoms drawn in", time.time() - begun, "s", "in the background")
    with built_whole(untrained(data)) as folder:
        build_tiny(built_texts(str(data / "instruction/sft")), folder, **(SMALL if size.tiny else BIG))
    begun = time.time()
    processor = load_processor(str(untrained(data)))
    for name, method in (("instruction/sft", "sft"), ("prompt/align", "grpo")):
        lengths_of_file(processor, parquet(str(data / name)), METHODS[method].answers)  # kept under CLINALIGN_CACHE
    figures.add("rows counted in", time.time() - begun, "s", "in the background")


def untrained(data):
    """Where the model lies that all begins with."""
    return data.with_name(f"{data.name}-untrained")


def learning(figures, size, scratch, *, short=False, seconds=None):
    """The stages in turn, each judged."""
    data = drawn(figures, short)
    while not (untrained(data) / "config.json").is_file():
        if figures.time_left() < 20:
            raise LeftOut("the phantoms are not drawn yet")
        time.sleep(0.5)
    run = Run(figures, size, data, scratch)
    if short:
        run.seconds = {stage: seconds / 8 for stage, seconds in run.seconds.items()}
        run.rows = 64
    run.seconds = {**run.seconds, **(seconds or {})}
    with figures.measuring("untrained", needs=12) as go:
        if go:
            run.judge("untrained", rows=run.rows // 4)
    for stage in ("sft", "pairs", "dpo", "grpo"):
        with figures.measuring(stage, needs=8) as go:
            if go:
                getattr(run, stage)()


class Run:
    """Where the stages lie, and the last model."""

    def __init__(self, figures, size, data, folder):
        self.figures, self.size, self.data, self.folder = figures, size, data, folder
        self.last = str(untrained(data))
        self.seconds = TINY_SECONDS if size.tiny else SECONDS
        self.rows = 40 if size.tiny else 400

    def recipe(self, stage, train, trainer=None, rows=None, **more):
        from alignment.config.recipe import Recipe

        common = {"seed": 11, "save_strategy": "no", "logging_steps": 20, "disable_tqdm": True}
        common |= {"bf16": self.size.device == "cuda", "gradient_checkpointing": False, "max_steps": 100_000}
        common |= {"lr_scheduler_type": "constant", "max_grad_norm": 1.0}
        return Recipe.model_validate(
            {
                "method": stage,
                "output": str(self.folder / stage),
                "model": {"path": self.last},
                "data": {"train": str(train), **(rows or {})},
                **({"trainer": common | (trainer or {})} if trainer is not None else {}),
                **more,
            }
        )

    def train(self, recipe, seconds):
        """One stage for so long; the figures of its first and last log."""
        from alignment.training.trainer import make_trainer

        folder = self.folder / recipe.method
        trainer = make_trainer(recipe, folder)
        clock = clocked(seconds, recipe.trainer["learning_rate"])
        trainer.add_callback(clock)
        trainer.train()
        trainer.remove_callback(clock)
        steps = trainer.state.global_step
        trainer.save_model(str(folder / "model"))
        trainer.processing_class.save_pretrained(folder / "model")
        self.last = str(folder)
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        name = "reward" if recipe.method == "grpo" else "loss"
        ends = f"{name} {logs[0][name]:.3f} to {logs[-1][name]:.3f}" if logs else ""
        rows = recipe.trainer["per_device_train_batch_size"]
        took = time.time() - clock.begun
        waited = f"{100 * clock.waited / took:.0f} % of the time waiting for data"
        rate = f"{steps * rows:,} rows, {steps * rows / took:.0f} a second"
        note = f"{steps} steps of {rows} rows in {took:.0f} s: {rate}"
        more = {"rows": steps * rows, "seconds": took, "waited_s": clock.waited, "logs": trainer.state.log_history}
        self.figures.add(f"{recipe.method}: steps", steps, "", f"{note}, {waited}; {ends}", **more)
        trainer.accelerator.free_memory()

    def sft(self):
        """From scratch."""
        rows, rate = (8, 1e-3) if self.size.tiny else (256, 7e-4)
        settings = {"per_device_train_batch_size": rows, "learning_rate": rate, "adam_beta2": 0.98}
        settings |= workers(rows) if self.size.device == "cuda" else {}
        self.train(self.recipe("sft", self.data / "instruction/sft", settings), self.seconds["sft"])
        self.judge("sft")

    def pairs(self):
        """The model's own wrong reports, on patients it has not seen."""
        from alignment.pairs.write_pairs import write_pairs
        from rewards.config.input_error import InputError

        sampling = {"num_samples": 4, "temperature": 1.0, "max_new_tokens": 72, "batch_size": 512}
        if self.size.tiny:
            sampling |= {"num_samples": 2, "max_new_tokens": 8}
        recipe = self.recipe("pairs", self.data / "prompt/align", sampling=sampling, rows={"limit": 900})
        begun = time.time()
        try:
            write_pairs(recipe)
        except InputError as nothing:
            raise LeftOut(str(nothing)) from nothing
        self.figures.add("pairs sampled in", time.time() - begun, "s")

    def dpo(self):
        """Weighted, on those pairs; on the builder's corrupted answers where there are none."""
        own = self.folder / "pairs/preference/pairs"
        made = own.with_suffix(".parquet").is_file()
        train = own if made else self.data / "preference/align"
        settings = {"per_device_train_batch_size": 64 if not self.size.tiny else 4, "learning_rate": 5e-5, "beta": 0.5}
        weighting = {"use": True, "reduction": "mean", "sft_coefficient": 2.0}
        settings["precompute_ref_log_probs"] = False
        settings |= workers(128) if self.size.device == "cuda" else {}
        self.train(self.recipe("dpo", train, settings, weighting=weighting), self.seconds["dpo"])
        self.judge("dpo" if made else "dpo on corrupted answers")

    def grpo(self):
        """On boxes, paid by overlap; answers to 64 prompts are sampled at once for four updates."""
        settings = {"per_device_train_batch_size": 128, "num_generations": 8, "max_completion_length": 32}
        settings |= {"learning_rate": 1e-4, "beta": 0.05, "steps_per_generation": 4, "logging_steps": 8}
        if self.size.tiny:
            settings |= {"per_device_train_batch_size": 4, "num_generations": 2, "max_completion_length": 6}
            settings |= {"steps_per_generation": 2}
        rewards = [{"name": "box_overlap", "weight": 1.0, "measure": "iou"}]
        rows = {"tasks": ["box"]}
        recipe = self.recipe("grpo", self.data / "prompt/align", settings, rewards=rewards, rows=rows)
        self.train(recipe, self.seconds["grpo"])
        self.judge("grpo")

    def judge(self, name, rows=None):
        """Greedy answers to held-out rows, and every metric with its interval."""
        from alignment.config.generation_section import GenerationSection
        from alignment.data.prompt_rows import limited, read_rows, written_rows
        from alignment.evaluation.answers import generate_answers
        from alignment.metrics.intervals import summarise
        from alignment.metrics.outcomes import score_answers
        from alignment.models.loading import load_for_inference

        begun = time.time()
        model, processor = load_for_inference(self.last)
        if name == "untrained":
            self.figures.add("parameters", model.num_parameters() / 1e6, "10^6", type(model).__name__)
        truth = limited(read_rows(self.data / "prompt/test"), limit=rows or self.rows, seed=0)
        asked = written_rows(truth, "grid", processor)
        how = GenerationSection(batch_size=256, max_new_tokens=8 if self.size.tiny else {})
        answers = generate_answers(model, processor, asked, generation=how)
        found = summarise(score_answers(asked, answers), num_resamples=200)
        took = time.time() - begun
        for metric in METRICS:
            if metric in found:
                m = found[metric]
                note = f"{len(asked)} held-out rows, judged in {took:.1f} s" if metric == METRICS[0] else ""
                self.figures.add(f"{name}: {metric}", float(m.value), interval(m), note)
        del model


SMALL = {"image_size": 64}
BIG = {"image_size": 128, "hidden_size": 640, "vision_hidden_size": 384, "num_layers": 6, "init_std": 0.04}
"""30 million parameters; few layers, as each step of generation waits for every one of them."""


def workers(rows):
    """Processes that make batches, no more batches in flight than shared memory has room for."""
    batch = rows * 128 * 128 * (3 * 4 + 8)  # float32 pixels and an int64 mask
    memory = shutil.disk_usage("/dev/shm")
    fitting = int(0.8 * memory.free) // (2 * batch) if memory.total else 14
    number = min(14, (os.cpu_count() or 1) - 2, fitting)
    return {"dataloader_num_workers": number, "dataloader_persistent_workers": True} if number > 0 else {}


def interval(metric):
    """As in the table."""
    low, high = getattr(metric, "low", None), getattr(metric, "high", None)
    return "" if low is None or high is None else f"({low:.3f} to {high:.3f})"


def clocked(seconds, rate):
    """Stops a trainer after so many seconds; its learning rate warms up for a twentieth of them, and falls to 5 %."""
    from transformers import TrainerCallback

    class Clocked(TrainerCallback):
        begun = waited = ended = 0.0

        def on_step_begin(self, args, state, control, optimizer=None, **_):
            self.begun = self.begun or time.time()
            self.waited += time.time() - (self.ended or time.time())
            part = min(1.0, (time.time() - self.begun) / seconds)
            now = rate * min(1.0, 0.02 + part / 0.05) * (0.525 + 0.475 * math.cos(math.pi * part))
            for group in optimizer.param_groups if optimizer is not None else ():
                group["lr"] = now

        def on_step_end(self, args, state, control, **_):
            self.ended = time.time()
            control.should_training_stop = self.ended - self.begun > seconds
            return control

    return Clocked()
