"""The model card of a release."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import yaml

from alignment.evaluation.report import metric_names
from alignment.metrics.metric_names import CONDITIONS
from alignment.provenance.data_summary import data_sentence
from alignment.provenance.lineage import Step, base_name
from alignment.provenance.released_fields import PROVENANCE, RECIPE
from rewards.config.templates import template

Json = dict[str, Any]


def model_card(
    evaluation: Json,
    steps: list[Step],
    *,
    num_parameters: int,
    architecture: str,
    rules: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """README.md of a release: data, recipe, evaluation beside its controls, limits, intended use.

    ``rules``: SHA-256 of the rule sets of the user's own that the release keeps, by file.
    """
    conditions = [c for c in CONDITIONS if c in evaluation["metrics"]]
    recipe = RECIPE(steps[-1].recipe)
    return template("model_card.md.j2", beside=__file__).render(
        architecture=architecture,
        base=base_name(steps),
        method=recipe.get("method", "training"),
        trained_on=[step.published for step in steps],
        tested_on=evaluation["data_card"] or {"sha256": evaluation["data_sha256"]},
        sentence=data_sentence,
        recipe_yaml=yaml.safe_dump(recipe, sort_keys=False).strip(),
        provenance=PROVENANCE(steps[-1].provenance),
        evaluation=evaluation,
        conditions={c: CONDITIONS[c] for c in conditions},
        rows=_table_rows(evaluation["metrics"], conditions),
        num_parameters=num_parameters,
        rules=rules,
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
