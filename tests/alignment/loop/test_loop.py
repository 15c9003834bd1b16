"""A loop's names are judged before it runs, its figures where they are gathered; nothing is left out in silence."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from alignment.config.generation_section import GenerationSection
from alignment.evaluation.evaluation_file import Evaluation
from alignment.loop.effects import Effect, effects_of, over_seeds
from alignment.loop.evaluation import _is_so, is_of
from alignment.loop.loop_file import StageComparison, read_loop
from alignment.loop.table import _change
from data_builders.digest import sha256
from rewards.config.input_error import InputError

NAN = float("nan")
FACTS = {"rule_set": "chest_xray@1", "findings": {"nodule": {"polarity": "present"}}}
STAGES = [("sft", "sft"), ("pairs", "pairs"), ("dpo", "dpo")]


@pytest.fixture
def write_loop(tmp_path):
    """A function that writes a loop of SFT, pairs and DPO with these changes, and gives its path."""
    for name, method in STAGES:
        (tmp_path / f"{name}.yaml").write_text(f"method: {method}\n")

    def write(**changes):
        content = {
            "spec": "data.yaml", "test": "prompt/test", "release": "dpo",
            "chain": {"output": "runs/x", "stages": [{"name": n, "recipe": f"{n}.yaml"} for n, _ in STAGES]},
            "compare": [{"before": "sft", "after": "dpo", "metrics": ["mean_iou"]}],
        }  # fmt: skip
        path = tmp_path / "loop.yaml"
        path.write_text(yaml.safe_dump(content | changes))
        return path

    return write


def compared(before="sft", after="dpo", metrics=("mean_iou",), **more):
    return {"compare": [{"before": before, "after": after, "metrics": list(metrics), **more}]}


def test_a_loop_whose_names_are_known_is_read(write_loop):
    loop = read_loop(write_loop(**compared("sft/shuffled", "sft"), probe=True))
    assert loop.controlled == {"sft", "dpo"}
    assert loop.compare[0].stages == {"sft"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (compared(metrics=["mean_iuo"]), "compare.0.metrics.0: no metric 'mean_iuo'. Did you mean 'mean_iou'?"),
        (compared(metrics=["prob/clean/truth_logp"]), "Did you mean 'probe'?"),
        (compared(metrics=[]), "compare.0.metrics"),
        ({"compare": []}, "compare"),
        (compared("stf"), "compare.0: no stage 'stf' is evaluated. Did you mean 'sft'?"),
        (compared("pairs"), "no stage 'pairs' is evaluated. There are: sft, dpo, untrained."),
        (compared("sft/shuffeled", "sft"), "no control 'shuffeled' of 'sft'. Did you mean 'shuffled'?"),
        (compared("sft/habit", "sft"), "sft/habit needs `reference: ENTRY`"),
        (compared("untrained/noise", "sft"), "untrained/noise: 'untrained' is evaluated without controls"),
        (compared(metrics=["win_rate"]), "win_rate needs `opponents: [STAGE]`"),
        (compared(metrics=["win_rate"], opponents=["sfd"]), "no stage 'sfd' is evaluated. Did you mean 'sft'?"),
        (compared(metrics=["probe/clean/truth_logp"]), "need `probe: true`"),
        (compared(metrics=["equal_recall/hallucination_rate"]), "needs `operating_points: [...]`"),
        (compared("untrained", "sft", ["train/loss"]), "train/... of 'untrained' is not there"),
        (compared("sft/noise", "sft", ["train/loss"]), "train/loss is a figure of a stage, the same under"),
        ({"release": "dop"}, "release: no stage 'dop' is evaluated. Did you mean 'dpo'?"),
        ({"operating_points": [1.0]}, "operating_points: 0 must be among them"),
    ],
)
def test_a_name_that_cannot_be_stops_the_loop_before_it_runs(write_loop, changes, told):
    with pytest.raises(InputError) as fault:
        read_loop(write_loop(**changes))
    assert told in str(fault.value)


def test_every_fault_of_a_loop_is_told_at_once(write_loop):
    with pytest.raises(InputError) as fault:
        read_loop(write_loop(**compared("stf", "dpo/nois"), release="x"))
    assert len(str(fault.value).splitlines()) == 3


def evaluated(folder, answers):
    """An evaluation folder of presence questions about a nodule, one patient a row; all are truly yes but the last."""
    folder.mkdir(parents=True)
    lines = [
        {"id": f"r{k}", "patient": f"p{k}", "task": "presence", "question": "Is there a nodule?",
         "answer": "No" if k == len(answers) - 1 else "Yes", "true_boxes": None, "facts": FACTS,
         "responses": {"clean": said}}
        for k, said in enumerate(answers)
    ]  # fmt: skip
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder.parent / "log.jsonl").write_text('{"loss": 1.0}\n')
    return folder


@pytest.fixture
def folders(tmp_path):
    return {
        "sft": evaluated(tmp_path / "sft/evaluation", ["No", "No", "No"]),
        "dpo": evaluated(tmp_path / "dpo/evaluation", ["Yes", "No", "No"]),
    }


def effects(folders, *metrics, before="sft"):
    return effects_of(StageComparison(before=before, after="dpo", metrics=list(metrics)), folders)


def test_every_metric_that_is_asked_for_has_its_line(folders):
    found = effects(folders, "sensitivity[nodule]", "side_accuracy", "sensitivity[effusion]", "train/loss")
    assert [effect.metric for effect in found] == [
        "sensitivity[nodule]", "side_accuracy", "sensitivity[effusion]", "train/loss",
    ]  # fmt: skip
    assert (found[0].before, found[0].after, found[0].note) == (0.0, 0.5, "")
    assert found[1].note == found[2].note == "no row judged it"  # no row asks for a side, none for an effusion
    assert (found[3].before, found[3].after) == (1.0, 1.0)


def test_a_metric_of_one_side_alone_says_which_side_lacks_it(folders, tmp_path):
    """The claim rate of reports: only the second stage was judged on a report that claims something."""
    for name, said in (("sft", "No nodule."), ("dpo", "There is a nodule.")):
        line = json.loads((folders[name] / "answers.jsonl").read_text().splitlines()[0])
        line |= {"task": "report", "question": "Report?", "responses": {"clean": said}}
        (folders[name] / "answers.jsonl").write_text(json.dumps(line) + "\n")
    [effect] = effects(folders, "hallucination_rate")
    assert (effect.after, effect.note) == (0.0, "no row judged it before")
    assert np.isnan(effect.before)


def test_a_finding_that_no_rule_set_knows_is_refused_with_the_nearest(folders):
    with pytest.raises(InputError, match=r"no metric 'sensitivity\[nodul\]' on these rows. Did you .*\[nodule"):
        effects(folders, "sensitivity[nodul]")
    with pytest.raises(InputError, match=r"no metric 'A_C\[standrad\]' on these rows. There are: none of its kind"):
        effects(folders, "A_C[standrad]")


def test_a_condition_under_which_nothing_was_answered_is_refused(folders):
    with pytest.raises(InputError, match="no row was answered under 'shuffled'"):
        effects(folders, "sensitivity", before="sft/shuffled")


def test_a_line_without_a_figure_is_null_in_json_and_a_sentence_in_the_table():
    effect = Effect("a", "b", "m", 0.3, NAN, NAN, NAN, NAN, "no row judged it after")
    assert json.loads(json.dumps(effect.to_json(), allow_nan=False))["after"] is None
    assert _change(effect) == "no row judged it after"


def test_an_evaluation_of_other_weights_is_made_again(tmp_path):
    assert not is_of(tmp_path, "a")
    about: dict = dict(num_rows=1, num_patients=1, seed=0, max_new_tokens={}, versions={}, metrics={})
    Evaluation(model="m", data="d", data_sha256="0", data_card=None, model_sha256="a", **about).write(tmp_path)
    assert is_of(tmp_path, "a")
    assert not is_of(tmp_path, "b")


def test_an_evaluation_of_other_rows_or_settings_is_made_again(tmp_path):
    test, how = tmp_path / "set" / "prompt" / "test", GenerationSection()
    test.parent.mkdir(parents=True)
    pq.write_table(pa.table({"id": ["a", "b", "c"]}), f"{test}.parquet")
    about: dict = dict(num_rows=2, num_patients=1, seed=0, versions={}, metrics={}, model="m", data="d", data_card=None)
    digest = sha256(test.with_suffix(".parquet"))
    told: dict = dict(max_new_tokens=how.bounds(), generation={"dtype": "float32", "temperature": None, "seed": 0})
    Evaluation(data_sha256=digest, **about, **told).write(tmp_path)
    assert _is_so(tmp_path, how, test, 2)
    assert not _is_so(tmp_path, how, test, None)
    assert not _is_so(tmp_path, GenerationSection(max_new_tokens=9), test, 2)
    assert not _is_so(tmp_path, GenerationSection(dtype="bfloat16"), test, 2)
    pq.write_table(pa.table({"id": ["a", "b", "d"]}), f"{test}.parquet")
    assert not _is_so(tmp_path, how, test, 2)


def test_seeds_without_a_figure_are_counted():
    lacking = Effect("a", "b", "m", 0.3, NAN, NAN, NAN, NAN, "not reached")
    [found] = over_seeds([[lacking], [Effect("a", "b", "m", 0.3, 0.2, -0.1, -0.2, 0.0)], [lacking]])
    assert found.note == "not reached with 2 of 3 seeds"
