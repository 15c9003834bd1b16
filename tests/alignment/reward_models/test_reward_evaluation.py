"""Figures of a reward model by hand-made scores, and the whole evaluation of a real tiny one."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from alignment.checks.read_recipe import read_recipe
from alignment.cli.app import app
from alignment.metrics.over_seeds import figures_over_seeds, mean_over_seeds
from alignment.reward_models.best_of_n import _prompt_rows, best_of_curve
from alignment.reward_models.evaluation import not_measured
from alignment.reward_models.pair_figures import ScoredPairs, figure, pair_figures, pair_table
from alignment.training.run import run
from data_builders.schema import assistant_turn as turn
from rewards.config.input_error import InputError
from rewards.loading import load_reward

pytestmark = pytest.mark.filterwarnings("default")  # third-party deprecations of trl and accelerate
TRUTH = '{"rule_set":"chest_xray@1","findings":{"nodule":{"polarity":"present","side":"left"}}}'
RIGHT, WRONG = "There is a nodule on the left.", "No nodule."


def scored(chosen, rejected, lengths=None, patients=None):
    long, short = lengths or (np.arange(len(chosen)), np.zeros(len(chosen)))
    names = patients or [f"p{k}" for k in range(len(chosen))]
    return ScoredPairs(
        *(np.array(v, float) for v in (chosen, rejected, long, short)), names, ["hallucination"] * len(names)
    )


def asked(patient="p"):
    return {"images": [], "prompt": [], "facts": TRUTH, "patient": patient}


def test_the_figures_are_those_of_the_scores():
    found = pair_figures(scored([1, 2, 3, 0], [0, 0, 0, 5]), num_resamples=200)
    assert found.figures["accuracy"].value == 0.75
    assert found.figures["margin"].value == pytest.approx((1 + 2 + 3 - 5) / 4)
    assert found.figures["accuracy"].low <= 0.75 <= found.figures["accuracy"].high
    assert sum(own.num_cases for own in found.reliability) == 8


def test_a_model_that_follows_length_shows_it():
    lengths = (np.array([9.0, 9.0, 1.0, 1.0]), np.array([1.0, 1.0, 9.0, 9.0]))
    found = pair_figures(scored([2, 2, 0, 0], [0, 0, 2, 2], lengths), num_resamples=20).figures
    assert found["accuracy_chosen_longer"].value == 1.0
    assert found["accuracy_chosen_shorter"].value == 0.0
    assert found["length_correlation"].value == pytest.approx(1.0)


def test_one_patient_gives_no_interval():
    found = pair_figures(scored([1, 2], [0, 0], patients=["a", "a"]))
    assert found.figures["accuracy"].low is None


def test_what_is_undefined_is_none_and_left_out_of_its_interval():
    assert figure(float("nan"), [float("nan"), 1.0]).value is None
    assert figure(0.5, [float("nan"), 0.25, 0.25]).low == 0.25


def test_best_of_n_rises_under_a_right_chooser_falls_under_a_wrong_one_and_stays_under_chance():
    rows = [asked("p"), asked("q")]
    samples = [[RIGHT, WRONG, WRONG, WRONG], [WRONG, RIGHT, WRONG, WRONG]]
    reward = load_reward("finding_f1")

    def right(batch):
        return [[float(text == RIGHT) for text in row["answers"]] for row in batch]

    def wrong(batch):
        return [[-score for score in own] for own in right(batch)]

    good = best_of_curve(right, rows, samples, reward, policy="x", num_resamples=20).picks
    bad = best_of_curve(wrong, rows, samples, reward, policy="x", num_resamples=20).picks
    assert [f.value for f in good["reward model"].values()] == pytest.approx([0.25, 0.5, 1.0])
    assert good["oracle"] == good["reward model"]
    assert [f.value for f in good["random"].values()] == pytest.approx([0.25] * 3)
    assert [f.value for f in bad["reward model"].values()] == pytest.approx([0.25, 0.0, 0.0])


def test_prompts_that_the_reward_does_not_judge_are_left_out():
    rows = [asked(), {**asked(), "facts": None}]
    curve = best_of_curve(
        lambda batch: [[0.0, 0.0] for _ in batch], rows, [[RIGHT, WRONG]] * 2, load_reward("finding_f1"), policy="x"
    )
    assert (curve.num_prompts, curve.num_unjudged) == (1, 1)
    with pytest.raises(InputError, match="judges no answer"):
        best_of_curve(lambda batch: [], rows[1:], [[RIGHT, WRONG]], load_reward("finding_f1"), policy="x")


def test_a_misspelt_task_of_best_of_n_is_named_with_the_nearest(data):
    with pytest.raises(InputError, match=r"no row of task 'reprot'. Did you mean 'report'\? There: .*presence"):
        _prompt_rows(str(data / "prompt/test"), "reprot", load_reward("finding_f1"))


def test_what_cannot_be_measured_on_these_pairs_is_named(monkeypatch):
    """Two pairs of the same facts: there is no other image to swap in."""
    row = {
        "images": ["x"],
        "prompt": [],
        "facts": TRUTH,
        "patient": "p",
        "chosen": turn(RIGHT),
        "rejected": turn(WRONG),
    }
    monkeypatch.setattr("alignment.reward_models.pair_figures.scored_pairs", lambda *_, **__: scored([1, 2], [0, 0]))
    table, _ = pair_table(None, None, [row, {**row, "patient": "q"}], num_resamples=5)
    assert not_measured(table) == ["another image: no two pairs with one image on both sides have different facts"]
    assert not_measured({**table, "another image": table["all pairs"]}) == []


@pytest.mark.slow
def test_the_command_writes_figures_and_a_page_by_kind_and_under_another_image(write_recipe, data, tmp_path):
    """One run of everything: pairs of both sides, best of n of an untrained policy."""
    folder = run(read_recipe(write_recipe("reward_model")))
    pairs = with_noised(data, tmp_path)
    arguments = [
        *("eval-reward-model", str(folder), str(pairs), "--prompts", str(data / "prompt/test")),
        *("--policy", str(folder / "init"), "--samples", "4", "--out", str(tmp_path / "out"), "--json"),
    ]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    found = json.loads((tmp_path / "out/reward_model.json").read_text())
    assert set(found["pairs"]) == {"all pairs", "hallucination", "lesion_noise", "another image"}
    assert found["not_measured"] == []
    of_kinds = [found["pairs"][kind]["num_pairs"] for kind in ("hallucination", "lesion_noise")]
    assert sum(of_kinds) == found["pairs"]["all pairs"]["num_pairs"]
    curve = found["best_of_n"]["picks"]
    assert list(curve["oracle"]) == ["1", "2", "4"]
    assert curve["oracle"]["1"]["value"] == pytest.approx(curve["random"]["1"]["value"])
    page = (tmp_path / "out/reward_model.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    over_runs_of_two_seeds(write_recipe, folder, pairs, tmp_path)


def over_runs_of_two_seeds(write_recipe, first, pairs, tmp_path):
    second = run(
        read_recipe(write_recipe("reward_model", output=str(tmp_path / "second"), trainer={"seed": 9, "max_steps": 2}))
    )
    asked = ["eval-reward-model", str(first), str(pairs), "--also", str(second)]
    shown = CliRunner().invoke(app, asked, catch_exceptions=False).stdout
    pages = [json.loads((folder / "evaluation/reward_model.json").read_text()) for folder in (first, second)]
    mean, low, high = mean_over_seeds([p["pairs"]["all pairs"]["figures"]["brier"]["value"] for p in pages])
    assert "95 % over 2 runs" in shown
    assert f"{mean:.3f} ({low:.3f} to" in shown
    assert f"{high:.3f})" in shown
    refused = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert refused.exit_code == 2
    assert "leave it out beside --also" in refused.stderr


def test_figures_over_seeds_are_nested_as_they_were_and_none_where_a_run_has_none():
    runs = [{"pairs": {"accuracy": {"value": v, "low": 0.0, "high": 1.0}, "num": 3}} for v in (0.5, 0.7)]
    found = figures_over_seeds(runs)["pairs"]
    assert set(found) == {"accuracy"}
    assert found["accuracy"]["value"] == pytest.approx(0.6)
    assert found["accuracy"]["high"] == pytest.approx(0.6 + 12.706205 * 0.1, abs=1e-5)  # t of one degree of freedom
    runs[1]["pairs"]["accuracy"]["value"] = None
    assert figures_over_seeds(runs)["pairs"]["accuracy"]["value"] is None


def with_noised(data, tmp_path):
    """The pairs of the data set, a third of them turned into image-side pairs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(data / "preference/align.parquet")
    rows = table.to_pylist()
    for k, row in enumerate(rows):
        if k % 3 == 0:
            other = rows[(k + 7) % len(rows)]["images"]
            row |= {"rejected": row["chosen"], "rejected_images": other, "kind": "lesion_noise"}
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), tmp_path / "pairs.parquet")
    return tmp_path / "pairs"


def test_wrong_input_gets_one_sentence(data, tmp_path):
    from alignment.reward_models.evaluation import evaluate_reward_models
    from alignment.reward_models.pair_figures import pair_rows

    with pytest.raises(InputError, match="both --prompts and --policy"):
        evaluate_reward_models({"x": tmp_path}, "y", policy="z")
    with pytest.raises(InputError, match="not preference rows"):
        pair_rows(str(data / "prompt/test"))
