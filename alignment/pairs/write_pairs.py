"""Preference pairs from the model's own wrong reports, and from other images: one set for text and image side.

MMedPO (Zhu et al. 2024) section 3.1, with the rule set's reader in place of a judge: the most clearly conflicting of
several samples is rejected. On phantoms these pairs teach what corrupted truths, which the model already tells apart,
do not. Kinds: ``own_error``; ``degraded``, sampled under the noised image, where a model that looks must err;
``lesion_noise`` and ``look_alike`` (``image_pairs.py``); ``llm``, chosen or written by an LLM (``sampling.llm``).

The ranks of a launch sample by turns (``sampled_answers.py``); all the rest rank 0 does alone, so that an LLM is asked
once. The rows are the same for any number of ranks.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature

from alignment.config.data_entries import parquet
from alignment.config.recipe import Recipe, Sampling
from alignment.data.row_cache import ROWS, stored_rows
from alignment.distributed.processes import is_main_process
from alignment.distributed.ranks import of_rank_0
from alignment.pairs.image_pairs import Degraded, degraded, look_alike_pairs, noised_pairs
from alignment.pairs.own_errors import graded, worst_of
from alignment.pairs.sampled_answers import SampledAnswers
from alignment.provenance.kept_rules import rules_of_run
from alignment.reward_functions.adapter import local_backend
from data_builders.build.preference_set import figures, weighted
from data_builders.cards import RULES, card_grid, write_card
from data_builders.output_folders import unfinished
from data_builders.pairs.hallucination_checks import fault_of_rejected, invents
from data_builders.pairs.lesion_noise import NoiseTally
from data_builders.pairs.llm_hallucinations import NO_REPLY, Ask, Request, hallucinated
from data_builders.pairs.llm_rows import LlmTally, asker, check_written, relevance_of
from data_builders.rendering.render import report
from data_builders.schema import assistant_turn, message_text
from rewards.config.input_error import InputError
from rewards.llm.spec import open_llm
from rewards.rules.facts import Facts
from rewards.rules.kept_files import keep
from rewards.rules.rule_set import load_rule_set

TURN = List({"role": Value("string"), "content": List({"type": Value("string"), "text": Value("string")})})
FEATURES = Features(
    {
        "id": Value("string"),
        "patient": Value("string"),
        "study": Value("string"),
        "source": Value("string"),
        "split": Value("string"),
        "task": Value("string"),
        "facts": Value("string"),
        "rule_set": Value("string"),
        "provenance": Value("string"),
        "attributes": Value("string"),
        "may_leave": Value("bool"),
        "images": List(ImageFeature()),
        "image_size": List(List(Value("int64"))),
        "rejected_images": List(ImageFeature()),
        "mirror_images": List(ImageFeature()),
        "prompt": TURN,
        "chosen": TURN,
        "rejected": TURN,
        "relevance": Value("float64"),
        "weight": Value("float64"),
        "kind": Value("string"),
    }
)
Row = dict[str, Any]


@dataclass
class PairTally:
    """What was made and what was not. ``refused``: answers by reason; ``without_pair``: rows by kind."""

    refused: Counter[str] = field(default_factory=Counter[str])
    without_pair: Counter[str] = field(default_factory=Counter[str])
    noise: NoiseTally = field(default_factory=NoiseTally)
    judges: LlmTally = field(default_factory=LlmTally)


def write_pairs(recipe: Recipe, *, ask: Ask | None = None) -> Path:
    """Pairs of every kind in ``sampling.kinds`` from the report rows of ``data.train``, and their card.

    They go to ``output/preference/pairs.parquet`` and ``card.json`` beside it; what judges said of their relevance to
    ``output/relevance-pairs.jsonl``. ``ask``: the LLM of kind ``llm``, by default that of ``sampling.llm``. All ranks
    come by here; where rank 0 is not done yet, the others have returned already.

    Raises: InputError if no pair can be built, or a kind lacks what it needs.
    """
    data = stored_rows(parquet(recipe.data.train), Path(recipe.output) / ROWS)
    data = data.select([k for k, task in enumerate(data["task"]) if task == "report"])
    if recipe.data.limit:
        data = data.select(range(min(recipe.data.limit, len(data))))
    out, tally = Path(recipe.output) / "preference" / "pairs.parquet", PairTally()
    if ask is None and recipe.sampling.llm is not None and is_main_process():
        ask = asker(open_llm(recipe.sampling.llm, local=local_backend))
    maker = _Maker(recipe, data, tally, ask)
    maker.sample()
    if not is_main_process():
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    pairs = [*_weighted(maker.pairs(), recipe.sampling, out.parent.parent, tally), *_built(recipe)]
    if not pairs:
        raise InputError(
            f"{recipe.model.path} made no mistake on {len(data)} reports; there is nothing to prefer against."
        )
    kept = keep(out.parent, rules_of_run(recipe))
    write_card(out.parent, _card(pairs, tally) | ({RULES: kept} if kept else {}))
    Dataset.from_list(pairs, features=FEATURES).to_parquet(str(unfinished(out)))
    unfinished(out).replace(out)  # last and at once: from here on the run counts as finished
    return out


def _weighted(pairs: list[Row], sampling: Sampling, folder: Path, tally: PairTally) -> list[Row]:
    """The pairs with their relevance and weight, as a build gives them; graded ones times ``sampling.graded``."""
    transcripts = folder / "relevance-pairs.jsonl"
    rows = weighted(pairs, sampling.relevance, transcripts=transcripts, tally=tally.judges, local=local_backend)
    return [{**row, "weight": row["weight"] * (sampling.graded if row["kind"] == "graded" else 1)} for row in rows]


def _built(recipe: Recipe) -> list[Row]:
    """The rows of a built set that ``sampling`` adds, their images as files.

    Raises: InputError if it has none of the wanted kinds.
    """
    sampling = recipe.sampling
    if sampling.built is None:
        return []
    data = stored_rows(parquet(sampling.built), Path(recipe.output) / ROWS)
    indices = [k for k, kind in enumerate(data["kind"]) if kind in sampling.built_kinds]
    if not indices:
        raise InputError(f"sampling.built: {sampling.built} has no row of kind {', '.join(sampling.built_kinds)}.")
    raw: Any = data.select(indices)
    for name in ("images", "rejected_images"):
        raw = raw.cast_column(name, List(ImageFeature(decode=False)))
    return [{name: row.get(name) for name in FEATURES} for row in raw]


def _card(pairs: list[Row], tally: PairTally) -> dict[str, Any]:
    counts = {"refused": dict(tally.refused), "without_pair": dict(tally.without_pair)}
    return {**figures(pairs), **counts, "lesion_noise": tally.noise.report(), "debates": dict(tally.judges.debates)}


@dataclass
class _Maker:
    """One run: ``data`` with decoded images; ``sampled`` and ``under_noise``: what was sampled, once it was."""

    recipe: Recipe
    data: Dataset
    tally: PairTally
    ask: Ask | None
    noised: list[Degraded] = field(default_factory=list[Degraded])
    sampled: list[list[str]] = field(default_factory=list[list[str]])
    under_noise: list[list[str]] = field(default_factory=list[list[str]])

    @cached_property
    def raw(self) -> Any:
        """The rows with their images as files."""
        return self.data.cast_column("images", List(ImageFeature(decode=False)))

    @cached_property
    def rows(self) -> list[Row]:
        """All of them, in memory; only rank 0 needs them."""
        return list(self.raw)

    def sample(self) -> None:
        """Samples every answer that a kind needs. All ranks come by here."""
        kinds, answers = {*self.recipe.sampling.kinds}, SampledAnswers(self.recipe)
        if {"degraded", "lesion_noise"} & kinds and is_main_process():
            self.noised = degraded(self.rows, self.recipe.sampling, grid=self._grid(), tally=self.tally.noise)
        if {"own_error", "llm"} & kinds:
            self.sampled = answers.to(range(len(self.data)), self._shown, name="clean")
        if "degraded" in kinds:
            indices = of_rank_0(lambda: [one.index for one in self.noised])
            self.under_noise = answers.to(indices, self._shown_noised, name="degraded")

    def _shown(self, indices: Sequence[int]) -> list[Row]:
        return [self.data[index] for index in indices]

    def _shown_noised(self, indices: Sequence[int]) -> list[Row]:
        rows = [self.raw[index] for index in indices]  # noised once more, so that no rank holds all pictures
        made = degraded(rows, self.recipe.sampling, grid=self._grid(), tally=NoiseTally())
        return [{**self.data[indices[one.index]], "images": [one.image.convert("RGB")]} for one in made]

    def pairs(self) -> list[Row]:
        """The pairs of every kind, from what was sampled."""
        kinds, sampling = self.recipe.sampling.kinds, self.recipe.sampling
        pairs: list[Row] = []
        if "own_error" in kinds:
            pairs += self._errors(range(len(self.rows)), self.sampled, kind="own_error", suffix="own")
        if "llm" in kinds:
            pairs += self._by_llm(self.sampled)
        if "degraded" in kinds:
            pairs += self._errors([o.index for o in self.noised], self.under_noise, kind="degraded", suffix="degraded")
        if "lesion_noise" in kinds:
            made = noised_pairs(self.rows, self.noised)
            pairs += [self._row(one.index, pair) for one, pair in zip(self.noised, made, strict=True)]
        if "look_alike" in kinds:
            pairs += [self._row(index, pair) for index, pair in look_alike_pairs(self.rows, sampling)]
        return pairs

    def _grid(self) -> int:
        grid = card_grid(parquet(self.recipe.data.train))
        if grid is None:
            raise InputError(
                f"sampling.kinds: {self.recipe.data.train} has no card.json that says the units of its boxes, "
                "so lesions cannot be noised. Build it with: clinalign build."
            )
        return grid

    def _errors(self, indices: Sequence[int], responses: list[list[str]], *, kind: str, suffix: str) -> list[Row]:
        """The most conflicting answer of each row as its rejected one; rows without a usable one are counted."""
        pairs: list[Row] = []
        for index, sampled in zip(indices, responses, strict=True):
            truth, chosen = self._truth(index)
            usable = [response for response in sampled if self._is_usable(truth, chosen, response)]
            worst = worst_of(truth, usable)
            if worst is None:
                self.tally.without_pair[kind] += 1
                continue
            further = graded(truth, chosen, list(dict.fromkeys(usable))) if self.recipe.sampling.graded else []
            pairs.append(self._text_row(index, chosen, worst, kind=kind, suffix=suffix))
            pairs += [
                self._text_row(index, better, worse, kind="graded", suffix=f"{suffix}-graded-{k}")
                for k, (better, worse) in enumerate(further)
            ]
        return pairs

    def _is_usable(self, truth: Facts, chosen: str, response: str) -> bool:
        """Whether an own answer may be rejected; what it claims is judged by ``worst_of``.

        One that only leaves out says nothing false, and is wrong all the same: only inventions are held against it.
        """
        fault = fault_of_rejected(chosen, response, truth=truth if invents(response, truth) else None)
        if fault is not None:
            self.tally.refused[fault] += 1
        return fault is None

    def _by_llm(self, sampled: list[list[str]]) -> list[Row]:
        if self.ask is None:
            raise InputError("sampling.kinds: 'llm' needs an LLM, and none was given. Name one in sampling.llm.")
        truths = [self._truth(index) for index in range(len(self.rows))]
        requests = [
            Request(str(index), message_text(self.rows[index]["prompt"]), chosen, tuple(sampled[index]), truth)
            for index, (truth, chosen) in enumerate(truths)
        ]
        made = hallucinated(requests, self.ask)
        if all(reason.startswith(NO_REPLY) for reason in made.dropped.values()):
            llm = self.recipe.sampling.llm
            check_written(len(made.answers), Counter(made.dropped.values()), llm=llm.model if llm else "the LLM")
        self.tally.refused.update(made.dropped.values())
        self.tally.without_pair["llm"] += len(made.dropped)
        answers = {int(key): answer for key, answer in made.answers.items()}
        return [self._text_row(k, truths[k][1], answer, kind="llm", suffix="llm") for k, answer in answers.items()]

    def _truth(self, index: int) -> tuple[Facts, str]:
        truth = Facts.model_validate_json(self.rows[index]["facts"])
        return truth, report(truth, load_rule_set(truth.rule_set))

    def _text_row(self, index: int, better: str, worse: str, *, kind: str, suffix: str) -> Row:
        columns = {"chosen": assistant_turn(better), "rejected": assistant_turn(worse), "kind": kind}
        columns["relevance"] = relevance_of(self._truth(index)[0], worse)
        return self._row(index, {**columns, "id": f"{self.rows[index]['id']}-{suffix}", "rejected_images": None})

    def _row(self, index: int, columns: Row) -> Row:
        return {name: columns.get(name, self.rows[index].get(name)) for name in FEATURES}
