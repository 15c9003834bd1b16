"""Commands on runs: check a recipe, train it, run the whole loop, time it beside stock trl, clear its cache."""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from alignment.cli.cluster import show_memory
from alignment.cli.output import JsonFlag, Overrides, say
from alignment.distributed.processes import leave_process_group
from rewards.config.input_error import InputError

Seeds = Annotated[int, typer.Option(min=1, help="how many seeds; intervals over seeds need at least three")]
Fresh = Annotated[bool, typer.Option(help="Start anew instead of going on.")]
Step = Annotated[str | None, typer.Option(help="only this: build, a stage, STAGE/evaluation, release")]


def check(
    recipe: Annotated[Path | None, typer.Argument()] = None,
    overrides: Overrides = None,
    nodes: Annotated[int, typer.Option(min=1)] = 1,
    gpus: Annotated[int, typer.Option(min=1, help="ranks of each node")] = 1,
    rate: Annotated[float | None, typer.Option(help="tokens a second on one rank, for the hours")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Measure the rate by a few real steps here.")] = False,
    tokens: Annotated[float | None, typer.Option(help="tokens of a row; counted from the data by default")] = None,
    pixels: Annotated[bool, typer.Option("--pixels", help="Read the pixels of all rows, not of 32.")] = False,
    compatibility: Annotated[bool, typer.Option("--compatibility", help="Print what works with what.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Read a recipe as `train` would, without training: every fault at once, else steps, tokens, memory, hours.

    Example: clinalign check recipes/sft/phantom_chest.yaml --gpus 2 --measure
    """
    from alignment.checks.chains import is_chain
    from alignment.checks.compatibility import table
    from alignment.planning.check import Scale, check_chain, check_recipe

    if compatibility:
        Console().print(table(), highlight=False, markup=False, soft_wrap=True)
        return
    for name, value in (("rate", rate), ("tokens", tokens)):
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"--{name} {value}: expected a number above 0.")
    if recipe is None:
        raise InputError("check: name a recipe, or give --compatibility.")
    checked = check_chain if is_chain(recipe) else check_recipe
    result = checked(recipe, overrides or [], Scale(nodes, gpus, rate, tokens, measure), every_pixel=pixels)
    plain = result if as_json else {k: v for k, v in result.items() if k != "memory_gb_per_rank"}
    say(plain, as_json)
    if "memory_gb_per_rank" in result and not as_json:
        show_memory(result)


def train(
    recipe: Path,
    overrides: Overrides = None,
    fresh: Annotated[bool, typer.Option(help="Start anew where the output folder already holds a run.")] = False,
    inexact: Annotated[
        bool, typer.Option("--inexact", help="Go on from a checkpoint of another number of processes, too.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train from a recipe (sft, dpo, grpo, pairs) or a chain of them (`stages:`). A killed run goes on where it was.

    Example: clinalign train recipes/sft/phantom_chest.yaml trainer.max_steps=100 output=runs/short
    """
    from alignment.distributed.ranks import end_with_the_others
    from alignment.training.chains import run_file

    folders = run_file(recipe, overrides or [], fresh=fresh, inexact=inexact)
    say({"trained": [str(folder) for folder in folders]}, as_json)
    end_with_the_others(0)  # rank 0 may hold what they meet at
    leave_process_group()


def run(
    loop: Annotated[Path, typer.Argument(help="a loop's file, such as recipes/loops/mmedpo.yaml")],
    overrides: Overrides = None,
    seeds: Seeds = 1,
    fresh: Fresh = False,
    step: Step = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a loop: build, train every stage, evaluate each, compare, release; one table at the end.

    What is done is not done again. `key=value` is of the loop's file; a key of a recipe is an override of its stage.
    On many GPUs, or as a job for each step: clinalign launch LOOP --gpus N [--slurm]

    Example: clinalign run recipes/loops/phantom_chest.yaml limit=200 chain.output=runs/short
    """
    from alignment.loop.run_loop import run_loop

    result = run_loop(loop, overrides or [], seeds=seeds, fresh=fresh, quiet=as_json, step=step)
    if as_json or "made" in result:
        say(result, as_json)


def demo(
    loop: Annotated[Path, typer.Argument(hidden=True)] = Path("recipes/loops/phantom_chest.yaml"),
    seeds: Seeds = 1,
    fresh: Fresh = False,
    step: Step = None,
    as_json: JsonFlag = False,
) -> None:
    """Run the loop that needs nothing but clinalign: phantom radiographs, SFT, own errors, DPO, GRPO, release.

    It is recipes/loops/phantom_chest.yaml. Any other: clinalign run LOOP
    """
    run(loop, None, seeds, fresh, step, as_json)


def bench(
    kind: Annotated[str, typer.Argument(help="dpo, grpo, reward or build")],
    image_tokens: Annotated[int, typer.Option(min=1, help="image tokens of a prompt, a square number")] = 256,
    answer_tokens: Annotated[int, typer.Option(min=1, help="tokens of an answer")] = 20,
    answers: Annotated[int, typer.Option(min=2, help="answers to a prompt; DPO has two")] = 8,
    prompts: Annotated[int, typer.Option(min=1, help="prompts of a step")] = 2,
    hidden_size: Annotated[int, typer.Option(min=8, help="width of the language model")] = 256,
    layers: Annotated[int, typer.Option(min=1, help="layers of the language model and of the eyes")] = 4,
    runs: Annotated[int, typer.Option(min=1, help="measured steps of each method, in turn")] = 5,
    as_json: JsonFlag = False,
) -> None:
    """Set clinalign beside stock trl: same model, data and seed; time, peak memory, ratios with spread, both losses.

    Example: clinalign bench dpo --image-tokens 256 --answer-tokens 20
    """
    from alignment.bench.side_by_side import METHODS, Shape, table
    from alignment.bench.side_by_side import bench as run_bench

    if kind not in METHODS:
        raise InputError(f"bench: no kind '{kind}'; there are {', '.join(METHODS)}.")
    if hidden_size % 8:
        raise InputError(f"--hidden-size {hidden_size}: expected a multiple of 8, which its heads can share.")
    shape = Shape(image_tokens, answer_tokens, 2 if kind == "dpo" else answers, prompts, hidden_size, layers)
    with tempfile.TemporaryDirectory() as folder:
        result = run_bench(kind, shape, runs=runs, folder=Path(folder))  # pyright: ignore[reportArgumentType]
    if as_json:
        say(result, as_json)
    else:
        Console().print(table(result), highlight=False, markup=False, soft_wrap=True)


def cache(
    run: Annotated[Path | None, typer.Argument(help="a run's folder; without it the shared CLINALIGN_CACHE")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove everything in it.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show where a run (or CLINALIGN_CACHE) keeps reference log-probabilities and image features, and what they take.

    Example: clinalign cache runs/phantom_chest/dpo --clear
    """
    from alignment.models.image_features import cache_sizes
    from alignment.shared_prefix.reference_cache import cache_folder

    if run is not None and not (run / "recipe.resolved.yaml").is_file():
        raise InputError(f"{run}: no run's folder (it has no recipe.resolved.yaml). Name a run such as runs/x/dpo.")
    sizes, folder = cache_sizes(run), cache_folder(run)
    held: dict[str, Any] = {"cache": str(folder), **sizes}
    if clear:
        for name in sizes:
            shutil.rmtree(folder / name)
        held["cleared"] = True
    say(held, as_json)
