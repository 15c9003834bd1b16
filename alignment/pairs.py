"""Preference pairs from the model's own wrong reports, and from other images: one set for text and image side.

MMedPO (Zhu et al. 2024) section 3.1, with the rule set's reader in place of a judge: the most clearly conflicting of
several samples is rejected. On phantoms these pairs teach what corrupted truths, which the model already tells apart,
do not. Kinds: ``own_error``; ``degraded``, sampled under the noised image, where a model that looks must err;
``lesion_noise`` and ``look_alike`` (``image_pairs.py``); ``llm``, chosen or written by an LLM (``sampling.llm``).
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from rich.progress import track

from alignment.evaluate import data_card
from alignment.generation import generate
from alignment.image_pairs import Degraded, degraded, look_alike_pairs, noised_pairs
from alignment.models import load_for_inference
from alignment.recipe import Recipe, Sampling, parquet
from alignment.reward_functions import local_backend
from data_builders.hallucination_checks import fault_of_rejected
from data_builders.lesion_noise import NoiseTally
from data_builders.llm_hallucinations import Ask, Request, hallucinated
from data_builders.llm_rows import asker
from data_builders.preference_set import figures
from data_builders.render import report
from data_builders.schema import assistant_turn, message_text
from rewards.compare import compare
from rewards.facts import Facts
from rewards.llm_spec import open_llm
from rewards.reading import read
from rewards.rule_set import load_rule_set
from rewards.strict_yaml import InputError

TURN = List({"role": Value("string"), "content": List({"type": Value("string"), "text": Value("string")})})
FEATURES = Features(
    {
        "id": Value("string"), "patient": Value("string"), "study": Value("string"), "source": Value("string"),
        "split": Value("string"), "task": Value("string"), "facts": Value("string"), "rule_set": Value("string"),
        "provenance": Value("string"), "images": List(ImageFeature()), "rejected_images": List(ImageFeature()),
        "mirror_images": List(ImageFeature()), "prompt": TURN, "chosen": TURN, "rejected": TURN,
        "weight": Value("float64"), "kind": Value("string"),
    }
)  # fmt: skip
Row = dict[str, Any]


@dataclass
class PairTally:
    """What was made and what was not. ``refused``: answers by reason; ``without_pair``: rows by kind."""

    refused: Counter[str] = field(default_factory=Counter[str])
    without_pair: Counter[str] = field(default_factory=Counter[str])
    noise: NoiseTally = field(default_factory=NoiseTally)


def errors_of(truth: Facts, response: str) -> tuple[int, int] | None:
    """How many findings a report invents (or misplaces) and leaves out; None if it is right or cannot be read."""
    claimed = read(response, load_rule_set(truth.rule_set)).facts
    found = compare(truth, claimed)
    errors = len(found.hallucinations), len(found.omissions)
    return errors if claimed.findings and any(errors) else None


def conflict(truth: Facts, response: str, sampling: Sampling) -> float | None:
    """How heavily a report conflicts with the truth; None if it does not, or cannot be read.

    ``invented_weight`` for each finding that is not there, ``omitted_weight`` for each that is left out.
    """
    errors = errors_of(truth, response)
    return errors and sampling.invented_weight * errors[0] + sampling.omitted_weight * errors[1]


def worst_of(truth: Facts, responses: list[str], sampling: Sampling) -> tuple[str, float] | None:
    """The response with most errors, among equals the one that leaves out most, and its weight.

    None if every response is right or unreadable. Taking inventions first would spend recall: a model that is only
    ever shown its inventions learns to claim less.
    """
    judged = [(sum(errors), errors[1], response) for response in responses if (errors := errors_of(truth, response))]
    if not judged:
        return None
    response = max(judged, key=lambda one: one[:2])[2]
    return response, conflict(truth, response, sampling) or 0.0


def graded(truth: Facts, chosen: str, responses: list[str], sampling: Sampling) -> list[tuple[str, str, float]]:
    """Further pairs (better, worse, weight) among the truth and ranked wrong responses; none if ``graded`` is 0.

    HSCR (arXiv 2506.00805) as rows: fewer errors are preferred to more, and the truth to all; the pair of the truth
    and the worst is left to ``worst_of``. Responses with equally many errors are not ranked.
    """
    if not sampling.graded:
        return []
    worst = worst_of(truth, responses, sampling)
    wrong = {r: w for r in responses if (w := conflict(truth, r, sampling)) is not None and worst and r != worst[0]}
    pairs = [(chosen, response, sampling.graded * weight) for response, weight in wrong.items()]
    everything = {**wrong, **({worst[0]: worst[1]} if worst else {})}
    errors = {response: sum(errors_of(truth, response) or ()) for response in everything}
    ranked = sorted(everything, key=lambda response: errors[response])
    return pairs + [
        (better, worse, sampling.graded * everything[worse])
        for k, better in enumerate(ranked)
        for worse in ranked[k + 1 :]
        if errors[better] < errors[worse]
    ]


def write_pairs(recipe: Recipe, *, ask: Ask | None = None) -> Path:
    """Pairs of every kind in ``sampling.kinds`` from the report rows of ``data.train``, and their card.

    They go to ``output/preference/pairs.parquet`` and ``card.json`` beside it. ``ask``: the LLM of kind ``llm``, by
    default that of ``sampling.llm``.

    Raises: InputError if no pair can be built, or a kind lacks what it needs.
    """
    data = Dataset.from_parquet(str(parquet(recipe.data.train)))
    data = data.select([k for k, task in enumerate(data["task"]) if task == "report"])
    if recipe.data.limit:
        data = data.select(range(min(recipe.data.limit, len(data))))
    raw: Any = data.cast_column("images", List(ImageFeature(decode=False)))
    rows: list[Row] = list(raw)
    tally = PairTally()
    if ask is None and recipe.sampling.llm is not None:
        ask = asker(open_llm(recipe.sampling.llm, local=local_backend))
    pairs = [*_Maker(recipe, data, rows, tally, ask).pairs(), *_built(recipe.sampling)]
    if not pairs:
        raise InputError(
            f"{recipe.model.path} made no mistake on {len(data)} reports; there is nothing to prefer against."
        )
    out = Path(recipe.output) / "preference" / "pairs.parquet"
    out.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(pairs, features=FEATURES).to_parquet(str(out))
    (out.parent / "card.json").write_text(json.dumps(_card(pairs, tally), indent=2, sort_keys=True), encoding="utf-8")
    return out


def _built(sampling: Sampling) -> list[Row]:
    """The rows of a built set that ``sampling`` adds, their images as files.

    Raises: InputError if it has none of the wanted kinds.
    """
    if sampling.built is None:
        return []
    data = Dataset.from_parquet(str(parquet(sampling.built)))
    places = [k for k, kind in enumerate(data["kind"]) if kind in sampling.built_kinds]
    if not places:
        raise InputError(f"sampling.built: {sampling.built} has no row of kind {', '.join(sampling.built_kinds)}.")
    raw: Any = data.select(places)
    for name in ("images", "rejected_images"):
        raw = raw.cast_column(name, List(ImageFeature(decode=False)))
    return [{name: row.get(name) for name in FEATURES} for row in raw]


def _card(pairs: list[Row], tally: PairTally) -> dict[str, Any]:
    import numpy as np

    told = figures(pairs, np.array([pair["weight"] for pair in pairs]))
    counts = {"refused": dict(tally.refused), "without_pair": dict(tally.without_pair)}
    return {**told, **counts, "lesion_noise": tally.noise.report()}


@dataclass
class _Maker:
    """One run: ``data`` with decoded images, ``rows`` the same with their files."""

    recipe: Recipe
    data: Dataset
    rows: list[Row]
    tally: PairTally
    ask: Ask | None

    def pairs(self) -> list[Row]:
        kinds, sampling = self.recipe.sampling.kinds, self.recipe.sampling
        places = list(range(len(self.rows)))
        noised = self._noised() if {"degraded", "lesion_noise"} & {*kinds} else []
        own = self._sampled(self.data) if {"own_error", "llm"} & {*kinds} else []
        pairs: list[Row] = []
        if "own_error" in kinds:
            pairs += self._errors(places, own, kind="own_error", suffix="own")
        if "llm" in kinds:
            pairs += self._by_llm(own)
        if "degraded" in kinds:
            shown = [{**self.data[one.place], "images": [one.image.convert("RGB")]} for one in noised]
            pairs += self._errors([o.place for o in noised], self._sampled(shown), kind="degraded", suffix="degraded")
        if "lesion_noise" in kinds:
            made = noised_pairs(self.rows, noised)
            pairs += [self._row(one.place, pair) for one, pair in zip(noised, made, strict=True)]
        if "look_alike" in kinds:
            pairs += [self._row(place, pair) for place, pair in look_alike_pairs(self.rows, sampling)]
        return pairs

    def _noised(self) -> list[Degraded]:
        card = data_card(parquet(self.recipe.data.train))
        grid = (card or {}).get("spec", {}).get("box_grid")
        if grid is None:
            raise InputError(
                f"sampling.kinds: {self.recipe.data.train} has no card.json that says the units of its boxes, "
                "so lesions cannot be noised. Build it with: clinalign build."
            )
        return degraded(self.rows, self.recipe.sampling, grid=grid, tally=self.tally.noise)

    def _sampled(self, rows: Any) -> list[list[str]]:
        """Several answers to each row; its images are decoded a few batches at a time."""
        model, processor = load_for_inference(self.recipe.model.path, max_pixels=self.recipe.model.max_pixels)
        options, size = self.recipe.sampling, 16 * self.recipe.sampling.batch_size
        torch.manual_seed(options.seed)
        responses: list[list[str]] = []
        for start in track(range(0, len(rows), size), description="sampling own answers"):
            some = [rows[place] for place in range(start, min(start + size, len(rows)))]
            responses += generate(
                model, processor, some, max_new_tokens=options.max_new_tokens, batch_size=options.batch_size,
                num_samples=options.num_samples, temperature=options.temperature,
            )  # fmt: skip
        return responses

    def _errors(self, places: list[int], responses: list[list[str]], *, kind: str, suffix: str) -> list[Row]:
        """The most conflicting answer of each row as its rejected one; rows without a usable one are counted."""
        pairs: list[Row] = []
        for place, said in zip(places, responses, strict=True):
            truth, chosen = self._truth(place)
            usable = [response for response in said if self._is_usable(chosen, response)]
            worst = worst_of(truth, usable, self.recipe.sampling)
            if worst is None:
                self.tally.without_pair[kind] += 1
                continue
            further = graded(truth, chosen, list(dict.fromkeys(usable)), self.recipe.sampling)
            pairs.append(self._text_row(place, chosen, *worst, kind=kind, suffix=suffix))
            pairs += [
                self._text_row(place, better, worse, weight, kind="graded", suffix=f"{suffix}-graded-{k}")
                for k, (better, worse, weight) in enumerate(further)
            ]
        return pairs

    def _is_usable(self, chosen: str, response: str) -> bool:
        """Whether an own answer may be rejected; what it claims is judged by ``conflict``."""
        fault = fault_of_rejected(chosen, response)
        if fault is not None:
            self.tally.refused[fault] += 1
        return fault is None

    def _by_llm(self, own: list[list[str]]) -> list[Row]:
        if self.ask is None:
            raise InputError("sampling.kinds: 'llm' needs an LLM, and none was given. Name one in sampling.llm.")
        told = [self._truth(place) for place in range(len(self.rows))]
        requests = [
            Request(str(place), message_text(self.rows[place]["prompt"]), chosen, tuple(own[place]), truth)
            for place, (truth, chosen) in enumerate(told)
        ]
        made = hallucinated(requests, self.ask)
        self.tally.refused.update(made.dropped.values())
        self.tally.without_pair["llm"] += len(made.dropped)
        options = self.recipe.sampling
        return [
            self._text_row(k, told[k][1], said, conflict(told[k][0], said, options) or options.omitted_weight,
                           kind="llm", suffix="llm")
            for key, said in made.answers.items() for k in [int(key)]
        ]  # fmt: skip

    def _truth(self, place: int) -> tuple[Facts, str]:
        truth = Facts.model_validate_json(self.rows[place]["facts"])
        return truth, report(truth, load_rule_set(truth.rule_set))

    def _text_row(self, place: int, better: str, worse: str, weight: float, *, kind: str, suffix: str) -> Row:
        own = {"chosen": assistant_turn(better), "rejected": assistant_turn(worse), "weight": weight, "kind": kind}
        return self._row(place, {**own, "id": f"{self.rows[place]['id']}-{suffix}", "rejected_images": None})

    def _row(self, place: int, own: Row) -> Row:
        return {name: own.get(name, self.rows[place].get(name)) for name in FEATURES}
