"""Trade-off between inventing and omitting: bias on denials, and two models compared where they omit equally."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignment.config.generation_section import GenerationSection
from alignment.data.prompt_rows import read_rows
from alignment.evaluation.answers import generate_answers
from alignment.evaluation.operating_points import (
    OperatingPoint,
    biases_in,
    denial_tokens,
    hallucination_at,
    operating_points,
    read_points,
    write_points,
)
from alignment.loop.effects import Effect
from alignment.loop.figures import EQUAL_RECALL, fault_of_name, figures, is_figure
from alignment.loop.table import _change
from alignment.metrics.intervals import summarise
from alignment.metrics.outcomes import score_answers
from alignment.metrics.ratios import FAMILIES, MACROS, RATIOS
from alignment.models.generation import generate
from alignment.models.loading import load_for_inference
from alignment.models.prepared import built_texts
from alignment.models.tiny import build_tiny
from data_builders.imaging.images import pixels
from rewards.config.input_error import InputError
from rewards.rules.rule_set import load_rule_set

pytestmark = pytest.mark.filterwarnings("default")  # third-party deprecations


@pytest.fixture(scope="module")
def tiny(data, tmp_path_factory):
    torch.manual_seed(0)
    texts = [*built_texts(str(data / "prompt/test"))]
    return load_for_inference(str(build_tiny(texts, tmp_path_factory.mktemp("tiny"), image_size=64)))


@pytest.fixture(scope="module")
def rows(data):
    return read_rows(data / "prompt/test")


def point(omission, hallucination, bias=0.0):
    return OperatingPoint(bias, omission, hallucination, 0.0, 0.0)


@pytest.mark.parametrize("name", ["chest_xray", "lung_ct", "blood_smear"])
def test_denials_begin_with_a_token_of_their_own(tiny, name):
    tokenizer = tiny[1].tokenizer
    words = {tokenizer.decode([token]).strip() for token in denial_tokens(tokenizer, load_rule_set(name))}
    assert words
    assert words <= {"No", "N"}


def test_a_rule_set_whose_denials_begin_like_its_claims_is_refused(tiny):
    with pytest.raises(InputError, match="phantom_marrow@1 denials and claims begin with the same token"):
        denial_tokens(tiny[1].tokenizer, load_rule_set("phantom_marrow"))


def test_without_a_bias_the_point_is_the_evaluation(tiny, rows):
    reports = [row for row in rows if row["task"] == "report"]
    (found,) = operating_points(*tiny, rows, [0.0], generation=GenerationSection(batch_size=4))
    want = summarise(
        score_answers(reports, generate_answers(*tiny, reports, generation=GenerationSection(batch_size=4)))
    )
    assert found.omission_rate == want["omission_rate"].value
    assert found.report_parse_failure == want["report_parse_failure"].value


def test_a_model_that_must_not_deny_writes_no_denial(tiny, rows):
    reports = [row | {"images": [pixels(i) for i in row["images"]]} for row in rows if row["task"] == "report"]
    tokens = denial_tokens(tiny[1].tokenizer, load_rule_set("chest_xray"))
    said = {
        bias: generate(*tiny, reports, max_new_tokens=8, token_bias=dict.fromkeys(tokens, bias))
        for bias in (-50.0, 50.0)
    }
    assert all("No" not in answer.split() for (answer,) in said[-50.0])
    assert all(answer.strip().startswith("No") for (answer,) in said[50.0])


def test_rows_without_reports_have_no_trade_off(tiny, rows):
    with pytest.raises(InputError, match="asks for a report"):
        operating_points(*tiny, [row for row in rows if row["task"] == "presence"], [0.0])


def test_between_two_points_the_curve_is_straight():
    curve = [point(0.4, 0.1), point(0.2, 0.2), point(0.1, 0.4)]  # 0.25 is a quarter of the way from 0.2 to 0.4
    assert hallucination_at(curve, 0.25) == pytest.approx(0.2 - 0.25 * 0.1)
    assert hallucination_at(curve, 0.2) == pytest.approx(0.2)


def test_what_was_not_measured_is_not_guessed():
    curve = [point(0.4, 0.1), point(0.2, 0.2), point(0.1, float("nan"))]
    assert hallucination_at(curve, 0.41) is None
    assert hallucination_at(curve, 0.15) is None
    assert hallucination_at([], 0.15) is None


RATES = st.floats(0, 1)


@given(st.lists(st.tuples(RATES, RATES), min_size=1, max_size=6), RATES)
def test_an_interpolated_rate_lies_among_the_measured_ones(pairs, omission):
    found = hallucination_at([point(*pair) for pair in pairs], omission)
    if found is not None:
        assert min(h for _, h in pairs) - 1e-9 <= found <= max(h for _, h in pairs) + 1e-9


@pytest.fixture
def stages(tmp_path):
    """Evaluation folders of two stages: the second hallucinates less at its own, higher omission."""
    for name, points in (
        ("sft", [point(0.2, 0.3), point(0.1, 0.5, -1.0)]),
        ("dpo", [point(0.3, 0.1), point(0.1, 0.5, -1.0)]),
    ):
        folder = tmp_path / name / "evaluation"
        folder.mkdir(parents=True)
        write_points(points, folder)
        metric = {"value": -0.5 if name == "sft" else -0.7}
        probe = {"metrics": {"clean": {"truth_logp": metric}}, "drops": {"blank": {"truth_logp": {"value": -2.0}}}}
        (folder / "blindness.json").write_text(json.dumps(probe))
        logged = (
            [{"loss": 1.0}] if name == "sft" else [{"logps/chosen_drift": -1.0}, {"logps/chosen_drift": -3.0}, {"x": 1}]
        )
        (folder.parent / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in logged))
    return tmp_path / "sft" / "evaluation", tmp_path / "dpo" / "evaluation"


def test_points_are_read_as_they_were_written(stages):
    assert read_points(stages[0]) == [point(0.2, 0.3), point(0.1, 0.5, -1.0)]


def test_points_are_measured_again_only_under_other_biases(stages, tmp_path):
    assert biases_in(stages[0]) == [0.0, -1.0]
    assert biases_in(tmp_path) == []


def test_a_table_says_what_was_not_reached():
    nan = float("nan")
    assert _change(Effect("a", "b", "m", 0.3, nan, nan, nan, nan, "not reached")) == "not reached"
    assert _change(Effect("a", "b", "m", 0.3, 0.2, -0.1, nan, nan)) == "-0.100"
    assert _change(Effect("a", "b", "m", 0.3, 0.2, -0.1, -0.2, 0.0)) == "-0.100 (-0.200 to +0.000)"


def test_at_equal_recall_the_second_stage_is_moved_to_the_firsts_omission(stages):
    before, after = figures(EQUAL_RECALL, *stages)
    assert (before, after) == (0.3, pytest.approx(0.3))  # halfway between (0.3, 0.1) and (0.1, 0.5): no gain at all


def test_a_stage_that_never_omits_so_often_has_no_rate_there(stages):
    write_points([point(0.4, 0.1), point(0.5, 0.0)], stages[1])
    before, after = figures(EQUAL_RECALL, *stages)
    assert before == 0.3
    assert after != after


def test_probe_and_log_are_read_by_their_paths(stages):
    assert figures("probe/clean/truth_logp", *stages) == (-0.5, -0.7)
    assert figures("probe_drop/blank/truth_logp", *stages) == (-2.0, -2.0)
    assert figures("train/logps/chosen_drift", *stages) == (0.0, -3.0)  # SFT is its own reference: no drift
    first, second = figures("train/x", *stages)
    assert (first != first, second) == (True, 1.0)  # what SFT does not log is not 0
    missing = figures("probe/blank/truth_logp", *stages)
    assert missing[0] != missing[0]


def test_a_key_that_no_training_logs_is_refused_with_the_nearest(stages):
    with pytest.raises(InputError, match=r"figure 'train/los'.*neither .*sft nor .*dpo logs it. Did you mean 'loss'"):
        figures("train/los", *stages)


def test_a_figure_that_was_not_measured_says_how_it_is_measured(stages):
    (stages[1] / "blindness.json").unlink()
    with pytest.raises(InputError, match=r"blindness.json: no such file. Remove .* and run the loop again"):
        figures("probe/clean/truth_logp", *stages)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mean_iuo", "no metric 'mean_iuo'. Did you mean 'mean_iou'?"),
        ("macro_balanced_acuracy", "Did you mean 'macro_balanced_accuracy'?"),
        ("mean_iuo[nodule]", "Did you mean 'mean_iou'?"),
        ("micro_f1", "Write micro_f1[NAME]"),
        ("side_accuracy[nodule]", "'side_accuracy' is not told by finding or group"),
        ("mean_iou[]", "Write mean_iou[NAME]"),
        ("xyzzy", "Known: closed_accuracy"),
        ("prob/clean/truth_logp", "no figure 'prob/clean/truth_logp'. Did you mean 'probe'?"),
        ("probe/clean/truth_lgp", "Did you mean 'truth_logp'?"),
        ("probe/cleen/truth_logp", "the probe has no image 'cleen'. Did you mean 'clean'?"),
        ("probe_drop/clean/truth_logp", "a drop is what another image has less than the clean one"),
        ("equal_recall/omission_rate", "There is: equal_recall/hallucination_rate"),
        ("train/", "Write train/KEY"),
    ],
)
def test_a_name_that_cannot_be_is_told_before_the_loop_runs(name, told):
    assert told in (fault_of_name(name) or "")


@pytest.mark.parametrize("name", [*RATIOS, *MACROS, *(f"{family}[x]" for family in FAMILIES), EQUAL_RECALL])
def test_every_metric_can_be_named(name):
    assert fault_of_name(name) is None


def test_an_unknown_figure_is_named(stages):
    assert is_figure("prob/x")
    assert not is_figure("mean_iou")
    assert not is_figure("micro_f1[a/b]")
    for name in ("prob/x", "mean_iou"):
        with pytest.raises(InputError, match=f"{name}"):
            figures(name, *stages)
