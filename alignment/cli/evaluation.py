"""Commands on a trained model: evaluate it, set it against others, release it, verify the release."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from alignment.cli.output import JsonFlag, say, say_json
from alignment.cli.rewards import Rules, make_known
from alignment.distributed.processes import is_main_process
from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json

if TYPE_CHECKING:
    from alignment.evaluation.evaluation_file import Evaluation


def evaluate_command(
    run: Annotated[
        str,
        typer.Argument(help="a run's folder, a model folder, a Hugging Face name, or a file of answers"),
    ],
    data: Annotated[str, typer.Argument(help="prompt rows, such as data/x/prompt/test, or a file of questions")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[GENERATION]...", help="such as generation.max_new_tokens.report=400"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="by default RUN/evaluation, or evaluations/NAME")] = None,
    limit: Annotated[int | None, typer.Option(help="only so many rows, drawn at random")] = None,
    probe: Annotated[bool, typer.Option(help="also: does the model look? Writes blindness.json")] = False,
    box_space: Annotated[
        str | None, typer.Option(help="units of the model's boxes (0-1000, pixels, ...); by default its recipe's")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="another evaluation's folder on these rows, to compare with")
    ] = None,
    rules: Rules = None,
    as_json: JsonFlag = False,
) -> None:
    """Evaluate on held-out prompt rows: metrics with intervals, blind controls, an HTML report with pictures.

    Answers of another program, {"id": ..., "response": ...} a line, are judged by the same metrics.
    On many GPUs: clinalign launch eval RUN DATA --gpus N
    """
    from alignment.checks.user_data import built_rows
    from alignment.config.box_units import known_space, written_space
    from alignment.config.data_entries import parquet
    from alignment.config.generation_section import generation_of
    from alignment.data.prompt_rows import COLUMNS, checked_file
    from alignment.distributed.ranks import agreed, alone_at, of_rank_0
    from alignment.evaluation.evaluate import evaluate
    from alignment.evaluation.judgement import is_answers, judge_answers
    from alignment.evaluation.kept_answers import beside, check_out, evaluation_folder
    from alignment.models.loading import load_for_inference
    from alignment.provenance.weights_digest import model_sha256

    if out is not None and is_main_process():
        check_out(out)
    given = Path("evaluations") / Path(run).stem if is_answers(run) else None
    data = built_rows(data, "prompt", COLUMNS, str(out or given or beside(run)), split="test")
    agreed(lambda: _know_rules(run, data, rules))
    agreed(lambda: checked_file(Path(data)))  # before a model is loaded
    if is_answers(run):
        for option, value in (("--probe", probe), (" ".join(overrides or []), overrides)):
            if value:
                raise InputError(f"{option}: has no effect on answers that were given already. Leave it out.")
        target = out or given
        assert target is not None
        _check_against(against, target)
        space = known_space(box_space) if box_space else "grid"
        evaluation = judge_answers(Path(run), Path(data), out=target, limit=limit, box_space=space)
        _say_figures(evaluation, target, against, {}, as_json)
        return
    how = agreed(lambda: generation_of(run, overrides or []))
    rows, target = parquet(data), out or agreed(lambda: evaluation_folder(run))
    agreed(lambda: _check_against(against, target))
    with alone_at(target):
        of_rank_0(lambda: check_out(target))
        weights = model_sha256(run) if is_main_process() else None
        model, processor = agreed(lambda: load_for_inference(run, dtype=how.dtype))
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
            generation=how,
        )
    if is_main_process():
        _say_figures(evaluation, target, against, _looked(target / "blindness.json") if probe else {}, as_json)


def _check_against(against: Path | None, target: Path) -> None:
    """Before anything is answered: there is an evaluation to compare with, and it is not the one that is made.

    Raises: InputError otherwise.
    """
    if against is None:
        return
    from alignment.evaluation.evaluation_file import Evaluation

    Evaluation.read(against)
    if against.resolve() == target.resolve():
        raise InputError(f"--against {against}: is where this evaluation goes. Name another --out.")


def _say_figures(
    evaluation: "Evaluation", folder: Path, against: Path | None, looked: dict[str, object], as_json: bool
) -> None:
    """The figures of an evaluation in a folder, set against another where one is named."""
    figures = {c: {n: m.value for n, m in found.items()} for c, found in evaluation.metrics.items()}
    if against is not None:
        from alignment.evaluation.run_comparison import compared

        looked = looked | {"against": compared(against, folder)}
    page = {"report": str(folder / "report.html"), "rows": evaluation.num_rows, "unjudged": evaluation.unjudged}
    say({**page, "metrics": figures, **looked}, as_json)


def _know_rules(run: str, data: str, rules: list[Path] | None) -> None:
    """Makes the rule sets known that rows may name: those given, those of the rows' folder, those of the model's."""
    from alignment.config.data_entries import parquet
    from alignment.provenance.kept_rules import know_rules_of_model

    make_known(rules)
    parquet(data)
    know_rules_of_model(run)


def _looked(file: Path) -> dict[str, object]:
    """By how much each metric of the blindness probe changes when the image shows less, and on how many rows."""
    content = read_json(file, "Evaluate again.")
    drops = {c: {name: m["value"] for name, m in found.items()} for c, found in content["drops"].items()}
    return {"probed": {name: content[name] for name in ("num_rows", "without_lesion")}, "blindness": drops}


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


def verify(folder: Annotated[Path, typer.Argument(help="a released folder")], as_json: JsonFlag = False) -> None:
    """Check a release against its manifest: files that changed, are missing, or were added. Exit code 1 if any.

    Compared are the names and bytes of files; an added folder is told too. Left out: who may read or run a file, its
    owner and its times.

    Example: clinalign verify released/phantom_chest
    """
    from alignment.release.manifest import faults_of

    faults = faults_of(folder)
    if as_json:
        listed = [{"file": name, "fault": fault} for name, fault in faults.items()]
        say_json({"folder": str(folder), "verified": not faults, "faults": listed})
    else:
        lines = [f"{name!a} {fault}" for name, fault in faults.items()]
        for line in lines or [f"verified: {folder}"]:
            Console().print(line, highlight=False, markup=False, soft_wrap=True)
    if faults:
        raise typer.Exit(1)
