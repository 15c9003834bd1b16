"""``clinalign launch``, and how ``clinalign check`` shows memory by ZeRO stage."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from alignment.cli_output import Overrides
from rewards.strict_yaml import InputError, read_yaml


def launch(
    recipe: Path,
    overrides: Overrides = None,
    nodes: Annotated[int, typer.Option(min=1)] = 1,
    gpus: Annotated[int, typer.Option(min=1, help="processes of each node, one a GPU")] = 1,
    cpu: Annotated[bool, typer.Option("--cpu", help="Processes without a GPU.")] = False,
    slurm: Annotated[bool, typer.Option("--slurm", help="Submit a batch script.")] = False,
    head: Annotated[str | None, typer.Option(help="HOST[:PORT] of the first of several nodes")] = None,
    node: Annotated[int | None, typer.Option(help="this node's number; for accelerate")] = None,
    by: Annotated[str, typer.Option(help="torchrun or accelerate")] = "torchrun",
    dry_run: Annotated[bool, typer.Option("--dry-run", "--print", help="Print the line or script only.")] = False,
) -> None:
    """Start a recipe on many processes: the torchrun, accelerate or sbatch line for it, and nothing more.

    Example: clinalign launch recipes/sft/phantom_chest.yaml --gpus 2 --cpu trainer.max_steps=10
    """
    from alignment.launch import Place, Run, sbatch_script, shell_line, submit
    from alignment.launch import launch as start

    if by not in ("torchrun", "accelerate"):
        raise InputError(f"launch: no launcher '{by}'. Known: torchrun, accelerate.")
    if slurm and (cpu or by == "accelerate"):
        raise InputError("launch: --slurm starts torchrun on GPUs; leave out --cpu and --by.")
    launcher: Literal["torchrun", "accelerate"] = "accelerate" if by == "accelerate" else "torchrun"
    run, place = Run(recipe, overrides or []), Place(nodes, gpus, cpu, head, node, launcher)
    output = _output_of(recipe, run.overrides, ranks=nodes * gpus, starts=not (dry_run or slurm))
    if dry_run:
        sys.stdout.write(sbatch_script(run, place) if slurm else shell_line(run, place) + "\n")
    elif slurm:
        sys.stdout.write(submit(run, place, output) + "\n")
    elif code := start(run, place):
        raise typer.Exit(code)


def _output_of(recipe: Path, overrides: list[str], *, ranks: int, starts: bool) -> Path:
    """The run's folder, once the recipe (or chain) has been read as ``train`` would.

    ``starts``: it will run on this machine, where its first model must be.
    """
    from alignment.config_faults import check_config, check_model_name
    from alignment.recipe import read_recipe
    from alignment.train import read_chain, stage_recipe

    chain = read_chain(recipe, overrides) if "stages" in read_yaml(recipe) else None
    first = stage_recipe(chain, 0, recipe) if chain else read_recipe(recipe, overrides)
    check_config(first, here=False, ranks=ranks, launched=True)
    if starts:
        check_model_name(first.model.path)
    return Path(chain.output if chain else first.output)


COVERS = (
    "Tensors of the largest batch (torch's max_memory_allocated). Not the CUDA context (about 1 GB), the allocator's "
    "reserve, nor generation's cache. Within 1 % of the 12 peaks measured on one GPU (adapters, no DeepSpeed); what "
    "DeepSpeed holds was counted on CPU ranks, its peaks on GPUs were not measured."
)


def show_memory(result: dict[str, Any]) -> None:
    """A table with a row for each setting, the recipe's own marked."""
    from rich.table import Table

    settings = result["memory_gb_per_rank"]
    table = Table(title="GB of one rank at the peak of an update (alignment/memory.py, activations.py)", caption=COVERS)
    table.add_column("DeepSpeed")
    for name in next(iter(settings.values())):
        table.add_column(name, justify="right")
    for name, parts in settings.items():
        mark = " <- this recipe" if name == result["this_recipe"] else ""
        table.add_row(name + mark, *(f"{size:.2f}" for size in parts.values()))
    Console(width=140).print(table)
