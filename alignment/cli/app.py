"""The command line: one command a step of the loop, and filters for any shell.

Each command does one step, says where its output went, and ends with one clear sentence and exit code 2 on bad input.
"""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from alignment.cli.cache import cache
from alignment.cli.cluster import launch, show_memory
from alignment.cli.faults import Commands, console
from alignment.cli.output import JsonFlag, Overrides, say
from alignment.cli.release import verify
from alignment.cli.reward_models import eval_reward_model
from alignment.cli.rewards import audit, check_rules, eval_reader_command, list_rewards, read, score
from alignment.cli.soak import ledger, soak
from alignment.cli.splits import audit_splits_command
from alignment.distributed.engine import end_with_the_launcher, share_cores
from alignment.distributed.processes import is_first_of_node, is_main_process, leave_process_group
from data_builders.interruptions import Stopped, handled_by, stop
from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json

if TYPE_CHECKING:
    from rewards.llm.client import Backend
    from rewards.llm.spec import LlmSpec

app = typer.Typer(
    cls=Commands,
    help="Align medical vision-language models by preferences and verifiable rewards.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.command()(cache)


def main() -> None:
    """Runs a command; a user's mistake is one sentence for each fault and exit code 2, never a traceback."""
    share_cores()
    if not is_main_process():
        os.environ.setdefault("TQDM_DISABLE", "1")  # no bars of libraries beside those of rank 0
    end_with_the_launcher()
    if "--json" in sys.argv:  # libraries that log to standard output must not spoil the one JSON object on it
        sys.stdout = sys.stderr
    with handled_by(stop):
        try:
            app()
        except Stopped as stopped:
            _end(stopped)


def _end(stopped: Stopped) -> None:
    """Says once on every node what stands and which command goes on; ends with 128 and the signal's number."""
    if is_first_of_node():
        command = shlex.join(["clinalign", *(word for word in sys.argv[1:] if word != "--fresh")])
        again = "the same launch" if "RANK" in os.environ else command
        sentence = f"stopped by {stopped.name}. {stopped.stands} Go on with: {again}".replace(".  ", ". ")
        console.print(escape(sentence), highlight=False, soft_wrap=True)
    leave_process_group(stopped.exit_code)
    sys.exit(stopped.exit_code)


def _local_backend(llm: "LlmSpec") -> "Backend":
    """The backend of a local LLM; torch is loaded here and not before."""
    from alignment.reward_functions.adapter import local_backend

    return local_backend(llm)


@app.command()
def build(
    spec: Annotated[Path, typer.Argument(help="a data spec, such as recipes/data/phantom_chest.yaml")],
    overrides: Overrides = None,
    as_json: JsonFlag = False,
) -> None:
    """Build a data set: rows as Parquet, card.json, and gallery.html to look at.

    Example: clinalign build recipes/data/phantom_chest.yaml
    """
    from data_builders.build.build import build as build_data
    from data_builders.build.build_spec import read_spec
    from data_builders.cards import read_card

    out = build_data(read_spec(spec, overrides or []), local=_local_backend, inputs=[spec])
    card = read_card(out)
    figures = {name: card[name] for name in ("counts", "preference", "notes") if card.get(name)}
    say({"built": str(out), "gallery": str(out / "gallery.html"), **figures}, as_json)


@app.command()
def export(
    data: Annotated[str, typer.Argument(help="preference rows, such as data/mmedpo_phantom/preference/align")],
    shape: Annotated[str, typer.Argument(metavar="FORMAT", help="mmedpo, llava, ms_swift or trl")],
    out: Annotated[Path, typer.Argument(help="a new folder for the file of pairs and its images")],
    as_json: JsonFlag = False,
) -> None:
    """Write preference pairs in another trainer's shape, and count what is weak in them."""
    from alignment.config.data_entries import parquet
    from data_builders.formats.export import export as export_pairs

    say(export_pairs(parquet(data), shape, out), as_json)


app.command(context_settings={"ignore_unknown_options": True})(launch)


@app.command()
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
    checked = check_chain if _is_chain(recipe) else check_recipe
    result = checked(recipe, overrides or [], Scale(nodes, gpus, rate, tokens, measure), every_pixel=pixels)
    plain = result if as_json else {k: v for k, v in result.items() if k != "memory_gb_per_rank"}
    say(plain, as_json)
    if "memory_gb_per_rank" in result and not as_json:
        show_memory(result)


@app.command()
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
    from alignment.checks.read_recipe import read_recipe
    from alignment.distributed.ranks import agreed, end_with_the_others
    from alignment.training.chains import run_chain
    from alignment.training.run import run

    if agreed(lambda: _is_chain(recipe)):
        folders = run_chain(recipe, overrides or [], fresh=fresh, inexact=inexact)
    else:
        read = agreed(lambda: read_recipe(recipe, overrides or []))
        folders = [run(read, fresh=fresh, inexact=inexact, inputs=[recipe])]
    say({"trained": [str(folder) for folder in folders]}, as_json)
    end_with_the_others(0)  # rank 0 may hold what they meet at
    leave_process_group()


def _is_chain(recipe: Path) -> bool:
    from rewards.config.strict_yaml import read_yaml

    return "stages" in read_yaml(recipe)


@app.command("eval")
def evaluate_command(
    run: Annotated[str, typer.Argument(help="a run's folder, a model folder or a Hugging Face name")],
    data: Annotated[str, typer.Argument(help="prompt rows, such as data/phantom_chest/prompt/test")],
    out: Annotated[Path | None, typer.Option(help="by default RUN/evaluation, or evaluations/NAME")] = None,
    limit: Annotated[int | None, typer.Option(help="only so many rows, drawn at random")] = None,
    probe: Annotated[bool, typer.Option(help="also: does the model look? Writes blindness.json")] = False,
    box_space: Annotated[
        str | None, typer.Option(help="units of the model's boxes (0-1000, pixels, ...); by default its recipe's")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="another evaluation's folder on these rows, to compare with")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Evaluate on held-out prompt rows: metrics with intervals, blind controls, an HTML report with pictures.

    On many GPUs: clinalign launch eval RUN DATA --gpus N
    """
    from alignment.config.box_units import known_space, written_space
    from alignment.config.data_entries import parquet
    from alignment.data.prompt_rows import checked_file
    from alignment.distributed.ranks import agreed, alone_at, of_rank_0
    from alignment.evaluation.evaluate import evaluate
    from alignment.evaluation.kept_answers import check_out, evaluation_folder
    from alignment.models.loading import load_for_inference
    from alignment.provenance.weights_digest import model_sha256

    if out is not None and is_main_process():
        check_out(out)
    agreed(lambda: checked_file(Path(data)))  # before a model is loaded
    rows, target = parquet(data), out or agreed(lambda: evaluation_folder(run))
    with alone_at(target):
        of_rank_0(lambda: check_out(target))
        weights = model_sha256(run) if is_main_process() else None
        model, processor = agreed(lambda: load_for_inference(run))
        evaluation = evaluate(
            model,
            processor,
            rows,
            out=target,
            limit=limit,
            model_name=run,
            progress=True,
            probe=probe,
            weights_sha256=weights,
            box_space=known_space(box_space) if box_space else written_space(run),
        )
    if not is_main_process():
        return
    figures = {c: {n: m.value for n, m in found.items()} for c, found in evaluation.metrics.items()}
    looked = _looked(target / "blindness.json") if probe else {}
    if against is not None:
        from alignment.evaluation.run_comparison import compared

        looked["against"] = compared(against, target)
    page = {"report": str(target / "report.html"), "rows": evaluation.num_rows, "unjudged": evaluation.unjudged}
    say({**page, "metrics": figures, **looked}, as_json)


def _looked(file: Path) -> dict[str, object]:
    """By how much each metric of the blindness probe changes when the image shows less, and on how many rows."""
    content = read_json(file, "Evaluate again.")
    drops = {c: {name: m["value"] for name, m in found.items()} for c, found in content["drops"].items()}
    return {"probed": {name: content[name] for name in ("num_rows", "without_lesion")}, "blindness": drops}


@app.command()
def release(
    run: Path,
    out: Path,
    not_a_name: Annotated[
        list[str] | None, typer.Option(help="a word of the base model's template or tokens that is nobody's name")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Release a run: merged weights, processor, model card, evaluation, and a manifest with SHA-256 of every file."""
    from alignment.release.releasable import judged_run

    judged_run(run, out)  # before the libraries of models, which take their time to load
    from alignment.release.release import release as release_run

    say({"released": str(release_run(run, out, not_names=not_a_name or ()))}, as_json)


app.command()(verify)


@app.command()
def demo(
    loop: Annotated[Path, typer.Argument(help="the loop to run")] = Path("recipes/loops/phantom_chest.yaml"),
    seeds: Annotated[int, typer.Option(min=1, help="how many seeds; intervals over seeds need at least three")] = 1,
    fresh: Annotated[bool, typer.Option(help="Start anew instead of going on.")] = False,
    step: Annotated[
        str | None,
        typer.Option(help="only this: build, a stage, STAGE/evaluation, release"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """The whole loop: build, SFT, own errors, DPO, GRPO, evaluate every stage, release; one table at the end.

    On many GPUs, or as a job for each step: clinalign launch LOOP --gpus N [--slurm]
    """
    from alignment.loop.run_loop import run_loop

    result = run_loop(loop, seeds=seeds, fresh=fresh, quiet=as_json, step=step)
    if as_json or "made" in result:
        say(result, as_json)


@app.command()
def counterparts(
    data: Annotated[str, typer.Argument(help="prompt rows, such as data/phantom_chest/prompt/align")],
    out: Annotated[str, typer.Argument(help="where to write them with the column `counterparts`")],
    model: Annotated[list[str], typer.Option(help="NAME=a run's folder, a hub name, or a YAML file of an endpoint")],
    task: Annotated[list[str] | None, typer.Option(help="only rows of this task")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="only the first rows")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 96,
    as_json: JsonFlag = False,
) -> None:
    """Ask named models once for their answers: the pool that the reward `crpo` compares with. Resumes where it was.

    Example: clinalign counterparts data/x/prompt/align data/x/pool/align --model sft=runs/x/sft --task report
    """
    from alignment.reward_functions.counterparts import write_counterparts

    named = {name: path for name, _, path in (entry.partition("=") for entry in model)}
    if len(named) < len(model) or not all(named.values()):
        raise InputError(f"--model {' '.join(model)}: expected different NAME=MODEL, such as sft=runs/x/sft.")
    say(write_counterparts(data, out, named, tasks=task, limit=limit, max_new_tokens=max_new_tokens), as_json)


@app.command()
def winrate(
    pool: Annotated[
        str, typer.Argument(help="rows with the column `counterparts`, as `clinalign counterparts` writes")
    ],
    judge: Annotated[str, typer.Option(help="`facts`, or a YAML file that names a judge")] = "facts",
    model: Annotated[list[str] | None, typer.Option(help="who plays; all by default")] = None,
    trained_against: Annotated[list[str] | None, typer.Option(help="who must not play: a training opponent")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Win rates and Elo ratings, with intervals, between the models whose answers a pool holds.

    Example: clinalign winrate data/x/pool/test --model crpo --model base --trained-against sft
    """
    from alignment.reward_functions.counterparts import pool_tournament

    say(pool_tournament(pool, judge=judge, models=model, trained_against=trained_against or []), as_json)


@app.command()
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
    import tempfile

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


@app.command()
def inspect(
    data: str,
    row: Annotated[int, typer.Option(help="which row")] = 0,
    model: Annotated[str, typer.Option(help="whose processor; without it only the row is shown")] = "",
    out: Annotated[Path, typer.Option(help="where to write the image as processed")] = Path("inspect.png"),
    as_json: JsonFlag = False,
) -> None:
    """Show what the model is given for one row: image as processed, tokens, label mask, image-token count."""
    from alignment.cli.inspection import inspect_row

    say(inspect_row(data, row, model, out), as_json)


app.command("rewards")(list_rewards)
app.command()(check_rules)
app.command()(audit)
app.command()(score)
app.command()(read)
app.command("eval-reader")(eval_reader_command)
app.command()(soak)
app.command()(ledger)
app.command("eval-reward-model")(eval_reward_model)
app.command("audit-splits")(audit_splits_command)

if __name__ == "__main__":
    main()
