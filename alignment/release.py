"""Release: one folder that plain transformers loads, with its card, its evaluation and a manifest.

Left out: uploading anywhere. A folder that verifies can be copied by whatever means its readers have.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from alignment.report import CONDITIONS, metric_names
from data_builders.digest import sha256
from data_builders.locks import only_one
from data_builders.output_folders import new_folder
from rewards.strict_yaml import InputError

MANIFEST = "manifest.json"
Json = dict[str, Any]


def release(run: Path, out: Path, *, evaluation: Path | None = None) -> Path:
    """The run's model, adapter merged, in ``out`` with processor, card, evaluation and manifest.

    ``evaluation``: the folder or file of its evaluation, by default ``run/evaluation``. ``out`` appears whole
    or not at all. Raises: InputError if the run or its evaluation is missing, the latter holds no figure, or ``out`` is
    not empty.
    """
    judged = _evaluation_file(run, evaluation)
    figures = json.loads(judged.read_text(encoding="utf-8"))
    if not figures["metrics"].get("clean"):
        raise InputError(f"{judged}: holds no figure. Evaluate on rows that can be judged: clinalign eval {run} DATA.")
    recipe, provenance = _run_records(run)
    _refuse_occupied(out)
    with only_one(out), new_folder(out) as folder:
        num_parameters = save_merged(run / "model", folder)
        shutil.copyfile(judged, folder / "evaluation.json")
        card = model_card(out.name, recipe, provenance, figures, num_parameters)
        (folder / "README.md").write_text(card, encoding="utf-8")
        _write_manifest(folder)
    return out


def _evaluation_file(run: Path, evaluation: Path | None) -> Path:
    place = evaluation or run / "evaluation"
    file = place / "evaluation.json" if place.suffix != ".json" else place
    if not file.is_file():
        raise InputError(
            f"{file}: no such file. A model is not released without its evaluation. "
            f"Make it first: clinalign eval {run} DATA."
        )
    return file


def _run_records(run: Path) -> tuple[Json, Json]:
    """The resolved recipe and the provenance of a finished run."""
    missing = [name for name in ("recipe.resolved.yaml", "provenance.json") if not (run / name).is_file()]
    if not any((run / "model" / name).is_file() for name in ("config.json", "adapter_config.json")):
        missing.append("model/config.json (or model/adapter_config.json)")
    if missing:
        raise InputError(
            f"{run}: not a finished run: no {', '.join(missing)}. Make one with: clinalign train RECIPE.yaml."
        )
    recipe = yaml.safe_load((run / "recipe.resolved.yaml").read_text(encoding="utf-8"))
    return recipe, json.loads((run / "provenance.json").read_text(encoding="utf-8"))


def _refuse_occupied(out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"{out}: is there already and not empty. Name another folder, or remove it first.")


def save_merged(model_folder: Path, out: Path) -> int:
    """Weights (adapter merged, precision as it was) and processor in ``out``; counts the parameters."""
    from peft import PeftModel

    from alignment.models import load_model, load_processor

    model = load_model(str(model_folder), dtype="auto")
    whole: Any = model.merge_and_unload() if isinstance(model, PeftModel) else model
    whole.save_pretrained(out)
    load_processor(str(model_folder)).save_pretrained(out)
    return sum(parameter.numel() for parameter in whole.parameters())


def model_card(name: str, recipe: Json, provenance: Json, evaluation: Json, num_parameters: int) -> str:
    """README.md of a release: data, recipe, evaluation beside its controls, limits, intended use."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("alignment", "."),
        autoescape=False,  # Markdown, shown by tools that escape HTML themselves
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    conditions = [c for c in CONDITIONS if c in evaluation["metrics"]]
    return environment.get_template("model_card.md.j2").render(
        name=name,
        recipe=recipe,
        recipe_yaml=yaml.safe_dump(recipe, sort_keys=False).strip(),
        provenance=provenance,
        evaluation=evaluation,
        data_card=evaluation.get("data_card"),
        conditions={c: CONDITIONS[c] for c in conditions},
        rows=_table_rows(evaluation["metrics"], conditions),
        num_parameters=num_parameters,
    )


def _table_rows(metrics: Json, conditions: list[str]) -> list[list[str]]:
    names = metric_names([metrics[c] for c in conditions])
    return [[name, *(_figure(metrics[c].get(name)) for c in conditions)] for name in names]


def _figure(metric: Json | None) -> str:
    if metric is None:
        return "–"
    interval = "" if metric["low"] is None else f" [{metric['low']:.3f}, {metric['high']:.3f}]"
    return f"{metric['value']:.3f}{interval}"


def _write_manifest(folder: Path) -> None:
    manifest = {"files": {path.relative_to(folder).as_posix(): _fingerprint(path) for path in _files(folder)}}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST)


def _fingerprint(path: Path) -> Json:
    return {"sha256": sha256(path), "bytes": path.stat().st_size}


def verify(out: Path) -> int:
    """How many files the release holds, all of them as they were when it was made.

    Raises: InputError naming every file that is missing, changed or not listed.
    """
    manifest = out / MANIFEST
    if not manifest.is_file():
        raise InputError(f"{manifest}: no such file, so no release. Make one with: clinalign release RUN OUT.")
    listed: Json = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    present = {path.relative_to(out).as_posix(): _fingerprint(path) for path in _files(out)}
    faults = [_fault(name, listed.get(name), present.get(name)) for name in sorted(listed | present)]
    if told := [fault for fault in faults if fault]:
        raise InputError(f"{out}: not as it was released: {'; '.join(told)}. Release it again from its run.")
    return len(present)


def _fault(name: str, listed: Json | None, present: Json | None) -> str | None:
    if listed is None or present is None:
        return f"{name} is {'not in the manifest' if listed is None else 'missing'}"
    return None if listed == present else f"{name} has changed"
