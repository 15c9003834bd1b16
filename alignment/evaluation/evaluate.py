"""Evaluation on a held-out split: greedy answers, metrics with intervals, blind controls, trivial baselines.

A model that does not look at the image can still answer many questions from habit. So every figure stands
beside the same figure with the image replaced (by noise, by another patient's image) and, where a reference
split is given, beside answers that need no image at all. Ranks share out the batches; each has all answers, rank 0
writes. Left out: sampled answers (pass@k) and judges.
"""

from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.config.generation_section import GenerationSection
from alignment.data.processor_checks import check_processing
from alignment.data.prompt_rows import limited, read_reference, written_rows
from alignment.distributed.processes import is_main_process
from alignment.distributed.ranks import of_rank_0
from alignment.evaluation.answers import GREEDY, generate_answers
from alignment.evaluation.controls import Answered, Blind, baselines, controls_for
from alignment.evaluation.evaluation_file import Evaluation
from alignment.evaluation.judgement import LIBRARIES, AnsweredBy, judge, judged_rows
from alignment.evaluation.kept_answers import KeptAnswers, check_out, rows_digest, weights_stamp
from alignment.metrics.evaluated_row import EvaluatedRow
from data_builders.interruptions import stands
from rewards.boxes.coordinate_space import BoxSpace
from rewards.config.input_error import InputError
from rewards.rules.rule_set import RuleSet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin


def evaluate(
    model: "PreTrainedModel",
    processor: "ProcessorMixin",
    data: Path | str,
    *,
    out: Path | str,
    model_name: str | None = None,
    weights_sha256: str | None = None,
    limit: int | None = None,
    blind_controls: bool = True,
    reference: Path | None = None,
    rules: RuleSet | None = None,
    generation: GenerationSection = GREEDY,
    box_space: BoxSpace = "grid",
    num_resamples: int = 1000,
    seed: int = 0,
    progress: bool = False,
    probe: bool = False,
    probe_limit: int | None = None,
) -> Evaluation:
    """The model judged on prompt rows; ``evaluation.json``, ``answers.jsonl``, ``report.html`` go to ``out``.

    ``data``: an entry such as ``data/x/prompt/test``. ``weights_sha256``: by which the model is known
    (``weights_digest.model_sha256``); without it the evaluation cannot go into a release. ``limit``: that many
    rows, drawn at random.
    ``generation``: how answers are generated.
    ``reference``: prompt or instruction rows of another split, whose habits the baselines take.
    ``box_space``: the units in which the model states boxes; the truth's are in the rows.
    ``probe``: also does the model look (``blindness.json``)? ``probe_limit``: on that many of the rows.
    Raises: InputError if the data are missing, empty, or not prompt rows, or no metric judges any of them.
    """
    out = Path(out)
    rows = judged_rows(Path(data), limit=limit, seed=seed, rules=rules)
    if generation.temperature is not None and any(row["task"] == "dialogue" for row in rows.stored):
        raise InputError("generation.temperature: dialogues are answered greedily. Leave it out for these rows.")
    check_processing(processor, rows.stored)
    written = written_rows(rows.stored, box_space, processor)
    probed = _probed_rows(written, limit=probe_limit, seed=seed) if probe else None
    name = model_name or str(getattr(model.config, "name_or_path", "")) or "model"
    of_rank_0(lambda: check_out(out))
    settings = {
        "box_space": box_space,
        "probe_limit": probe_limit,
        "seed": seed,
        "generation": generation.model_dump() | {"max_new_tokens": generation.bounds()},
    }
    kept = KeptAnswers(out, _depends_on(model, name, rows.sha256, written, settings))
    how = {"generation": generation, "seed": seed, "progress": progress, "kept": kept}
    answer = partial(generate_answers, model, processor, written, **how)
    blinds: Sequence[Blind] = controls_for(written) if blind_controls else ()
    answered: dict[str, Answered] = {"clean": (written, answer())}
    answered |= {blind: (written, answer(blind=blind)) for blind in blinds}
    if reference is not None:
        answered |= baselines(rows.stored, read_reference(reference), rules=rules)
    by = AnsweredBy(name, box_space, seed, weights_sha256, generation)
    evaluation = judge(rows, answered, by, out=out, num_resamples=num_resamples, rules=rules)
    if probed is not None:
        _write_probe(model, processor, probed, out, generation=generation, seed=seed, kept=kept)
    kept.remove()  # last: from here on the evaluation counts as finished
    return evaluation


def _probed_rows(rows: list[EvaluatedRow], *, limit: int | None, seed: int) -> list[EvaluatedRow]:
    """The rows of the probe. Raises: InputError if none of them can be probed."""
    from alignment.evaluation.blindness import check_probed

    probed = limited(rows, limit=limit, seed=seed)
    check_probed(probed)
    return probed


def _depends_on(
    model: "PreTrainedModel", name: str, data_sha256: str, rows: Sequence[EvaluatedRow], settings: dict[str, object]
) -> dict[str, object]:
    """All that answers follow from, as JSON."""
    origin = str(getattr(model.config, "name_or_path", ""))
    return {
        **settings,
        "model": [name, origin, getattr(model.config, "_commit_hash", None), str(model.dtype)],
        "weights": weights_stamp(name, origin),
        "data_sha256": data_sha256,
        "rows": rows_digest(rows),
        "versions": {library: version(library) for library in LIBRARIES},
    }


def _write_probe(
    model: "PreTrainedModel",
    processor: "ProcessorMixin",
    probed: list[EvaluatedRow],
    out: Path,
    *,
    generation: GenerationSection,
    seed: int,
    kept: KeptAnswers,
) -> None:
    """``blindness.json``: does the model look?"""
    from alignment.evaluation.blindness import blindness

    with stands(lambda: f"{kept}; the same command goes on."):
        seen = blindness(model, processor, probed, generation=generation, seed=seed, kept=kept)
        if is_main_process():
            seen.write(out)
