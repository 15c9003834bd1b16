"""The evaluation of one stage of a loop: made where it is not there, or is of other weights than the stage's.

Ranks share out the answers; rank 0 alone looks at what is there and writes.
"""

from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console

from alignment.config.box_units import written_space
from alignment.config.data_entries import parquet
from alignment.config.generation_section import GenerationSection, generation_of
from alignment.data.prompt_rows import limited, read_rows
from alignment.distributed.processes import is_main_process
from alignment.distributed.ranks import agreed, alone_at, of_rank_0
from alignment.evaluation.evaluate import evaluate
from alignment.evaluation.evaluation_file import Evaluation
from alignment.evaluation.kept_answers import is_finished
from alignment.evaluation.operating_points import biases_in, operating_points, write_points
from alignment.loop.loop_file import Loop
from alignment.models.loading import load_for_inference
from alignment.provenance.weights_digest import model_sha256
from data_builders.digest import sha256


def evaluated(loop: Loop, data: Path, run_folder: Path, out: Path, *, controls: bool) -> Path:
    """The evaluation folder of a stage; made if it is not there, or is not of the weights that are there.

    Raises: InputError if another process evaluates into it.
    """
    with alone_at(out):
        _evaluate(loop, data, run_folder, out, controls=controls)
    return out


def _evaluate(loop: Loop, data: Path, run_folder: Path, out: Path, *, controls: bool) -> None:
    how = agreed(lambda: loop.generation or generation_of(str(run_folder)))
    weights, anew, points = of_rank_0(lambda: _lacking(loop, how, data, run_folder, out))
    if anew:
        model, processor = load_for_inference(str(run_folder), dtype=how.dtype)
        done = evaluate(
            model,
            processor,
            data / loop.test,
            out=out,
            model_name=str(run_folder),
            limit=loop.limit,
            reference=data / loop.reference if loop.reference and controls else None,
            blind_controls=controls,
            generation=how,
            progress=True,
            probe=loop.probe,
            probe_limit=loop.probe_limit,
            box_space=written_space(str(run_folder)),
            weights_sha256=weights,
        )
        console = Console(stderr=True, quiet=not is_main_process())
        for reason, number in done.unjudged.items():
            console.print(f"{number} of {done.num_rows} rows: {reason}; not judged", highlight=False)
    if points:
        model, processor = load_for_inference(str(run_folder), dtype=how.dtype)
        rows = limited(read_rows(data / loop.test), limit=loop.limit, seed=0)
        found = operating_points(model, processor, rows, loop.operating_points, generation=how)
        if is_main_process():
            write_points(found, out)


def _lacking(
    loop: Loop, how: GenerationSection, data: Path, run_folder: Path, out: Path
) -> tuple[str | None, bool, bool]:
    """By which the weights are known, whether they must be evaluated, and whether operating points are to be found."""
    weights = model_sha256(str(run_folder))
    anew = not (is_finished(out) and is_of(out, weights) and _is_so(out, how, data / loop.test, loop.limit))
    return weights, anew, bool(loop.operating_points) and (anew or biases_in(out) != loop.operating_points)


def _is_so(evaluation: Path, how: GenerationSection, test: Path, limit: int | None) -> bool:
    """Whether it is an evaluation of these very rows, answered in this way."""
    found, file = Evaluation.read(evaluation), parquet(str(test))
    number = pq.read_metadata(file).num_rows
    return (
        found.data_sha256 == sha256(file)
        and found.num_rows == min(limit or number, number)
        and found.max_new_tokens == how.bounds()
        and found.generation == how.model_dump(include={"dtype", "temperature", "seed"})
    )


def is_of(evaluation: Path, weights: str | None) -> bool:
    """Whether the folder holds an evaluation of these weights."""
    return (evaluation / "evaluation.json").is_file() and Evaluation.read(evaluation).model_sha256 == weights
