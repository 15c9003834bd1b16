"""Release: one folder that plain transformers loads, with its card, its evaluation and a manifest.

What is written of data, runs and evaluations is named field by field (``released_fields.py``): a release holds counts
and figures, and no patient. Left out: uploading anywhere. A folder that verifies can be copied by whatever means its
readers have.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from alignment.provenance.data_summary import data_name
from alignment.provenance.lineage import Step, base_name, public_name, steps_of
from alignment.provenance.released_fields import evaluation_form, known_words
from alignment.provenance.weights_digest import model_sha256
from alignment.release.manifest import MANIFEST, make_readable, verify, write_manifest
from alignment.release.model_card import Json, model_card
from alignment.release.releasable import judged_run
from alignment.release.released_model import save_merged
from alignment.release.vocabulary import check_texts, check_vocabulary
from data_builders.locks import only_one
from data_builders.output_folders import new_folder
from rewards.config.input_error import InputError
from rewards.rules.kept_files import keep, known_in
from rewards.rules.known_files import KEPT, KnownFile

__all__ = ["MANIFEST", "model_card", "release", "verify"]


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
    rules = _rules(figures, judged, steps)
    published = _published(figures, steps, rules)
    _check_vocabulary(run, steps, rules, not_names)
    with only_one(out), new_folder(out) as folder:
        num_parameters, architecture = save_merged(run / "model", folder)
        (folder / "evaluation.json").write_text(
            json.dumps(published, indent=2, sort_keys=True) + "\n", encoding="utf-8"
        )
        kept = keep(folder, rules)
        card = model_card(published, steps, num_parameters=num_parameters, architecture=architecture, rules=kept)
        (folder / "README.md").write_text(card, encoding="utf-8")
        write_manifest(folder)
        make_readable(folder)
    return out


def _check_is_of(figures: Json, judged: Path, run: Path) -> None:
    """Raises InputError unless the evaluation is of the very weights of the run."""
    evaluated, of_run = figures.get("model_sha256"), model_sha256(str(run))
    if evaluated == of_run is not None:
        return
    fault = "says not which weights it judged" if evaluated is None else "is of other weights than the run holds"
    raise InputError(f"{judged}: {fault}. Evaluate these again: clinalign eval {run} DATA.")


def _rules(figures: Json, judged: Path, steps: list[Step]) -> dict[str, KnownFile]:
    """The rule sets of the user's own that the model was trained and judged under; known from now on.

    Raises: InputError if one is not there any more, or two of one id differ.
    """
    found = known_in(judged.parent, figures.get("rules"), cure="Evaluate again with: clinalign eval.")
    for step in steps:
        found |= step.rules()
    return {name: file for name, file in sorted(found.items()) if name.startswith(KEPT)}


def _published(figures: Json, steps: list[Step], rules: Collection[str]) -> Json:
    """What is released of an evaluation; the model and the data by public names."""
    rule_sets = [name for name in figures.get("rule_sets") or [] if isinstance(name, str)]
    published = evaluation_form(known_words(rule_sets), rules)(figures)
    lacking = [
        name for name in ("model_sha256", "data_sha256", "num_rows", "num_patients", "seed") if name not in published
    ]
    if lacking or not published["metrics"].get("clean"):
        fault = ", ".join(lacking) or "figures of known names"
        raise InputError(f"the evaluation lacks {fault}. Make it again with: clinalign eval.")
    summary = published.get("data_card") or {}
    named = {"model": f"{base_name(steps)}, after {steps[-1].published['method']}", "data": data_name(summary)}
    return {"max_new_tokens": {}, "versions": {}, "data_card": None, **published, **named}


def _check_vocabulary(run: Path, steps: list[Step], rules: Mapping[str, KnownFile], not_names: Collection[str]) -> None:
    from alignment.models.processors import load_processor

    processor, name = load_processor(str(run)), public_name(steps)
    check_vocabulary(processor.tokenizer, steps, run, written=[file.content.decode() for file in rules.values()])
    check_texts(processor, run, published=load_processor(name) if name else None, not_names=not_names)
