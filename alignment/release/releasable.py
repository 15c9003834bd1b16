"""Whether a run can be released, as far as files can tell: asked before any library of models is loaded.

Left out: whether the evaluation is of these weights, and what the vocabulary holds (``release.py``).
"""

from pathlib import Path
from typing import Any

from data_builders.output_folders import check_writable
from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json

Json = dict[str, Any]


def judged_run(run: Path, out: Path, *, evaluation: Path | None = None, replace: bool = False) -> tuple[Path, Json]:
    """The file of the run's evaluation, and what it holds.

    Raises: InputError if ``out`` is there already (unless ``replace``) or cannot be written, if the run is not finished
    or has no evaluation, or that holds no figure.
    """
    if not replace:
        _refuse_occupied(out)
    check_writable(out)
    judged = _evaluation_file(run, evaluation)
    figures = _figures(judged, run)
    _check_is_finished(run)
    return judged, figures


def _refuse_occupied(out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"{out}: is there already and not empty. Name another folder, or remove it first.")


def _evaluation_file(run: Path, evaluation: Path | None) -> Path:
    path = evaluation or run / "evaluation"
    file = path / "evaluation.json" if path.suffix != ".json" else path
    if not file.is_file():
        raise InputError(
            f"{file}: no such file. A model is not released without its evaluation. "
            f"Make it first: clinalign eval {run} DATA."
        )
    return file


def _figures(judged: Path, run: Path) -> Json:
    try:
        figures = read_json(judged, "")
    except InputError:
        figures = Json()
    if not isinstance(figures.get("metrics"), dict):
        raise InputError(f"{judged}: not an evaluation. Make it again: clinalign eval {run} DATA.")
    if not figures["metrics"].get("clean"):
        raise InputError(f"{judged}: holds no figure. Evaluate on rows that can be judged: clinalign eval {run} DATA.")
    return figures


def _check_is_finished(run: Path) -> None:
    missing = [name for name in ("recipe.resolved.yaml", "provenance.json") if not (run / name).is_file()]
    if not any((run / "model" / name).is_file() for name in ("config.json", "adapter_config.json")):
        missing.append("model/config.json (or model/adapter_config.json)")
    if missing:
        raise InputError(
            f"{run}: not a finished run: no {', '.join(missing)}. Make one with: clinalign train RECIPE.yaml."
        )
