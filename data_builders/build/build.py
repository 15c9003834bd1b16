"""From a source to a built data set: split, word, write, count. The same spec gives the same bytes.

``OUT/KIND/SPLIT.parquet`` in TRL's columns and ours, ``card.json``, ``gallery.html``. Rows are written as they
come, so memory does not grow with the data set. Left out: streaming from object stores, and more than one worker.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from data_builders.build.build_spec import BuildSpec
from data_builders.build.card import card_of
from data_builders.build.gallery import write_gallery
from data_builders.build.given_rules import files_in, rule_sets_of
from data_builders.build.preference_set import finished
from data_builders.build.row_files import RowFiles
from data_builders.build.sample_rows import rows_of
from data_builders.build.strata import placements, write_placements
from data_builders.build.tally import Tally
from data_builders.build.written_rows import SPLITS_LEFT, fault_of_written, source_split, written_rows
from data_builders.cards import CARD, write_card
from data_builders.curriculum.rows import open_curriculum
from data_builders.dialogues.paraphrases import LlmParaphraser
from data_builders.dialogues.writer import Paraphraser, dialogue_fault
from data_builders.grounding.grounding import rows_of_sequence
from data_builders.grounding.section import fault_of_sequence, sequences_of
from data_builders.grounding.sequences import Sequence
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
from data_builders.schema import Quarantined, RowKind, Sample, Written, box_fault
from data_builders.splits.splits import split_of
from rewards.llm.spec import LocalBackend
from rewards.rules.facts import Facts
from rewards.rules.kept_files import files_of, keep
from rewards.rules.rule_set import RuleSet, load_rule_set

Record = Sample | Written | Sequence
Records = Iterable[Record | Quarantined]


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
    tally = Tally()
    records = (progress or _bar(f"building {spec.source.name}"))(_records(spec, tally))
    with only_one(out), new_folder(out) as fresh:
        if spec.curriculum:
            tally.curriculum = open_curriculum(spec.curriculum, seed=spec.seed, output=str(out), local=local)
        tally.assign = placements(spec, out)
        _build_into(fresh, spec, records, paraphrase, tally)
    return out


def _records(spec: BuildSpec, tally: Tally) -> Records:
    """What rows are made of: the samples of the source, or the sequences that are made of it.

    The first is made once the tally knows where patients are placed.
    """
    if spec.grounding is None:
        return spec.source.samples()

    def placed(patient: str) -> str:
        return split_of(patient, spec.splits, key=str(spec.seed), assign=tally.assign)

    return sequences_of(spec.source, seed=spec.seed, split_of=placed, left_out=tally.not_asked)


def _bar(description: str) -> Callable[[Records], Records]:
    from rich.console import Console
    from rich.progress import track

    return lambda records: track(records, description=description, transient=True, console=Console(stderr=True))


def _build_into(folder: Path, spec: BuildSpec, records: Records, paraphrase: Paraphraser | None, tally: Tally) -> None:
    seen = set[str]()
    more = {"staged": spec.curriculum is not None, "grounded": spec.grounding is not None}
    named = files_in(spec)
    with RowFiles(folder, **more) as writers:
        for item in records:
            reason = item.reason if isinstance(item, Quarantined) else _fault(item, seen, spec)
            seen.add(item.id)
            if not isinstance(item, Quarantined) and reason is None:
                _write_sample(item, spec, writers, tally, paraphrase)
            else:
                tally.quarantined.append(Quarantined(id=item.id, reason=reason or ""))
    tally.check(spec)
    preference = finished(folder, spec, tally)
    rules = keep(folder, {**named, **files_of(rule_sets_of(tally))})
    write_card(folder, card_of(spec, folder, tally, preference, rules))
    write_placements(spec, tally.assign, folder)
    write_gallery(folder)


def _fault(sample: Record, seen: set[str], spec: BuildSpec) -> str | None:
    """Why a sample cannot be used, whatever its source has checked; None if it can."""
    if sample.id in seen:
        return "another record has this id"
    if isinstance(sample, Written | Sequence):
        return fault_of_written(sample) if isinstance(sample, Written) else fault_of_sequence(sample)
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
            if fault := box_fault(box, name, size):
                return fault
    return None


def _write_sample(
    sample: Record, spec: BuildSpec, writers: RowFiles, tally: Tally, paraphrase: Paraphraser | None
) -> None:
    split = split_of(sample.patient, spec.splits, key=str(spec.seed), assign=tally.assign)
    tally.num_samples += 1
    if isinstance(sample, Written):
        split = source_split(sample, spec) or split
        if not spec.source_splits and sample.split not in (None, "", split):
            tally.notes[SPLITS_LEFT] += 1
        tally.asked[*sample.names, sample.question] += 1
        tally.notes.update(sample.notes)
        tally.unknown_patients |= not sample.patient_known
        rows = written_rows(sample, spec, split)
    elif isinstance(sample, Sequence):
        tally.rule_sets.add(sample.rule_set)
        rows = _grounding_rows(sample, spec, split)
    else:
        tally.rule_sets.add(sample.facts.rule_set)
        rows = rows_of(sample, spec, split, tally, paraphrase)
    tally.placed[sample.patient, split] += 0
    for kind, row in rows:
        writers.write(kind, split, row)
        tally.rows[kind, split, row["task"]] += 1
        tally.placed[sample.patient, split] += 1


def _grounding_rows(seq: Sequence, spec: BuildSpec, split: str) -> Iterator[tuple[RowKind, dict[str, Any]]]:
    """The questions about one sequence, in each kind of row that the spec asks for in its split."""
    assert spec.grounding is not None
    about = {"split": split, "grid": spec.box_grid, "seed": spec.seed, "source": spec.source.name}
    kinds: list[RowKind] = [kind for kind, splits in spec.rows.items() if split in splits]
    for kind in kinds:
        for row in rows_of_sequence(seq, spec.grounding.asked, **about):
            yield kind, row
