"""Updates of GRPO, DPO and SFT beside stock trl: seconds, peak memory, useful model FLOP/s.

Both trainers run their own ``train()`` on one model object, with the same rows, adapters, precision and checkpointing.
Timed is what lies between the callbacks ``on_step_begin`` and ``on_step_end``, with the GPU waited for at both: copying
the batch to the device, forward (with DPO also the reference's, where it is not kept), backward, clipping, AdamW. Not
timed: making the batch (decoding and processing images; written down by itself), and GRPO's sampling and judging:
both trainers are given the same finished answers.

Useful FLOPs of an update, every prompt being computed once, for T = prompts (P + G C) tokens, A = prompts G C answer
tokens and V patches, with n the weights of the linear layers of a part (embeddings are looked up)::

    language   2 n T + 4 h layers (P (P + 1) / 2 + G (C P + C (C + 1) / 2)) prompts + 2 n_head A     forward
               the same once more                     backward: of the activations, the weights being frozen
    tower      2 n V + 4 h (windows' and whole images' pairs of patches)                             forward
    projector  2 n V / 4                                                                             forward
    adapters   6 n T                                                                    forward and both backwards

What checkpointing computes twice, a reference, and a prompt's second copy are not useful. G = 1 for SFT, 2 for DPO.
"""

import contextlib
import json
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from verify_figures import Figures, LeftOut, read
from verify_model import (
    LANGUAGE_LINEAR,
    Scale,
    Shape,
    config_folder,
    make_model,
    make_processor,
    prompts_of,
    row,
    sampled,
    shapes,
    synchronize,
)

STOCK, ONE_CALL, OURS, EACH = "stock", "stock, tower in one call", "ours", "ours, reference each step"
"""Stock as people have it; stock with the tower attention that ours has; ours."""
METHODS = {"grpo": (ONE_CALL, OURS), "dpo": (ONE_CALL, OURS, EACH), "sft": (ONE_CALL, OURS)}
NEEDS = {STOCK: 60.0, ONE_CALL: 25.0, OURS: 12.0, EACH: 12.0}
"""Seconds that must be left for a cell to be begun; stock's tower takes most of a minute for two updates."""
REPETITIONS, WARM = 2, 1
ENOUGH_S = 8.0
"""Seconds of measured updates after which no further one is asked for."""
SFT_ROWS = 4
"""SFT and DPO take this many times as many prompts as GRPO: a prompt has one answer, or two."""


@dataclass(frozen=True)
class Cell:
    """One row of the comparison."""

    kind: str
    shape: Shape
    method: str
    checkpointing: bool = True
    targets: str = LANGUAGE_LINEAR
    compiled: bool = False

    @property
    def name(self) -> str:
        """As in the table."""
        more = "" if self.checkpointing else ", no checkpointing"
        more += "" if self.targets == LANGUAGE_LINEAR else ", adapters in the tower too"
        more += ", compiled" if self.compiled else ""
        return f"{self.kind} {self.shape.name} {self.method}{more}"

    @property
    def group(self) -> tuple[Any, ...]:
        """Cells that are compared with one another."""
        return self.kind, self.shape, self.checkpointing, self.targets, self.compiled


def cells(size: Scale) -> list[Cell]:
    """In order of worth: each kind at the large image, then what was never measured, then stock as people have it."""
    first = shapes(size)
    if size.tiny:
        found = [Cell("grpo", first[0], m) for m in (*METHODS["grpo"], STOCK)]
        found += [Cell("dpo", wide(first[1]), m) for m in (*METHODS["dpo"], STOCK)]
        found += [Cell("grpo", first[1], OURS, checkpointing=False)]
        found += [Cell("sft", wide(first[0]), m) for m in METHODS["sft"]]
        found += [Cell("grpo", first[0], m, targets="all-linear") for m in METHODS["grpo"]]
        return [*found, Cell("grpo", first[0], OURS, compiled=True)]
    large, small, large_long, small_long = first
    found = [Cell("grpo", large, m) for m in (OURS, ONE_CALL)]
    found += [Cell("dpo", wide(large), m) for m in (OURS, ONE_CALL, EACH)]
    found += [Cell("grpo", large_long, m) for m in (OURS, ONE_CALL)]
    found += [Cell("sft", wide(large), m) for m in (OURS, ONE_CALL)]
    found += [Cell("grpo", small, m) for m in (OURS, ONE_CALL)]
    found += [Cell("grpo", large, m, targets="all-linear") for m in (OURS, ONE_CALL)]
    found += [Cell("dpo", wide(large_long), m) for m in (OURS, ONE_CALL)]
    found += [Cell("grpo", large, OURS, compiled=True), Cell("grpo", small, OURS, checkpointing=False)]
    found += [Cell("dpo", wide(small), m) for m in (OURS, ONE_CALL, EACH)]
    found += [Cell("dpo", wide(large), STOCK)]
    found += [Cell("grpo", small_long, m) for m in (OURS, ONE_CALL)]
    found += [Cell("sft", wide(small), m) for m in (OURS, ONE_CALL)]
    found += [Cell("dpo", wide(small_long), m) for m in (OURS, ONE_CALL)]
    return [*found, Cell("grpo", large, STOCK)]


def wide(shape: Shape) -> Shape:
    """The shape of DPO's and SFT's updates."""
    return Shape(shape.grid, shape.answer, shape.prompts * SFT_ROWS)


def updates(
    figures: Figures, size: Scale, folder: Path, *, kinds: tuple[str, ...], only: str = "", roof: float | None
) -> None:
    """All cells, on one model that is made once."""
    wanted = [cell for cell in cells(size) if cell.kind in kinds and any(o in cell.name for o in only.split(","))]
    largest = max((cell.shape for cell in wanted), key=lambda shape: shape.image)
    processor = make_processor(largest)
    home = config_folder(size, processor.tokenizer, folder / "model")
    begun = time.time()
    model = make_model(size, home)
    synchronize()
    figures.add("model made in", time.time() - begun, "s", f"{sum(p.numel() for p in model.parameters()):,} parameters")
    bench = Bench(figures, size, model, processor, folder, roof)
    for cell in wanted:
        slow = 25.0 if (cell.method == STOCK and cell.kind == "dpo") or cell.compiled else 0.0
        with figures.measuring(cell.name, needs=2.0 if size.tiny else NEEDS[cell.method] + slow) as go:
            if go:
                bench.measure(cell)


class Bench:
    """The model and processor that all cells share."""

    def __init__(self, figures, size, model, processor, folder, roof):
        self.figures, self.size, self.model, self.processor = figures, size, model, processor
        self.folder, self.roof = folder, roof

    def measure(self, cell):
        """Makes the trainer, lets it take its updates, and takes model and hooks back."""
        from alignment.bench.worker import peak_mib
        from alignment.models.tower_attention import use_one_call

        rows = [row(k, cell.shape, self.processor) for k in range(cell.shape.prompts)]
        file = self.folder / "rows" / f"{cell.shape.name.replace(' ', '_')}.parquet"
        with restored(self.model):
            begun = time.time()
            make = stock if cell.method in (STOCK, ONE_CALL) else ours
            self.tower = use_one_call(self.model, "windows" if cell.method == STOCK else "one_call")
            trainer = make(self, cell, self.dataset(rows, file, cell), file)
            model = trainer.model
            try:
                if cell.compiled:
                    compile_layers(model)
                if cell.kind == "grpo":
                    self.feed(trainer, cell, rows)
                watch = Watch(trainer, self.figures, 1 if self.size.tiny else REPETITIONS)
                made = time.time() - begun
                trainer.train()
                watch.settle()
                peak = peak_mib() if self.size.device == "cpu" else torch.cuda.max_memory_allocated() / 2**20
                self.report(cell, watch, peak, made, model)
            finally:
                trainer.optimizer = trainer.model_wrapped = None
                self.model.gradient_checkpointing_disable()
                model.unload()

    def dataset(self, rows, file, cell):
        """The rows as Parquet, read as the project reads them."""
        from alignment.bench.side_by_side import _written
        from alignment.data.row_cache import ROWS, stored_rows

        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            _written(rows, file)
        columns = {
            "grpo": ["id", "images", "prompt"],
            "dpo": ["id", "images", "prompt", "chosen", "rejected"],
            "sft": ["id", "images", "prompt", "completion"],
        }
        return stored_rows(file, file.parent / ROWS / file.stem).select_columns(columns[cell.kind])

    def feed(self, trainer, cell, rows):
        """Finished answers with made-up advantages, in the layout in which trl keeps a generation."""
        answers = sampled(cell.shape, self.size.answers, len(self.processor.tokenizer))
        prompt = prompts_of(self.processor, rows, side="left")
        each = [k for k in range(len(rows)) for _ in range(self.size.answers)]
        patches = prompt["pixel_values"].split(prompt["image_grid_thw"].prod(dim=-1).tolist())
        completion = torch.tensor([answer for group in answers for answer in group])
        types = prompt["mm_token_type_ids"][each]
        generator = torch.Generator().manual_seed(5)
        inputs = {
            "prompt_ids": prompt["input_ids"][each],
            "prompt_mask": prompt["attention_mask"][each],
            "completion_ids": completion,
            "completion_mask": torch.ones_like(completion),
            "advantages": torch.randn(len(each), generator=generator),
            "num_items_in_batch": torch.tensor(completion.numel()),
            "pixel_values": torch.cat([patches[k] for k in each]),
            "image_grid_thw": prompt["image_grid_thw"][each],
            "mm_token_type_ids": torch.cat([types, torch.zeros_like(completion)], dim=1),
        }
        inputs = {name: values.to(self.size.device) for name, values in inputs.items()}
        inputs["num_images"] = [1] * len(each)
        trainer._prepare_inputs = lambda batch: inputs

    def report(self, cell, watch, peak, made, model):
        """The cell's figures, and its ratio to stock's."""
        assert watch.seconds, "no update was measured"
        seconds = statistics.median(watch.seconds)
        spread = f"{min(watch.seconds):.3g}-{max(watch.seconds):.3g}, {len(watch.seconds)} updates"
        useful = useful_flops(model, cell, self.size, self.prompt_tokens(cell))
        rate = useful / seconds / 1e12
        share = "" if not self.roof else f"; {100 * rate / self.roof:.1f} % of the roof"
        more = {"cell": cell.name, "kind": cell.kind, "method": cell.method, "shape": cell.shape.name}
        facts = {
            "seconds": watch.seconds,
            "peak_mib": peak,
            "held_mib": watch.held,
            "useful_flops": useful,
            "prompt_tokens": self.prompt_tokens(cell),
            "collate_s": watch.collating,
            "losses": watch.losses,
            "grad_norms": watch.norms,
            "checkpointing": cell.checkpointing,
            "targets": cell.targets,
            "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "tower": self.tower,
            "tower_spared": tower_is_spared(model),
            "compiled": cell.compiled,
        }
        note = f"{spread}; loss {watch.losses[0]:.4g}, gradient {watch.norms[0] if watch.norms else float('nan'):.4g}"
        note += f"; batch made in {watch.collating:.2f} s; set up in {made:.1f} s"
        self.figures.add(f"{cell.name}: update", seconds, "s", note, **more, **facts)
        self.figures.add(f"{cell.name}: peak memory", peak / 1024, "GiB", f"{watch.held / 1024:.1f} before the first")
        self.figures.add(f"{cell.name}: useful", rate, "TFLOP/s", f"{useful / 1e12:.1f} TFLOP an update{share}")
        self.compare(cell)

    def compare(self, cell):
        """How many times faster than stock, at the same shape and settings: every pair of which both are known now."""
        known = {f["cell"]: f for f in read(self.figures.folder) if f.get("cell") and "seconds" in f}
        for theirs, ours in ((STOCK, OURS), (STOCK, EACH), (ONE_CALL, OURS), (ONE_CALL, EACH), (STOCK, ONE_CALL)):
            if cell.method not in (theirs, ours):
                continue
            slow, fast = (known.get(replace(cell, method=method).name) for method in (theirs, ours))
            if slow is None or fast is None:
                continue
            ratio = statistics.median(slow["seconds"]) / statistics.median(fast["seconds"])
            alike = f"less memory {slow['peak_mib'] / fast['peak_mib']:.2f}x"
            if slow["grad_norms"] and fast["grad_norms"]:
                alike += f"; first gradient {fast['grad_norms'][0]:.5g} against {slow['grad_norms'][0]:.5g}"
            self.figures.add(f"{replace(cell, method=ours).name}: faster than {theirs}", ratio, "x", alike)

    def prompt_tokens(self, cell):
        """Tokens of one prompt with its image."""
        key = cell.shape.grid
        if not hasattr(self, "_tokens"):
            self._tokens = {}
        if key not in self._tokens:
            prompt = prompts_of(self.processor, [row(0, cell.shape, self.processor)])
            self._tokens[key] = int(prompt["input_ids"].shape[1])
        return self._tokens[key]


class Watch:
    """Clocks of a trainer: updates, making of batches, the first losses and gradient norms; stops it in time."""

    def __init__(self, trainer, figures, repetitions):
        from transformers import TrainerCallback

        self.seconds, self.losses, self.norms, self.collating, self.held = [], [], [], 0.0, 0.0
        begun = {"step": 0.0, "steps": 0}
        watch = self

        class Clock(TrainerCallback):
            def on_step_begin(self, args, state, control, **_):
                synchronize()
                if begun["steps"] == 0 and torch.cuda.is_available():
                    torch.cuda.reset_peak_memory_stats()
                    watch.held = torch.cuda.memory_allocated() / 2**20
                begun["step"] = time.perf_counter()

            def on_step_end(self, args, state, control, **_):
                synchronize()
                took = time.perf_counter() - begun["step"]
                begun["steps"] += 1
                if begun["steps"] > WARM:
                    watch.seconds.append(took)
                enough = len(watch.seconds) >= repetitions or sum(watch.seconds) > ENOUGH_S
                late = watch.seconds and figures.time_left() < 2 * took + 5
                control.should_training_stop = bool(enough or late)
                return control

        trainer.add_callback(Clock())
        self._listen(trainer)

    def settle(self):
        """Numbers of the tensors: reading them earlier would have made the CPU wait."""
        self.losses, self.norms = [float(v) for v in self.losses], [float(v) for v in self.norms]

    def _listen(self, trainer):
        step, clip, collate = trainer.training_step, trainer.accelerator.clip_grad_norm_, trainer.data_collator

        def heard_step(*args, **kwargs):
            loss = step(*args, **kwargs)
            self.losses.append(loss.detach())
            return loss

        def heard_clip(*args, **kwargs):
            norm = clip(*args, **kwargs)
            if norm is not None:
                self.norms.append(norm)
            return norm

        def timed(rows):
            begun = time.perf_counter()
            batch = collate(rows)
            self.collating = time.perf_counter() - begun
            return batch

        trainer.training_step = heard_step
        trainer.accelerator.clip_grad_norm_ = heard_clip
        trainer.data_collator = timed


@contextlib.contextmanager
def restored(model):
    """Takes away what a trainer adds to a model: trl's head, hooks, attributes of ours, compiled layers."""
    from alignment.models.tower_attention import windowed_modules

    modules = [model, *model.modules()]
    configs = [(m.config, m.config._attn_implementation) for m in windowed_modules(model)]
    kept = [(m, set(vars(m)), {n: set(getattr(m, n)) for n in HOOKS}) for m in modules]
    try:
        yield
    finally:
        for config, attention in configs:
            config._attn_implementation = attention
        for module, attributes, hooks in kept:
            module._compiled_call_impl = None
            for name in set(vars(module)) - attributes:
                if name == "forward" or name.startswith("_clinalign"):
                    delattr(module, name)
            for table, before in hooks.items():
                for key in set(getattr(module, table)) - before:
                    getattr(module, table).pop(key)
                    for flags in FLAGS:
                        getattr(module, flags, {}).pop(key, None)


def compile_layers(model):
    """Compiles each layer of the language model by itself: one graph for all of them, and nothing between them."""
    from alignment.shared_prefix.support import base_model

    for layer in base_model(model).model.language_model.layers:
        layer.compile(dynamic=False)


def tower_is_spared(model):
    """Whether ``module_settings.spare_frozen_tower`` has been at work on it."""
    hooks = [hook for module in model.modules() for hook in module._forward_pre_hooks.values()]
    return any(getattr(getattr(hook, "func", None), "__name__", "") == "_without_gradient" for hook in hooks)


HOOKS = ("_forward_hooks", "_forward_pre_hooks")
FLAGS = ("_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called")


def options(bench, cell, folder):
    """The trainer's arguments, the same for both."""
    rows = cell.shape.prompts * (bench.size.answers if cell.kind == "grpo" else 1)
    shared = {
        "max_steps": 50, "per_device_train_batch_size": rows, "learning_rate": 1e-5, "seed": 7, "report_to": "none",
        "lr_scheduler_type": "constant", "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True,
        "bf16": bench.size.dtype == torch.bfloat16, "gradient_checkpointing": cell.checkpointing,
        "dataloader_pin_memory": bench.size.device == "cuda", "output_dir": str(folder),
    }  # fmt: skip
    if cell.kind == "grpo":
        shared |= {"num_generations": bench.size.answers, "max_completion_length": cell.shape.answer, "beta": 0.0}
    return shared


def ours(bench, cell, data, file):
    """The trainer that a recipe gives, around the model at hand."""
    from alignment.config.methods import METHODS
    from alignment.config.recipe import Recipe
    from alignment.models.module_settings import set_modules
    from alignment.models.parts import freeze, lora_config
    from alignment.resuming.training import note_rows
    from alignment.training.trainer import trainer_arguments

    folder = bench.folder / "run"
    recipe = Recipe.model_validate(recipe_of(bench, cell, folder, file))
    trainer = METHODS[cell.kind].maker(
        recipe, bench.model, bench.processor, data,
        arguments=trainer_arguments(recipe, folder), peft_config=lora_config(recipe.model.lora),
    )  # fmt: skip
    freeze(trainer.model, list(recipe.model.freeze))
    set_modules(trainer, recipe.model)
    note_rows(trainer, recipe.data, None)
    if cell.kind == "dpo" and cell.method == "ours":
        keep_reference(bench, cell, trainer)
    return trainer


def recipe_of(bench, cell, folder, file):
    """The recipe's content."""
    trainer = options(bench, cell, folder)
    del trainer["output_dir"]
    if cell.kind == "dpo":
        trainer["precompute_ref_log_probs"] = False  # see keep_reference
    return {
        "method": cell.kind,
        "output": str(folder),
        "model": {
            "path": str(bench.folder / "model"),
            "dtype": bench.size.precision,
            "attention": "sdpa",
            "tower_attention": "one_call",
            "freeze": ["vision"],
            "lora": {"rank": bench.size.rank, "alpha": 2 * bench.size.rank, "targets": cell.targets},
            **({"shared_prefix": "on"} if cell.kind != "sft" else {}),
        },
        "data": {"train": str(file), "largest_first": False},
        "rewards": [{"name": "think_format"}] if cell.kind == "grpo" else [],
        "trainer": trainer,
        **({"weighting": {"use": False}} if cell.kind == "dpo" else {}),
    }


def keep_reference(bench, cell, trainer):
    """The reference's log-probabilities as ``cache_references`` computes them, without the digest of the weights."""
    from alignment.shared_prefix.reference_cache import row_key

    begun = time.perf_counter()
    data = trainer.train_dataset
    trainer.model.to(trainer.args.device)
    keys = [row_key(one) for one in data]
    known = trainer._computed_references(list(range(len(keys))), keys)
    trainer.train_dataset = data.add_column("reference_logps", [known[key] for key in keys])
    took = time.perf_counter() - begun
    bench.figures.add(f"{cell.name}: reference, once", took, "s", f"{len(keys)} pairs, images processed among it")


def stock(bench, cell, data, file):
    """TRL's trainer around the same model."""
    import trl

    from alignment.config.model_section import Lora
    from alignment.models.parts import freeze, lora_config

    del file
    given = options(bench, cell, bench.folder / "stock")
    rank = bench.size.rank
    adapters = lora_config(Lora(rank=rank, alpha=2 * rank, targets=cell.targets))
    common: dict[str, Any] = dict(
        model=bench.model, train_dataset=data, processing_class=bench.processor, peft_config=adapters
    )
    if cell.kind == "grpo":
        trainer = trl.GRPOTrainer(args=trl.GRPOConfig(**given, log_multimodal=False), reward_funcs=[nothing], **common)
    elif cell.kind == "dpo":
        trainer = trl.DPOTrainer(args=trl.DPOConfig(**given, max_length=None), **common)
    else:
        trainer = trl.SFTTrainer(args=trl.SFTConfig(**given, max_length=None), **common)
    freeze(trainer.model, ["vision"])
    return trainer


def nothing(completions, **_):
    """A reward: none is asked for."""
    return [0.0] * len(completions)


def useful_flops(model, cell, size, prompt):
    """The module's formula, for one update."""
    from alignment.models.parts import part_of
    from alignment.shared_prefix.support import base_model

    weights = dict.fromkeys(("language", "vision", "projector", "head", "lora_language", "lora_vision"), 0)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            part = "head" if "lm_head" in name else part_of(name)
            if "lora_" in name:
                part = "lora_language" if part == "language" else "lora_vision"
            weights[part] += module.weight.numel()
    config = base_model(model).config
    text, vision = config.get_text_config(), config.vision_config
    answers = {"grpo": size.answers, "dpo": 2, "sft": 1}[cell.kind]
    length, prompts = cell.shape.answer, cell.shape.prompts
    tokens, patches = prompts * (prompt + answers * length), 4 * cell.shape.image
    pairs = prompt * (prompt + 1) / 2 + answers * (length * prompt + length * (length + 1) / 2)
    language = 2 * weights["language"] * tokens + 4 * text.hidden_size * text.num_hidden_layers * pairs * prompts
    language += 2 * weights["head"] * prompts * answers * length
    whole = len(vision.fullatt_block_indexes)
    window = (vision.window_size // vision.patch_size) ** 2
    seen = whole * patches**2 + (vision.depth - whole) * patches * min(window, patches)
    tower = prompts * (2 * weights["vision"] * patches + 4 * vision.hidden_size * seen)
    tower += prompts * 2 * weights["projector"] * patches / 4
    trained_tower = 2 if cell.targets != LANGUAGE_LINEAR else 1
    adapters = 6 * (weights["lora_language"] * tokens + weights["lora_vision"] * prompts * patches)
    return 2 * language + trained_tower * tower + adapters


def memory(figures, size, folder):
    """What the estimate of ``check`` says a rank needs beside what was measured, cell by cell."""
    measured = [f for f in read(figures.folder) if "peak_mib" in f]
    if not measured:
        raise LeftOut("nothing was measured in part c")
    estimates = Estimates(size, folder)
    for figure in measured:
        with figures.measuring(f"{figure['cell']}: estimate", needs=3) as go:
            if not go:
                continue
            said, batch = estimates.of(figure)
            peak = figure["peak_mib"] * 2**20 / 1e9
            parts = ", ".join(f"{name} {value:.1f}" for name, value in said.items() if value and name != "device")
            note = f"estimated {said['device']:.1f} GB ({parts}; {batch.tokens:.0f} tokens), measured {peak:.1f} GB"
            figures.add(f"{figure['cell']}: estimate / measured", said["device"] / peak, "", note, estimate=said)


class Estimates:
    """The estimate of ``check`` for measured cells; models without weights are made once for each kind of adapters."""

    def __init__(self, size, folder):
        self.size, self.models = size, {}
        processor = make_processor(max(shapes(size), key=lambda s: s.image))
        self.folder = config_folder(size, processor.tokenizer, folder / "model").parent
        self.known = {cell.name: cell for cell in cells(size)}

    def of(self, figure):
        """Gigabytes by part, and the batch; rows of a cell are equally long, so that repeated ones need no mask."""
        from alignment.config.recipe import Recipe
        from alignment.planning.estimate import Row, batch_of, memory_table
        from alignment.planning.meta_model import meta_model
        from alignment.shared_prefix.support import base_model

        cell = self.known[figure["cell"]]
        stand_in = Bench(None, self.size, None, None, self.folder, None)
        recipe = Recipe.model_validate(recipe_of(stand_in, cell, self.folder / "run", self.folder))
        if cell.targets not in self.models:
            self.models[cell.targets] = meta_model(recipe)
        model = self.models[cell.targets]
        answers = cell.shape.answer * (2 if cell.kind == "dpo" else 1)
        row = Row(prompt=figure["prompt_tokens"], answers=answers, images=cell.shape.image)
        stocks = cell.method in (STOCK, ONE_CALL)
        shared = cell.kind != "sft" and not stocks
        batch = batch_of(recipe, row, base_model(model).config, shared=shared)
        batch = batch if shared else replace(batch, mask=0.0)
        hooked = not figure.get("tower_spared", False)
        table = memory_table(recipe, model, 1, batch, hooked=hooked)
        return table["memory_gb_per_rank"][table["this_recipe"]], batch


def roof_of(folder):
    """TFLOP/s of the matrix product of part a, if it was measured."""
    found = [f["value"] for f in read(folder) if f["name"] == "bf16 matrix product" and f["value"]]
    return float(found[-1]) if found else None


def state(folder):
    """For a look at what is there."""
    return json.dumps([f["name"] for f in read(folder)])
