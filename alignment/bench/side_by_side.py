"""clinalign beside stock trl: same model, data and seed; time, peak memory, their ratios, and whether they learn alike.

Every method has a process of its own, which takes one step when it is told to: the methods take turns, and a ratio is
taken within a turn, so that a busy machine slows both. The first step, which pays for what is paid once, is left out.
Left out: vLLM, and more than one device.
"""

import json
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alignment.bench.differences import REACHED, differences, weights_compared
from rewards.config.input_error import InputError

Kind = Literal["dpo", "grpo", "reward", "build"]
METHODS: dict[str, tuple[str, ...]] = {
    "dpo": ("stock", "ours", "ours_reference_each_step"),
    "grpo": ("stock", "ours"),
    "reward": ("stock", "ours"),
    "build": ("ours",),
}
SPEC = "recipes/data/phantom_chest_small.yaml"
TIMES = ("step_s", "update_s", "cpu_s")
ITERATIONS = 2
"""Updates that use one generation of GRPO."""
WORDS = [f"[{a},{b}]" for a in range(10, 100, 7) for b in range(11, 100, 9)]


@dataclass(frozen=True)
class Shape:
    """What is measured. ``hidden_size`` and ``num_layers`` are the language model's; the eyes are half as wide."""

    image_tokens: int = 256
    answer_tokens: int = 20
    answers: int = 2
    prompts: int = 2
    hidden_size: int = 256
    num_layers: int = 4
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest over the runs."""

    median: float
    low: float
    high: float


def spread(values: list[float]) -> Spread:
    """The spread of some numbers.

    >>> spread([3.0, 1.0, 2.0])
    Spread(median=2.0, low=1.0, high=3.0)
    """
    return Spread(statistics.median(values), min(values), max(values))


def bench(kind: Kind, shape: Shape, *, runs: int, folder: Path) -> dict[str, Any]:
    """Lets the methods of ``kind`` take ``runs`` measured steps in turn, and sets them side by side.

    Returns for each method its times (s; ``cpu_s`` is the process's own, which a busy machine hardly changes) and peak
    memory of its steps (MiB, beyond what it held before the first); for each of ours the ratios stock / ours, the
    theoretical ratio from token counts, and the largest differences of a loss and of a gradient norm (beside the
    largest of either), and of a weight (beside how far the weights have moved).

    Raises: InputError for an image-token count that is no square, or a method that failed.
    """
    settings = prepared(kind, shape, folder, steps=runs + 1)
    found: dict[str, list[dict[str, Any]]] = {method: [] for method in METHODS[kind]}
    with ExitStack() as stack:
        workers = {method: stack.enter_context(Worker(settings, method, folder)) for method in found}
        for _ in range(runs + 1):
            for method, worker in workers.items():
                found[method].append(worker.step())
        trained = {method: worker.step()["weights"] for method, worker in workers.items()}
    result: dict[str, Any] = {"kind": kind, "shape": asdict(shape), "runs": runs}
    result["methods"] = {method: _figures(steps) for method, steps in found.items()}
    if "stock" in found:
        result["stock_over_ours"] = {
            method: _ratios(found["stock"], steps)
            | differences(found["stock"], steps)
            | weights_compared(trained["stock"], trained[method])
            for method, steps in found.items()
            if method != "stock"
        }
        result["theoretical"] = theoretical_ratios(kind, settings["prompt_tokens"], shape)
    return result


class Worker:
    """The process of one method."""

    def __init__(self, settings: dict[str, Any], method: str, folder: Path) -> None:
        self.method, self.folder = method, folder / method
        self.folder.mkdir(parents=True)
        content = {**settings, "method": method, "output": str(self.folder / "run")}
        (self.folder / "settings.json").write_text(json.dumps(content), encoding="utf-8")

    def __enter__(self) -> "Worker":
        orders, self._tell = os.pipe()
        hear, says = os.pipe()
        command = [sys.executable, "-m", "alignment.bench.worker", str(self.folder / "settings.json")]
        env = {**os.environ, "CLINALIGN_CACHE": str(self.folder / "cache")}
        self._log = (self.folder / "log.txt").open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            [*command, str(orders), str(says)], env=env, pass_fds=(orders, says), stdout=self._log, stderr=self._log
        )
        os.close(orders)
        os.close(says)
        self._hear = os.fdopen(hear, encoding="utf-8")
        self._steps = 0
        return self

    def step(self) -> dict[str, Any]:
        """What the next step took; after the last one, where the weights are.

        Raises: InputError with the process's last lines if it ended instead.
        """
        if self._steps:
            os.write(self._tell, b"go\n")
        self._steps += 1
        line = self._hear.readline()
        if not line:
            last = (self.folder / "log.txt").read_text(encoding="utf-8")[-1500:]
            raise InputError(f"bench: '{self.method}' failed; its last lines:\n{last}")
        return json.loads(line)

    def __exit__(self, *_: object) -> None:
        os.close(self._tell)
        self._process.kill()
        self._process.wait()
        self._hear.close()
        self._log.close()


def theoretical_ratios(kind: Kind, prompt_tokens: int, shape: Shape) -> dict[str, float]:
    """Token-forwards of stock over ours. A backward counts as two forwards; DPO's reference is one more forward.

    >>> theoretical_ratios("grpo", 1200, Shape(answer_tokens=30, answers=8))
    {'ours': 6.833333333333333}
    """
    group = 2 if kind == "dpo" else shape.answers
    tokens = group * (prompt_tokens + shape.answer_tokens) / (prompt_tokens + group * shape.answer_tokens)
    return {"ours": tokens * 4 / 3, "ours_reference_each_step": tokens} if kind == "dpo" else {"ours": tokens}


def _figures(steps: list[dict[str, Any]]) -> dict[str, Any]:
    figures: dict[str, Any] = {n: asdict(spread([step[n] for step in steps[1:]])) for n in TIMES}
    reached = {many: [step[one] for step in steps] for one, many in REACHED.items() if one in steps[0]}
    return figures | {"peak_mib": steps[-1]["peak_mib"]} | reached


def _ratios(stock: list[dict[str, Any]], ours: list[dict[str, Any]]) -> dict[str, Any]:
    turns = list(zip(stock, ours, strict=True))
    ratios: dict[str, Any] = {name: asdict(spread([s[name] / o[name] for s, o in turns[1:]])) for name in TIMES}
    return ratios | {"peak_mib": stock[-1]["peak_mib"] / ours[-1]["peak_mib"]}


def prepared(kind: Kind, shape: Shape, folder: Path, *, steps: int) -> dict[str, Any]:
    """Model and rows on disk, and the settings that every method shares."""
    if kind == "build":
        return {"kind": kind, "spec": SPEC, "steps": steps}
    from alignment.models.processors import load_processor
    from alignment.models.tiny import build_tiny

    side = int(shape.image_tokens**0.5)
    if side**2 != shape.image_tokens:
        raise InputError(f"--image-tokens: {shape.image_tokens} is no square; try {side**2} or {(side + 1) ** 2}.")
    sizes: dict[str, Any] = dict(image_size=32 * side, hidden_size=shape.hidden_size, num_layers=shape.num_layers)
    texts = [" ".join(WORDS), "Where is the lesion?"]
    model = build_tiny(texts, folder / "model", vision_hidden_size=shape.hidden_size // 2, **sizes)
    processor = load_processor(str(model))
    rows = [_row(k, kind, shape, processor) for k in range(shape.prompts * (1 if kind == "reward" else steps))]
    data = _written(rows, folder / "rows.parquet")
    prompt_tokens = len(_prompt_ids(processor, rows[0]))
    trainer = _trainer_settings(kind, shape, steps)
    return {"kind": kind, "model": str(model), "data": str(data), "trainer": trainer, "prompt_tokens": prompt_tokens}


def _trainer_settings(kind: Kind, shape: Shape, steps: int) -> dict[str, Any]:
    batch = shape.prompts * (shape.answers if kind == "grpo" else 1)
    settings: dict[str, Any] = {
        "max_steps": steps,
        "per_device_train_batch_size": batch,
        "learning_rate": 1e-4,
        "seed": 7,
        "gradient_checkpointing": shape.gradient_checkpointing,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        # AdamW divides a gradient by its own size: by default rounding alone moves weights whose gradient is 0
        "adam_epsilon": 1e-4,
    }
    if kind == "grpo":
        length = {"max_completion_length": shape.answer_tokens, "num_generations": shape.answers}
        settings |= length | {"generation_kwargs": {"min_new_tokens": shape.answer_tokens}}
        # without a reference, and each answer used once, both losses would be 0 whatever either trainer does
        settings |= {"beta": 0.1, "num_iterations": ITERATIONS, "logging_steps": ITERATIONS}
        settings["max_steps"] = steps * ITERATIONS
    return settings


def _row(k: int, kind: Kind, shape: Shape, processor: Any) -> dict[str, Any]:
    """A prompt with an image of noise, and as many answers as the kind reads, each of the asked length."""
    from PIL import Image

    rng = np.random.default_rng(k)
    edge = 32 * int(shape.image_tokens**0.5)
    image = Image.fromarray(rng.integers(0, 255, (edge, edge, 3), dtype=np.uint8))
    question = [{"type": "image", "text": None}, {"type": "text", "text": "Where is the lesion?"}]
    row: dict[str, Any] = {"images": [image], "prompt": [{"role": "user", "content": question}]}
    answers = [_answer(rng, shape.answer_tokens, processor) for _ in range(shape.answers)]
    if kind == "dpo":
        row |= {"chosen": answers[0], "rejected": answers[1]}
    return row | ({"answers": answers} if kind == "reward" else {})


def _answer(rng: np.random.Generator, tokens: int, processor: Any) -> list[dict[str, Any]]:
    """An assistant's turn whose tokens, with the template's end of turn, are as many as asked."""
    ids = processor.tokenizer(" ".join(rng.choice(WORDS, size=tokens)))["input_ids"][: max(1, tokens - 2)]
    return [{"role": "assistant", "content": [{"type": "text", "text": processor.tokenizer.decode(ids)}]}]


def _written(rows: list[dict[str, Any]], file: Path) -> Path:
    from datasets import Dataset, Image, List

    data = Dataset.from_list([{k: v for k, v in row.items() if k != "images"} for row in rows])
    images = Dataset.from_dict({"images": [row["images"] for row in rows]}).cast_column("images", List(Image()))
    data = data.add_column("images", images.with_format("arrow")[:]["images"].to_pylist())
    data.cast_column("images", List(Image())).to_parquet(file)
    return file


def _prompt_ids(processor: Any, row: dict[str, Any]) -> list[int]:
    text = processor.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
    return processor(text=text, images=[row["images"]])["input_ids"][0]


def table(result: dict[str, Any]) -> str:
    """The result as a Markdown table with one line a method."""
    lines = [
        "| method | step (s) | update (s) | peak (MiB) | faster (step) | faster (update) | faster (processor time) "
        "| less memory | theory | loss differs by (of) | gradient norm (of) | weights (moved by) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method, figures in result["methods"].items():
        ratios = result.get("stock_over_ours", {}).get(method)
        cells = [_cell(figures["step_s"]), _cell(figures["update_s"]), f"{figures['peak_mib']:.0f}"]
        if ratios:
            cells += [*(_cell(ratios[name], "x") for name in TIMES), f"{ratios['peak_mib']:.2f}x"]
            cells += [f"{result['theoretical'][method]:.2f}x", *_differing(ratios)]
        lines.append(f"| {method} | " + " | ".join(cells + [""] * (11 - len(cells))) + " |")
    return "\n".join(lines)


def _differing(compared: dict[str, Any]) -> list[str]:
    """The largest differences, each with what it is a difference of; nothing where there is none."""
    of = {"loss": "largest_loss", "grad_norm": "largest_grad_norm", "weight": "largest_weight_change"}
    known = {name: whole for name, whole in of.items() if whole in compared}
    return [f"{compared[f'largest_{name}_difference']:.0e} ({compared[whole]:.2g})" for name, whole in known.items()]


def _cell(values: dict[str, float], unit: str = "") -> str:
    return f"{values['median']:.3g}{unit} ({values['low']:.3g}-{values['high']:.3g})"
