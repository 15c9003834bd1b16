"""Release: one folder that plain transformers loads, with its card, its evaluation and a manifest.

What is written of data, runs and evaluations is named field by field (``released_fields.py``): a release holds counts
and figures, and no patient. Left out: uploading anywhere. A folder that verifies can be copied by whatever means its
readers have.
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from alignment.evaluation.report import CONDITIONS, metric_names
from alignment.provenance.data_summary import data_name, data_sentence
from alignment.provenance.lineage import Step, base_name, public_name, steps_of
from alignment.provenance.released_fields import PROVENANCE, RECIPE, evaluation_form, known_words
from alignment.provenance.weights_digest import model_sha256
from alignment.release.manifest import MANIFEST, make_readable, verify, write_manifest
from alignment.release.releasable import judged_run
from alignment.release.released_model import save_merged
from alignment.release.vocabulary import check_texts, check_vocabulary
from data_builders.locks import only_one
from data_builders.output_folders import new_folder
from rewards.config.input_error import InputError

__all__ = ["MANIFEST", "model_card", "release", "verify"]
Json = dict[str, Any]


def release(
    run: Path, out: Path, *, evaluation: Path | None = None, replace: bool = False, not_names: Collection[str] = ()
) -> Path:
    """The run's model, adapter merged, in ``out`` with processor, card, evaluation and manifest.

    ``evaluation``: the folder or file of its evaluation, by default ``run/evaluation``. ``out`` appears whole
    or not at all; ``replace``: in place of what is there; ``not_names``: words of templates and special tokens that are
    nobody's name. Raises: InputError if the run or its evaluation is missing,
    the latter holds no figure or is of other weights, the vocabulary holds words of reports, or ``out`` is not empty.
    """
    judged, figures = judged_run(run, out, evaluation=evaluation, replace=replace)
    _check_is_of(figures, judged, run)
    steps = steps_of(run)
    told = _evaluation_told(figures, steps)
    _check_vocabulary(run, steps, not_names)
    with only_one(out), new_folder(out) as folder:
        num_parameters, architecture = save_merged(run / "model", folder)
        (folder / "evaluation.json").write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        card = model_card(told, steps, num_parameters=num_parameters, architecture=architecture)
        (folder / "README.md").write_text(card, encoding="utf-8")
        write_manifest(folder)
        make_readable(folder)
    return out


def _check_is_of(figures: Json, judged: Path, run: Path) -> None:
    """Raises InputError unless the evaluation is of the very weights of the run."""
    evaluated, own = figures.get("model_sha256"), model_sha256(str(run))
    if evaluated == own is not None:
        return
    fault = "says not which weights it judged" if evaluated is None else "is of other weights than the run holds"
    raise InputError(f"{judged}: {fault}. Evaluate these again: clinalign eval {run} DATA.")


def _evaluation_told(figures: Json, steps: list[Step]) -> Json:
    """What is released of an evaluation; the model and the data by public names."""
    rule_sets = [name for name in figures.get("rule_sets") or [] if isinstance(name, str)]
    told = evaluation_form(known_words(rule_sets))(figures)
    lacking = [name for name in ("model_sha256", "data_sha256", "num_rows", "num_patients", "seed") if name not in told]
    if lacking or not told["metrics"].get("clean"):
        fault = ", ".join(lacking) or "figures of known names"
        raise InputError(f"the evaluation lacks {fault}. Make it again with: clinalign eval.")
    summary = told.get("data_card") or {}
    named = {"model": f"{base_name(steps)}, after {steps[-1].told['method']}", "data": data_name(summary)}
    return {"max_new_tokens": {}, "versions": {}, "data_card": None, **told, **named}


def _check_vocabulary(run: Path, steps: list[Step], not_names: Collection[str]) -> None:
    from alignment.models.loading import load_processor

    processor, name = load_processor(str(run)), public_name(steps)
    check_vocabulary(processor.tokenizer, steps, run)
    check_texts(processor, run, published=load_processor(name) if name else None, not_names=not_names)


def model_card(evaluation: Json, steps: list[Step], *, num_parameters: int, architecture: str) -> str:
    """README.md of a release: data, recipe, evaluation beside its controls, limits, intended use."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("alignment.release", "."),
        autoescape=False,  # Markdown, of released fields only
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    conditions = [c for c in CONDITIONS if c in evaluation["metrics"]]
    recipe = RECIPE(steps[-1].recipe)
    return environment.get_template("model_card.md.j2").render(
        architecture=architecture,
        base=base_name(steps),
        method=recipe.get("method", "training"),
        trained_on=[step.told for step in steps],
        tested_on=evaluation["data_card"] or {"sha256": evaluation["data_sha256"]},
        sentence=data_sentence,
        recipe_yaml=yaml.safe_dump(recipe, sort_keys=False).strip(),
        provenance=PROVENANCE(steps[-1].provenance),
        evaluation=evaluation,
        conditions={c: CONDITIONS[c] for c in conditions},
        rows=_table_rows(evaluation["metrics"], conditions),
        num_parameters=num_parameters,
    )


def _table_rows(metrics: Json, conditions: list[str]) -> list[list[str]]:
    names = metric_names([metrics[c] for c in conditions])
    return [[name, *(_figure(metrics[c].get(name)) for c in conditions)] for name in names]


def _figure(metric: Json | None) -> str:
    if not metric or metric.get("value") is None:
        return "–"
    low, high = metric.get("low"), metric.get("high")
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"{metric['value']:.3f}{interval}"
