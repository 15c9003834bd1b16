"""Preference pairs from the model's own wrong reports: the most clearly conflicting of several samples is rejected.

MMedPO (Zhu et al. 2024) section 3.1, with the rule set's reader in place of a judge. On phantoms these pairs teach
what corrupted truths, which the model already tells apart, do not. Left out: pairs of images (lesion noise).
"""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from rich.progress import track

from alignment.generation import generate
from alignment.models import load_for_inference
from alignment.recipe import Recipe, Sampling, parquet
from data_builders.render import report
from data_builders.schema import assistant_turn
from rewards.compare import compare
from rewards.facts import Facts
from rewards.reading import read
from rewards.rule_set import load_rule_set
from rewards.strict_yaml import InputError

TURN = List({"role": Value("string"), "content": List({"type": Value("string"), "text": Value("string")})})
FEATURES = Features(
    {
        "id": Value("string"), "patient": Value("string"), "study": Value("string"), "source": Value("string"),
        "split": Value("string"), "task": Value("string"), "facts": Value("string"), "rule_set": Value("string"),
        "provenance": Value("string"), "images": List(ImageFeature()), "prompt": TURN, "chosen": TURN, "rejected": TURN,
        "weight": Value("float64"), "kind": Value("string"),
    }
)  # fmt: skip


def conflict(truth: Facts, response: str, sampling: Sampling) -> float | None:
    """How heavily a report conflicts with the truth; None if it does not, or cannot be read.

    ``invented_weight`` for a report that claims what is not there, ``omitted_weight`` for one that only leaves out.
    """
    claimed = read(response, load_rule_set(truth.rule_set)).facts
    if not claimed.findings:
        return None
    found = compare(truth, claimed)
    if found.hallucinations:
        return sampling.invented_weight
    return sampling.omitted_weight if found.omissions else None


def worst_of(truth: Facts, responses: list[str], sampling: Sampling) -> tuple[str, float] | None:
    """The most clearly conflicting response and its weight; None if every response is right or unreadable."""
    judged = [(w, r) for r in responses if (w := conflict(truth, r, sampling)) is not None]
    if not judged:
        return None
    weight, response = max(judged, key=lambda pair: pair[0])
    return response, weight


def write_pairs(recipe: Recipe) -> Path:
    """Samples the model on the report rows of ``data.train`` and writes ``output/preference/pairs.parquet``.

    Raises: InputError if the model makes no mistake from which a pair could be built.
    """
    data = Dataset.from_parquet(str(parquet(recipe.data.train)))
    data = data.select([k for k, task in enumerate(data["task"]) if task == "report"])
    if recipe.data.limit:
        data = data.select(range(min(recipe.data.limit, len(data))))
    responses = _sampled(recipe, data)
    raw: Any = data.cast_column("images", List(ImageFeature(decode=False)))
    rows = [pair for row, own in zip(raw, responses, strict=True) if (pair := _pair(row, own, recipe.sampling))]
    if not rows:
        raise InputError(
            f"{recipe.model.path} made no mistake on {len(data)} reports; there is nothing to prefer against."
        )
    out = Path(recipe.output) / "preference" / "pairs.parquet"
    out.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows, features=FEATURES).to_parquet(str(out))
    return out


def _sampled(recipe: Recipe, data: Dataset) -> list[list[str]]:
    model, processor = load_for_inference(recipe.model.path)
    options, size = recipe.sampling, 16 * recipe.sampling.batch_size
    torch.manual_seed(options.seed)
    responses: list[list[str]] = []
    for start in track(range(0, len(data), size), description="sampling own answers"):
        rows = [data[i] for i in range(start, min(start + size, len(data)))]
        responses += generate(
            model, processor, rows, max_new_tokens=options.max_new_tokens, batch_size=options.batch_size,
            num_samples=options.num_samples, temperature=options.temperature,
        )  # fmt: skip
    return responses


def _pair(row: dict[str, Any], responses: list[str], sampling: Sampling) -> dict[str, Any] | None:
    truth = Facts.model_validate_json(row["facts"])
    worst = worst_of(truth, responses, sampling)
    if worst is None:
        return None
    rejected, weight = worst
    own = {
        "chosen": assistant_turn(report(truth, load_rule_set(truth.rule_set))),
        "rejected": assistant_turn(rejected),
        "weight": weight,
        "kind": "own_error",
        "id": f"{row['id']}-own",
        "task": "report",
    }
    return {name: own.get(name, row.get(name)) for name in FEATURES}
