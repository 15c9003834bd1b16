"""From a source to a built data set: split, word, write, count. The same spec gives the same bytes.

``OUT/KIND/SPLIT.parquet`` in TRL's columns and ours, ``card.json``, ``gallery.html``. Rows are written as they
come, so memory does not grow with the data set. Left out: streaming from object stores, and more than one worker.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from data_builders.build.build_spec import BuildSpec
from data_builders.build.card import card_of
from data_builders.build.gallery import write_gallery
from data_builders.build.preference_set import finished
from data_builders.build.row_files import RowFiles
from data_builders.build.sample_rows import rows_of
from data_builders.build.strata import placements, write_placements
from data_builders.build.tally import Tally
from data_builders.build.written_rows import fault_of_written, own_split, written_rows
from data_builders.curriculum.rows import open_curriculum
from data_builders.dialogues.paraphrases import LlmParaphraser
from data_builders.dialogues.writer import Paraphraser, dialogue_fault
from data_builders.imaging.images import ImageError, decoded
from data_builders.locks import only_one
from data_builders.output_folders import (
    named_files,
    new_folder,
    refuse_foreign,
    refuse_needed,
    refuse_nested,
    refuse_others,
)
from data_builders.own_files import own_files_of_set
from data_builders.schema import Quarantined, Sample, Written
from data_builders.set_card import CARD
from data_builders.splits.splits import split_of
from rewards.boxes.geometry import is_valid
from rewards.llm.spec import LocalBackend
from rewards.rules.facts import Facts
from rewards.rules.rule_set import RuleSet, load_rule_set

HALF_A_PIXEL = 0.5
"""By how much a scaled box may stand out of its image."""
Records = Iterable[Sample | Written | Quarantined]


def build(
    spec: BuildSpec,
    *,
    progress: Callable[[Records], Records] | None = None,
    paraphrase: Paraphraser | None = None,
    local: LocalBackend | None = None,
    inputs: Iterable[Path] = (),
) -> Path:
    """Builds the data set into ``spec.output``, replacing the one that was there, and returns the folder.

    Until all is written, the old data set stays as it is; a killed build leaves nothing that the next one does not
    set right. ``progress`` wraps the source's records; by default a bar is drawn on standard error. ``paraphrase``
    rewords the answers of dialogues; what changes an answer's meaning is refused and counted in the card; by default
    it is the spec's. ``local`` makes the backend of a local language model, for dialogues and curricula. ``inputs``:
    files that are read beside those that the spec names, such as its own.

    Raises: InputError if the source yields nothing, more than ``max_quarantined`` of it cannot be used, or the
    output folder holds something else than a built data set, something that is needed, or another build at work.
    """
    out = Path(spec.output)
    refuse_foreign(out, mark=CARD, kind="a built data set")
    refuse_needed(out, [*named_files(spec.model_dump(mode="json")), *inputs])
    refuse_nested(out)
    refuse_others(out, is_own=own_files_of_set(out), kind="a build")
    if paraphrase is None and spec.dialogues and spec.dialogues.paraphrase:
        paraphrase = LlmParaphraser.of(spec.dialogues.paraphrase, local=local)
    records = (progress or _bar(f"building {spec.source.name}"))(spec.source.samples())
    with only_one(out), new_folder(out) as fresh:
        curriculum = spec.curriculum and open_curriculum(spec.curriculum, seed=spec.seed, output=str(out), local=local)
        _build_into(fresh, spec, records, paraphrase, Tally(curriculum=curriculum, assign=placements(spec, out)))
    return out


def _bar(description: str) -> Callable[[Records], Records]:
    from rich.console import Console
    from rich.progress import track

    return lambda records: track(records, description=description, transient=True, console=Console(stderr=True))


def _build_into(folder: Path, spec: BuildSpec, records: Records, paraphrase: Paraphraser | None, tally: Tally) -> None:
    seen = set[str]()
    with RowFiles(folder, staged=spec.curriculum is not None) as writers:
        for item in records:
            reason = item.reason if isinstance(item, Quarantined) else _fault(item, seen, spec)
            seen.add(item.id)
            if not isinstance(item, Quarantined) and reason is None:
                _write_sample(item, spec, writers, tally, paraphrase)
            else:
                tally.quarantined.append(Quarantined(id=item.id, reason=reason or ""))
    tally.check(spec)
    preference = finished(folder, spec, tally)
    card = card_of(spec, folder, tally, preference)
    (folder / CARD).write_text(json.dumps(card, indent=2, sort_keys=True), encoding="utf-8")
    write_placements(spec, tally.assign, folder)
    write_gallery(folder)


def _fault(sample: Sample | Written, seen: set[str], spec: BuildSpec) -> str | None:
    """Why a sample cannot be used, whatever its source has checked; None if it can."""
    if sample.id in seen:
        return "another record has this id"
    if isinstance(sample, Written):
        return fault_of_written(sample)
    try:
        for image in sample.images:
            decoded(image)
    except ImageError as fault:
        return str(fault)
    rules = load_rule_set(sample.facts.rule_set)
    fault = _fault_of_facts(sample.facts, rules, sample.image.size)
    return dialogue_fault(sample.facts, rules) if fault is None and spec.dialogues else fault


def _fault_of_facts(facts: Facts, rules: RuleSet, size: tuple[int, int]) -> str | None:
    if not facts.findings and not facts.values:
        return "nothing is known of it"
    for name, finding in facts.findings.items():
        if name not in rules.findings:
            return f"finding '{name}' is not in rule set {rules.id}"
        for box in finding.boxes:
            if not is_valid(box):
                return f"box {[*box]} of '{name}' has no area"
            if min(box) < -HALF_A_PIXEL or any(
                v > side + HALF_A_PIXEL for v, side in zip(box, (*size, *size), strict=True)
            ):
                return f"box {[*box]} of '{name}' is not inside the image of {size[0]} x {size[1]} pixels"
    return None


def _write_sample(
    sample: Sample | Written, spec: BuildSpec, writers: RowFiles, tally: Tally, paraphrase: Paraphraser | None
) -> None:
    split = split_of(sample.patient, spec.splits, key=str(spec.seed), assign=tally.assign)
    tally.num_samples += 1
    if isinstance(sample, Written):
        split = own_split(sample, spec) or split
        tally.asked[*sample.names, sample.question] += 1
        rows = written_rows(sample, spec, split)
    else:
        tally.rule_sets.add(sample.facts.rule_set)
        rows = rows_of(sample, spec, split, tally, paraphrase)
    tally.placed[sample.patient, split] += 0
    for kind, row in rows:
        writers.write(kind, split, row)
        tally.rows[kind, split, row["task"]] += 1
        tally.placed[sample.patient, split] += 1
