"""``clinalign launch``, and how ``clinalign check`` shows memory by ZeRO stage."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from typer.core import TyperGroup

from rewards.config.input_error import InputError, nearest
from rewards.config.strict_yaml import read_yaml

if TYPE_CHECKING:
    from alignment.planning.launch import Command, JobRequest, Machines, Run


OTHER_COMMANDS = ("eval", "counterparts")
"""What can be launched beside recipes, chains and loops."""


def launch(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="what",
            help="RECIPE, CHAIN or LOOP [KEY=VALUE]..., eval RUN DATA [...], or counterparts DATA OUT [...]",
        ),
    ],
    nodes: Annotated[int, typer.Option(min=1)] = 1,
    gpus: Annotated[int, typer.Option(min=1, help="processes of each node, one a GPU")] = 1,
    cpu: Annotated[bool, typer.Option("--cpu", help="Processes without a GPU.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="As `train --fresh`; a requeued job goes on.")] = False,
    inexact: Annotated[bool, typer.Option("--inexact", help="As `train --inexact`.")] = False,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Submit a batch script; of a loop, one for each step. A chain is one job.")
    ] = False,
    time: Annotated[str | None, typer.Option(help="Slurm: a job's time, such as 12:00:00")] = None,
    mem: Annotated[str | None, typer.Option(help="Slurm: memory of each node, such as 200G")] = None,
    cpus_per_task: Annotated[
        int | None, typer.Option(min=1, help="Slurm: CPUs of each node; by default 8 a GPU")
    ] = None,
    head: Annotated[str | None, typer.Option(help="HOST[:PORT] of the first of several nodes")] = None,
    node: Annotated[int | None, typer.Option(help="this node's number; for accelerate")] = None,
    by: Annotated[str, typer.Option(help="torchrun or accelerate")] = "torchrun",
    dry_run: Annotated[bool, typer.Option("--dry-run", "--print", help="Print the line or scripts only.")] = False,
) -> None:
    """Start a recipe, chain or loop, `eval` or `counterparts` on many processes: by torchrun, accelerate or Slurm.

    Options of launch may stand anywhere; others are the command's own (--limit of eval, --seeds of a loop). Partition
    and account are Slurm's variables SBATCH_PARTITION and SBATCH_ACCOUNT.

    Example: clinalign launch recipes/sft/phantom_chest.yaml --gpus 2 --cpu trainer.max_steps=10
    """
    from alignment.planning.launch import JobRequest, Machines

    if by not in ("torchrun", "accelerate"):
        raise InputError(f"launch: no launcher '{by}'. Known: torchrun, accelerate.")
    if slurm and (cpu or by == "accelerate"):
        raise InputError("launch: --slurm starts torchrun on GPUs; leave out --cpu and --by.")
    if not slurm and (time, mem, cpus_per_task) != (None, None, None):
        raise InputError("launch: --time, --mem and --cpus-per-task are asked of Slurm; add --slurm or leave them.")
    launcher: Literal["torchrun", "accelerate"] = "accelerate" if by == "accelerate" else "torchrun"
    machines, request = Machines(nodes, gpus, cpu, head, node, launcher), JobRequest(time, mem, cpus_per_task)
    how = _How(machines, request if slurm else None, dry_run, [*["--fresh"] * fresh, *["--inexact"] * inexact])
    _check_options(words[:1], [ctx.command])
    if words[0] in OTHER_COMMANDS:
        _launch_command(ctx, words, how)
    elif "spec" in (content := read_yaml(Path(words[0]))) and "chain" in content:
        _launch_loop(ctx, words, how)
    else:
        _launch_recipe(ctx, words, how)


@dataclass(frozen=True)
class _How:
    """Where and how something is started; ``request``: to Slurm, None without it; ``flags``: handed on."""

    machines: "Machines"
    request: "JobRequest | None"
    dry_run: bool
    flags: list[str]

    def refuse_flags(self, what: str, known: tuple[str, ...] = ()) -> None:
        """Raises InputError for a flag that is not known there."""
        for flag in self.flags:
            if flag not in known:
                raise InputError(f"launch: {what} knows no {flag}; leave it out.")

    def start(self, run: "Run | Command", script: Path) -> None:
        """Starts or submits it, or prints how; ``script``: where the batch script goes."""
        from alignment.planning.launch import launch as started
        from alignment.planning.launch import sbatch_script, shell_line, submit

        if self.dry_run:
            shown = (
                sbatch_script(run, self.machines, self.request)
                if self.request
                else shell_line(run, self.machines) + "\n"
            )
            sys.stdout.write(shown)
        elif self.request:
            sys.stdout.write(submit(run, self.machines, script, self.request) + "\n")
        elif code := started(run, self.machines):
            raise typer.Exit(code)


def _launch_recipe(ctx: typer.Context, words: list[str], how: _How) -> None:
    """A recipe or chain; each is one job under Slurm."""
    from alignment.planning.launch import Run

    _options(ctx, "train", words)
    recipe, overrides = Path(words[0]), [word for word in words[1:] if not word.startswith("-")]
    flags = [word for word in (*words[1:], *how.flags) if word.startswith("-") and word != "--fresh"]
    here = not (how.dry_run or how.request)
    output = _output_of(recipe, overrides, ranks=how.machines.nodes * how.machines.gpus, starts=here)
    how.start(Run(recipe, [*overrides, *flags], fresh="--fresh" in how.flags), output / "launch.sbatch")


def _launch_loop(ctx: typer.Context, words: list[str], how: _How) -> None:
    """A loop: in one go, its steps over ranks; under Slurm a job for each step."""
    from alignment.loop.jobs import jobs_of, printed, submit_jobs
    from alignment.loop.loop_file import read_loop
    from alignment.planning.launch import Command

    how.refuse_flags("a loop", ("--fresh",))
    options, path, fresh = _options(ctx, "run", words), Path(words[0]), "--fresh" in how.flags
    overrides = options["overrides"] or []
    read_loop(path, overrides)
    if how.request is None:
        how.start(Command(path.stem, ["run", *words], fresh), path)
    elif options["step"] is not None:
        raise InputError("launch: --slurm submits a job for each step of a loop; leave out --step.")
    else:
        jobs = jobs_of(path, how.machines, how.request, overrides, seeds=options["seeds"], fresh=fresh)
        sys.stdout.write(printed(jobs) if how.dry_run else submit_jobs(jobs) + "\n")


def _launch_command(ctx: typer.Context, words: list[str], how: _How) -> None:
    """``eval`` or ``counterparts``, whose batch script goes beside what it writes."""
    from alignment.evaluation.kept_answers import evaluation_folder
    from alignment.planning.launch import Command

    how.refuse_flags(words[0])
    options = _options(ctx, words[0], words[1:])
    if words[0] == "eval":
        out = options["out"] or evaluation_folder(options["run"])
        name = f"eval-{Path(options['run']).name}"
    else:
        out, name = Path(options["out"].removesuffix(".parquet")), f"counterparts-{Path(options['out']).name}"
    how.start(Command(name, words), out.with_name(f"{out.name}.sbatch"))


def _options(ctx: typer.Context, command: str, words: list[str]) -> dict[str, Any]:
    """What a command will read in these words, before anything is started.

    Raises: InputError for an option that neither it nor ``launch`` knows, with the nearest name.
    """
    assert ctx.parent is not None
    group = ctx.parent.command
    assert isinstance(group, TyperGroup)
    subcommand = group.get_command(ctx.parent, command)
    assert subcommand is not None
    _check_options(words, [ctx.command, subcommand])
    return subcommand.make_context(command, [*words], parent=ctx.parent).params


def _check_options(words: list[str], commands: list[Any]) -> None:
    options = {n for each in commands for param in each.params for n in (*param.opts, *param.secondary_opts)}
    known = sorted(name for name in options if name.startswith("-"))
    for name in (word.partition("=")[0] for word in words if word.startswith("-")):
        if name not in known:
            raise InputError(f"launch: no option {name}.{nearest(name, known) or ' See: clinalign launch --help.'}")


def _output_of(recipe: Path, overrides: list[str], *, ranks: int, starts: bool) -> Path:
    """The run's folder, once the recipe (or chain) has been read as ``train`` would.

    ``starts``: it will run on this machine, where its first model must be.
    """
    from alignment.checks.chains import is_chain, read_chain, stage_recipe
    from alignment.checks.read_recipe import read_recipe
    from alignment.checks.trainer_faults import check_config
    from alignment.config.checkpoint_folders import check_model_name

    chain = read_chain(recipe, overrides) if is_chain(recipe) else None
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
    table = Table(
        title="GB of one rank at the peak of an update (alignment/planning/memory.py, activations.py)", caption=COVERS
    )
    table.add_column("DeepSpeed")
    for name in next(iter(settings.values())):
        table.add_column(name, justify="right")
    for name, parts in settings.items():
        mark = " <- this recipe" if name == result["this_recipe"] else ""
        table.add_row(name + mark, *(f"{size:.2f}" for size in parts.values()))
    Console(width=140).print(table)
