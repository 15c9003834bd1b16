"""How relevance becomes weights, worked by hand: of the rows of a build and of those of a ``pairs`` run alike."""

import json
import math

import pytest
from pydantic import ValidationError

from data_builders.build.preference_set import figures, weighted
from data_builders.pairs.llm_rows import LlmTally, relevance_of
from data_builders.pairs.settings import Relevance
from data_builders.schema import assistant_turn, user_turn
from rewards.config.input_error import InputError
from rewards.rules.facts import Facts, Finding

TRUTH = Facts(
    rule_set="chest_xray@1",
    findings={name: Finding(polarity="absent") for name in ("nodule", "effusion", "pneumothorax", "cardiomegaly")},
)


def row(name, relevance, kind="own_error", source="phantom", weight=None):
    turns = {"prompt": user_turn("Write the report."), "chosen": assistant_turn("No nodule.")}
    turns["rejected"] = assistant_turn(f"{name}: there is a nodule.")
    return {"id": name, "source": source, "kind": kind, "relevance": relevance, "weight": weight, **turns}


def scores_of(tmp_path, rows, **section):
    relevance = Relevance.model_validate(section)
    done = weighted(rows, relevance, transcripts=tmp_path / "debates.jsonl", tally=LlmTally())
    assert [one["id"] for one in done] == [one["id"] for one in rows]
    return [(one["relevance"], one["weight"]) for one in done]


def test_two_errors_of_unlike_severity_weigh_as_the_graver_one(tmp_path):
    both = "There is cardiomegaly. There is a large pneumothorax on the left. No nodule. No effusion."
    mild = "There is cardiomegaly. No pneumothorax. No nodule. No effusion."
    rows = [row("both", relevance_of(TRUTH, both)), row("mild", relevance_of(TRUTH, mild))]
    assert scores_of(tmp_path, rows) == [(1.0, 1.0), (0.5, 0.5)]  # not 1.5, and not 0.5 twice
    # two scores are one deviation off their mean: 1 +- sqrt 0.1 = 1.316, 0.684, clipped
    assert scores_of(tmp_path, rows, reading="sensible") == [(1.0, 1.25), (0.5, 0.75)]


def test_each_source_and_kind_is_normalised_by_itself(tmp_path):
    rows = [
        row("a", 0.2), row("b", 0.4),
        row("c", 0.2, source="other"), row("d", 0.2, source="other"),
        row("e", 0.9, kind="lesion_noise"), row("f", 1.0, kind="lesion_noise"),
    ]  # fmt: skip
    weights = [weight for _, weight in scores_of(tmp_path, rows, reading="sensible")]
    assert weights == [0.75, 1.25, 1.0, 1.0, 0.75, 1.25]
    three = [row(str(score), score) for score in (0.2, 0.5, 0.8)]  # z = -1.2247, 0, 1.2247
    want = [0.75, 1.0, 1.25]
    assert [weight for _, weight in scores_of(tmp_path, three, reading="sensible")] == pytest.approx(want)
    many = [row(str(k), k / 10) for k in range(11)]  # mean 0.5, deviation sqrt 0.1: the weight is 1 + (s - 0.5)
    found = [weight for _, weight in scores_of(tmp_path, many, reading="sensible")]
    assert found == pytest.approx([max(0.75, min(1.25, 0.5 + k / 10)) for k in range(11)])


def test_a_weight_that_came_with_a_row_stands_unless_the_row_is_scored_or_normalised(tmp_path):
    rows = [row("a", 0.2, weight=1.1), row("b", None, weight=0.6)]
    assert scores_of(tmp_path, rows) == [(0.2, 1.1), (None, 0.6)]
    (tmp_path / "s.json").write_text('{"a": 5, "b": 10}')
    assert scores_of(tmp_path, rows, scores=str(tmp_path / "s.json"), scale=10) == [(0.5, 0.5), (1.0, 1.0)]
    with pytest.raises(InputError, match="row 'b' has no score"):
        scores_of(tmp_path, rows, reading="sensible")
    assert scores_of(tmp_path, rows, reading="text", missing="mean") == [(0.2, 1.0), (0.2, 1.0)]


KINDS = ("hallucination", "llm", "own_error", "degraded", "graded", "look_alike")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_scores_every_kind_with_a_wrong_answer(tmp_path, kind):
    rows = [row("a", 0.9, kind=kind), row("b", 0.9, kind="lesion_noise")]
    (tmp_path / "s.json").write_text('{"a": 0.1}')
    assert scores_of(tmp_path, rows, scores=str(tmp_path / "s.json")) == [(0.1, 0.1), (0.9, 0.9)]


def test_only_the_kinds_that_are_named_are_scored_anew(tmp_path):
    rows = [row("a", 0.9, kind="llm"), row("b", 0.9, kind="lesion_noise")]
    (tmp_path / "s.json").write_text('{"b": 0.1}')
    named = {"scores": str(tmp_path / "s.json"), "kinds": ["lesion_noise"]}
    assert scores_of(tmp_path, rows, **named) == [(0.9, 0.9), (0.1, 0.1)]
    with pytest.raises(ValidationError, match="lesion_nois"):
        Relevance.model_validate({"kinds": ["lesion_nois"]})


def test_judges_replace_severities_and_their_debates_are_kept(tmp_path, server):
    """The first judge says 0.2 and the second 0.6, in both rounds: no agreement, so the mean of all four."""
    server.answer = lambda body: json.dumps({"score": 0.2 if body["model"] == "mild" else 0.6})
    judges = [{"model": name, "endpoint": server.url, "max_attempts": 1} for name in ("mild", "strict")]
    rows = [row("a", 1.0), row("b", 1.0, kind="lesion_noise")]
    tally = LlmTally()
    relevance = Relevance.model_validate({"judges": judges, "max_rounds": 2})
    one, other = weighted(rows, relevance, transcripts=tmp_path / "debates.jsonl", tally=tally)
    assert (one["relevance"], one["weight"]) == pytest.approx((0.4, 0.4))
    assert (other["relevance"], other["weight"]) == (1.0, 1.0)
    (line,) = (tmp_path / "debates.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == "a"
    assert sum(tally.debates.values()) == 1


def test_the_card_tells_relevance_and_weights_apart_and_leaves_out_what_is_not_known():
    rows = [row("a", 0.5, weight=1.25), row("b", None, weight=0.75), row("c", 1.0, kind="look_alike", weight=1.0)]
    told = figures(rows)
    assert told["relevance"]["own_error"] == {
        "rows": 1, "mean": 0.5, "min": 0.5, "max": 0.5, "zero": 0, "effective_share": 1.0,
    }  # fmt: skip
    assert told["weights"]["own_error"]["rows"] == 2
    assert told["weights"]["own_error"]["mean"] == 1.0
    assert told["relevance"]["look_alike"]["rows"] == told["weights"]["look_alike"]["rows"] == 1
    # (1.25 + 0.75)^2 / (1.25^2 + 0.75^2) / 2
    assert math.isclose(told["weights"]["own_error"]["effective_share"], 4 / 2.125 / 2)


def test_a_scale_without_scores_is_refused():
    with pytest.raises(ValidationError, match="'scale' is of 'scores' or 'judges'"):
        Relevance.model_validate({"reading": "raw", "scale": 5.0})
