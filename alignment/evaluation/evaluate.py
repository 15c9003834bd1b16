"""Evaluation on a held-out split: greedy answers, metrics with intervals, blind controls, trivial baselines.

A model that does not look at the image can still answer many questions from habit. So every figure stands
beside the same figure with the image replaced (by noise, by another patient's image) and, where a reference
split is given, beside answers that need no image at all. Ranks share out the batches; each has all answers, rank 0
writes. Left out: sampled answers (pass@k) and judges.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.config.data_entries import parquet
from alignment.data.processor_checks import check_processing
from alignment.data.prompt_rows import Row, limited, read_reference, read_rows, written_rows
from alignment.distributed.processes import is_main_process
from alignment.distributed.ranks import of_rank_0
from alignment.evaluation.answer_files import write_answers
from alignment.evaluation.answers import MAX_NEW_TOKENS, generate_answers
from alignment.evaluation.controls import Answered, Blind, baselines, controls_for
from alignment.evaluation.evaluation_file import Evaluation
from alignment.evaluation.kept_answers import KeptAnswers, check_out, rows_digest, weights_stamp
from alignment.evaluation.report import write_report
from alignment.metrics.intervals import summarise
from alignment.metrics.outcomes import Outcome, score_answers
from alignment.metrics.unjudged import unjudged_rows
from alignment.provenance.data_summary import data_summary
from alignment.provenance.lineage import trained_on
from data_builders.digest import sha256
from data_builders.interruptions import stands
from rewards.boxes.coordinate_space import BoxSpace
from rewards.rules.kept_files import files_of, keep
from rewards.rules.known_files import KnownFile
from rewards.rules.rule_set import RuleSet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

LIBRARIES = ("clinalign", "torch", "transformers", "numpy", "pillow")


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
    batch_size: int = 32,
    max_new_tokens: Mapping[str, int] | None = None,
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
    ``reference``: prompt or instruction rows of another split, whose habits the baselines take.
    ``box_space``: the units in which the model states boxes; the truth's are in the rows.
    ``probe``: also does the model look (``blindness.json``)? ``probe_limit``: on that many of the rows.
    Raises: InputError if the data are missing, empty, or not prompt rows, or no metric judges any of them.
    """
    data, out = Path(data), Path(out)
    digest = sha256(parquet(str(data)))
    truth = limited(read_rows(data), limit=limit, seed=seed)
    unjudged = unjudged_rows(truth, rules=rules, where=data)
    check_processing(processor, truth)
    rows = written_rows(truth, box_space, processor)
    probed = limited(rows, limit=probe_limit, seed=seed) if probe else []
    if probe:
        from alignment.evaluation.blindness import check_probed

        check_probed(probed)
    budget = {**MAX_NEW_TOKENS, **(max_new_tokens or {})}
    name = model_name or str(getattr(model.config, "name_or_path", "")) or "model"
    of_rank_0(lambda: check_out(out))
    how = {"batch_size": batch_size, "max_new_tokens": budget, "seed": seed}
    settings = {**how, "box_space": box_space, "probe_limit": probe_limit}
    kept = KeptAnswers(out, _depends_on(model, name, data, rows, settings))
    answer = partial(generate_answers, model, processor, rows, **how, progress=progress, kept=kept)
    blinds: Sequence[Blind] = controls_for(rows) if blind_controls else ()
    answered: dict[str, Answered] = {"clean": (rows, answer()), **{b: (rows, answer(blind=b)) for b in blinds}}
    if reference is not None:
        answered |= baselines(truth, read_reference(reference), rules=rules)
    outcomes = {condition: score_answers(*pair, rules=rules) for condition, pair in answered.items()}
    ruling = files_of(name for row in rows for name in (row["rule_set"], *(row.get("guidelines") or ())))
    evaluation = Evaluation(
        model=name,
        model_sha256=weights_sha256,
        data=str(data),
        data_sha256=digest,
        data_card=data_summary(parquet(str(data)), digest),
        num_rows=len(rows),
        num_patients=len({row["patient"] for row in rows}),
        box_space=box_space,
        seed=seed,
        max_new_tokens=budget,
        versions={library: version(library) for library in LIBRARIES},
        metrics={c: summarise(o, num_resamples=num_resamples, seed=seed) for c, o in outcomes.items()},
        unjudged=unjudged,
        rule_sets=sorted({row["rule_set"] for row in rows} - {""}),
        trained_on=trained_on(name),
        rules={name: file.sha256 for name, file in ruling.items()},
    )
    if is_main_process():
        _write(evaluation, answered, outcomes["clean"], out, rules=rules, ruling=ruling)
    if probe:
        from alignment.evaluation.blindness import blindness

        with stands(lambda: f"{kept}; the same command goes on."):
            seen = blindness(model, processor, probed, batch_size=batch_size, seed=seed, kept=kept)
            if is_main_process():
                seen.write(out)
    kept.remove()  # last: from here on the evaluation counts as finished
    return evaluation


def _depends_on(
    model: "PreTrainedModel", name: str, data: Path, rows: list[Row], settings: dict[str, object]
) -> dict[str, object]:
    """All that answers follow from, as JSON."""
    origin = str(getattr(model.config, "name_or_path", ""))
    return {
        **settings,
        "model": [name, origin, getattr(model.config, "_commit_hash", None), str(model.dtype)],
        "weights": weights_stamp(name, origin),
        "data_sha256": sha256(parquet(str(data))),
        "rows": rows_digest(rows),
        "versions": {library: version(library) for library in LIBRARIES},
    }


def _write(
    evaluation: Evaluation,
    answered: Mapping[str, Answered],
    outcomes: Sequence[Outcome],
    out: Path,
    *,
    rules: RuleSet | None,
    ruling: Mapping[str, KnownFile],
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    keep(out, ruling)
    evaluation.write(out)
    write_answers(answered, outcomes, out, rules=rules)
    write_report({evaluation.model: out}, out / "report.html")
