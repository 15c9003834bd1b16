"""Units are one: on a build of the default grid, every reader of boxes takes the truth for the truth."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import Dataset

from alignment.checks.read_recipe import read_recipe
from alignment.cli.filters import score_lines
from alignment.config.box_units import known_space, with_units, written_space
from alignment.config.reward_entry import loaded_reward
from alignment.data.processed_size import ProcessedSizes
from alignment.data.prompt_rows import read_rows, written_rows
from alignment.evaluation.answer_files import outcomes_of
from alignment.evaluation.blindness import USUAL_NOISE, _mask
from alignment.evaluation.report import _drawing
from alignment.metrics.intervals import summarise
from alignment.metrics.outcomes import score_answers
from alignment.reward_functions.adapter import trl_rewards
from alignment.reward_functions.combined import combined_rewards
from alignment.training.grpo import with_unit_columns
from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec
from data_builders.cards import card_grid
from rewards.boxes.coordinate_space import Units, in_written_units
from rewards.config.input_error import InputError
from tests.alignment.conftest import SPEC

BOX_REWARDS = ["box_overlap", "medmo_box", "medmo_box_safe", "box_measure", "finding_boxes"]
SPACES = ["grid", "0-1", "0-100", "0-1000", "0-1024", "pixels"]


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """A data set on the default grid of 1000, with questions for boxes of what is not there."""
    out = tmp_path_factory.mktemp("default") / "phantom"
    spec = {key: value for key, value in SPEC.items() if key != "box_grid"}
    return build(BuildSpec.model_validate({**spec, "box_absent": True, "output": str(out)}))


@pytest.fixture
def recipe_on(default, write_recipe):
    """A function that writes a GRPO recipe on the default data set."""

    def write(*rewards, **data):
        train = {"train": str(default / "prompt/align"), **data}
        return write_recipe("grpo", data=train, rewards=[{"name": name} for name in rewards])

    return write


def boxed(default, split="align"):
    rows = [row for row in read_rows(default / "prompt" / split) if row["task"] == "box"]
    assert {bool(row["boxes"]) for row in rows} == {True, False}
    return rows


def test_rows_say_what_is_asked_and_in_which_units(default):
    rows = pq.read_table(default / "prompt/align.parquet").to_pylist()
    assert {row["box_grid"] for row in rows} == {1000}
    assert all(row["image_size"] == [[64, 64]] for row in rows)
    assert all((row["target"] is None) == (row["task"] == "report") for row in rows)
    assert all(row["target"] in row["facts"] for row in rows if row["target"])


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", BOX_REWARDS)
def test_the_truth_earns_everything_from_every_box_reward_in_every_space(default, name, space):
    for row in boxed(default):
        columns = {column: [value] for column, value in row.items()}
        (function,), _ = trl_rewards(read_entries(name), space)
        said = in_written_units(row["answer"], Units.of(row, space))
        least = {"0-100": 0.75, "pixels": 0.6}.get(space, 0.97)  # whole hundredths or pixels of a 64 x 64 image
        assert function([said], **columns) == [pytest.approx(1.0, abs=1 - least if row["boxes"] else 1e-9)], row["id"]


def read_entries(*names):
    from alignment.config.reward_entry import RewardEntry

    return [RewardEntry.model_validate({"name": name}) for name in names]


@pytest.mark.parametrize("name", BOX_REWARDS)
def test_score_reads_the_same_units_from_the_same_columns(default, name):
    row = next(row for row in boxed(default) if row["boxes"])
    line = {key: value for key, value in row.items() if key != "images"} | {"response": row["answer"]}
    [scored] = score_lines(name, [], [json.dumps(line)])
    assert json.loads(scored)["score"] == pytest.approx(1.0)
    line |= {
        "box_grid": None,
        "target": "nodule",
        "boxes": [[6, 6, 32, 32]],
        "response": "nodule [[93.75,93.75,500,500]]",
    }
    facts = {"rule_set": "chest_xray@1", "findings": {"nodule": {"polarity": "present", "boxes": [[6, 6, 32, 32]]}}}
    [scored] = score_lines(name, ["box_space=0-1000"], [json.dumps(line | {"facts": json.dumps(facts)})])
    assert json.loads(scored)["score"] == pytest.approx(1.0)  # of 64 x 64 pixels


def test_score_names_the_line_whose_units_are_lacking_or_wrong():
    line = {"response": "[[0,0,10,10]]", "boxes": [[0, 0, 10, 10]]}
    with pytest.raises(InputError, match=r"line 1: MedMO.*'box_grid' nor 'image_size'"):
        list(score_lines("medmo_box_safe", [], [json.dumps(line)]))
    with pytest.raises(InputError, match=r"line 2: its true box .* is not inside 5 x 5"):
        list(score_lines("box_overlap", [], [json.dumps(line), json.dumps(line | {"box_grid": 5})]))
    [scored] = score_lines("box_overlap", [], [json.dumps(line)])  # neither: one unit
    assert json.loads(scored)["score"] == 1.0


@pytest.mark.parametrize("space", SPACES)
def test_evaluation_counts_true_answers_as_true(default, space):
    rows = written_rows(boxed(default, "test"), space, None)
    answers = [in_written_units(row["answer"], Units.of(row)) for row in rows]
    found = {name: metric.value for name, metric in summarise(score_answers(rows, answers)).items()}
    assert found["mean_iou"] == pytest.approx(1.0, abs={"0-100": 0.2, "pixels": 0.3}.get(space, 0.02))
    assert found["box_parse_failure"] == found["false_boxes_on_empty"] == 0.0


def test_a_denial_of_what_was_asked_is_no_parse_failure(default):
    row = next(row for row in boxed(default) if not row["boxes"])
    name = row["answer"].partition(" [")[0]
    [denied, claimed] = score_answers([row] * 2, [f"There is no {name}.", f"There is a {name}, none of it normal."])
    assert (denied.counts["unparsed_boxes"], claimed.counts["unparsed_boxes"]) == (0.0, 1.0)


def test_the_report_draws_and_the_probe_masks_the_lesion_where_it_is(default):
    row = next(row for row in boxed(default) if row["boxes"])
    x1, y1, x2, _ = (v * 64 / 1000 for v in row["boxes"][0])
    line = {"task": "box", "finding": "x", "true_boxes": row["boxes"], "boxes": [], "box_grid": 1000}
    drawn = _drawing([line], (64, 64))["true"][0]
    assert (drawn["x"], drawn["y"]) == (round(x1, 1), round(y1, 1))
    assert drawn["width"] == pytest.approx(x2 - x1, abs=0.1)
    ys, xs = np.nonzero(_mask(row, noise=USUAL_NOISE))
    assert (xs.min(), ys.min()) == (int(x1), int(y1))
    assert xs.max() >= x2 - 1
    assert _drawing([line | {"box_grid": None}], (64, 64))["true"] == []
    assert _mask(row | {"box_grid": None, "image_size": None}, noise=USUAL_NOISE) is None


def test_pixels_without_a_grid_are_drawn_and_masked_as_pixels(default):
    row = next(row for row in boxed(default) if row["boxes"])
    facts = json.loads(row["facts"])
    for finding in facts["findings"].values():
        finding["boxes"] = [[8, 16, 24, 32]] if finding.get("boxes") else []
    ys, xs = np.nonzero(_mask(row | {"box_grid": None, "facts": json.dumps(facts)}, noise=USUAL_NOISE))
    assert (xs.min(), ys.min(), xs.max(), ys.max()) == (8, 16, 23, 31)


# --- recipes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOX_REWARDS)
@pytest.mark.parametrize("space", SPACES)
def test_check_takes_a_default_build_with_every_box_reward_and_space(recipe_on, name, space):
    recipe = read_recipe(recipe_on(name, box_space=space))
    assert loaded_reward(recipe.rewards[0], recipe.data.box_space).knobs["box_space"] == space


def saved(default, folder, change):
    rows = [change(row) for row in pq.read_table(default / "prompt/align.parquet").to_pylist()]
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "align.parquet")
    return str(folder / "align")


def fault(path):
    with pytest.raises(InputError) as caught:
        read_recipe(path)
    return str(caught.value)


def test_check_names_the_row_whose_truth_is_outside_its_space(default, recipe_on, tmp_path):
    train = saved(default, tmp_path / "data", lambda row: row | {"box_grid": 100})
    assert "data.train: row p0" in fault(recipe_on("box_overlap", train=train))
    assert "is not inside 100 x 100" in fault(recipe_on("box_overlap", train=train))
    with pytest.raises(InputError, match=r"row p0.* is not inside 100 x 100"):
        read_rows(tmp_path / "data" / "align")


def test_check_refuses_a_space_that_the_rows_do_not_tell(default, recipe_on, tmp_path):
    train = saved(default, tmp_path / "data", lambda row: row | {"box_grid": None, "image_size": None})
    assert "nor 'box_grid'" in fault(recipe_on("box_overlap", train=train, box_space="0-1000"))
    assert "has no 'image_size'" in fault(recipe_on("box_overlap", train=train, box_space="pixels"))
    assert "'box_grid' nor 'image_size'" in fault(recipe_on("medmo_box_safe", train=train))
    assert read_recipe(recipe_on("box_overlap", train=train)).data.box_space == "grid"


def test_check_refuses_a_reward_that_pays_no_true_box(default, recipe_on, tmp_path):
    """Rows whose answers are in other units than their truth: hundredths beside thousandths."""

    def hundredths(row):
        return row | {"answer": in_written_units(row["answer"] or "", Units("0-100", 1000))}

    train = saved(default, tmp_path / "data", hundredths)
    found = fault(recipe_on("medmo_box_safe", "finding_f1", train=train))
    assert "'medmo_box_safe' pays no true answer" in found
    assert "other units" in found


def test_check_refuses_rewards_by_which_no_answer_can_be_paid(recipe_on, default, tmp_path):
    train = saved(default, tmp_path / "data", lambda row: row | {"answer": "I cannot say."})
    assert read_recipe(recipe_on("closed_answer", train=train))
    assert "no answer can be paid" in fault(recipe_on("finding_f1", train=train))


def test_check_refuses_rewards_that_are_all_without_weight_or_against_the_truth(recipe_on, default):
    for weight in (0, -1.0):
        path = recipe_on("finding_f1", train=str(default / "prompt/align"))
        content = yaml.safe_load(path.read_text())
        content["rewards"][0]["weight"] = float(weight)
        path.write_text(yaml.safe_dump(content))
        assert "no reward has a weight above 0" in fault(path)


def test_a_reward_does_not_set_a_space_of_its_own(recipe_on):
    path = recipe_on("box_overlap")
    content = yaml.safe_load(path.read_text())
    content["rewards"][0]["box_space"] = "0-100"
    path.write_text(yaml.safe_dump(content))
    assert "data.box_space" in fault(path)


def test_sft_does_not_teach_other_units_than_the_recipe_says(default, write_recipe):
    train = {"train": str(default / "instruction/sft")}
    assert read_recipe(write_recipe("sft", data={**train, "box_space": "0-1000"}))  # the grid of 1000
    assert "on the grid of 1000" in fault(write_recipe("sft", data={**train, "box_space": "0-100"}))


def test_a_run_that_writes_other_units_is_no_start(recipe_on, tmp_path):
    (tmp_path / "sft").mkdir()
    (tmp_path / "sft/recipe.resolved.yaml").write_text("data: {box_space: 0-100}")
    path = recipe_on("box_overlap")
    path.write_text(path.read_text().replace("path: tiny", f"path: {tmp_path / 'sft'}"))
    assert "was trained to write boxes in '0-100'" in fault(path)
    (tmp_path / "sft/recipe.resolved.yaml").write_text("data: {box_space: 0-1000}")  # the grid of 1000
    assert read_recipe(path)


# --- old sets, runs, and processors --------------------------------------------------------------------------------


def test_a_set_without_the_columns_takes_its_grid_from_its_card(default, tmp_path):
    old = [{"id": "a", "boxes": [[0, 0, 990, 990]]}]
    assert card_grid(default / "prompt/align.parquet") == 1000
    assert with_units(old, default / "prompt/align.parquet")[0]["box_grid"] == 1000
    assert with_units(old, tmp_path / "x.parquet")[0]["box_grid"] is None


def test_training_reads_the_units_that_a_set_or_a_processor_tells(default, recipe_on, tmp_path):
    entry = default / "prompt/align"
    new = Dataset.from_parquet(f"{entry}.parquet", cache_dir=str(tmp_path / "cache"))
    old = new.remove_columns(["box_grid", "image_size", "target"])
    recipe = read_recipe(recipe_on("medmo_box_safe", box_space="processed"))
    found = with_unit_columns(old, recipe, processor(Qwen()))
    assert set(found["box_grid"]) == {1000}
    assert found["processed_size"][0] == [[56, 56]]
    recipe = read_recipe(recipe_on("medmo_box_safe"))
    assert with_unit_columns(new, recipe, None).column_names == new.column_names
    read = combined_rewards(recipe, group_size=2).columns
    assert {"boxes", "target", "rule_set", "box_grid", "image_size"} <= read


def test_a_run_is_evaluated_in_the_units_that_it_was_trained_in(tmp_path):
    assert written_space(str(tmp_path)) == "grid"
    (tmp_path / "recipe.resolved.yaml").write_text("data: {box_space: 0-1000}")
    assert written_space(str(tmp_path)) == written_space(str(tmp_path / "model")) == "0-1000"
    with pytest.raises(InputError, match="Did you mean '0-1000'"):
        known_space("0-10000")


def test_answers_that_were_kept_are_judged_again_in_their_units(tmp_path):
    line = {
        "id": "a", "patient": "p", "task": "box", "question": "Where is the nodule?", "answer": "", "finding": "nodule",
        "true_boxes": [[10, 10, 50, 50]], "facts": {"rule_set": "chest_xray@1"}, "box_grid": 100, "box_space": "0-1000",
        "responses": {"clean": "[[100,100,500,500]]", "habit": "[[10,10,50,50]]"},
    }  # fmt: skip
    (tmp_path / "answers.jsonl").write_text(json.dumps(line) + "\n")
    for condition in ("clean", "habit"):
        [outcome] = outcomes_of(tmp_path, condition)
        assert outcome.counts["iou"] == pytest.approx(1.0)


class Qwen:
    """As Qwen2.5-VL's image processor: whole patches of 14, two by two."""

    patch_size, merge_size, size = 14, 2, None

    def __call__(self, images, return_tensors):
        wide, high = (2 * round(side / 28) for side in images[0].size)
        return {"image_grid_thw": np.array([[1, high, wide]])}


FIXED = SimpleNamespace(size={"height": 64, "width": 32})
TILED = SimpleNamespace(size={"longest_edge": 364}, do_image_splitting=True)


def processor(images):
    return SimpleNamespace(image_processor=images)


def test_the_processor_is_asked_how_large_an_image_becomes():
    assert ProcessedSizes(processor(Qwen())).of_size((300, 100)) == [308, 112]
    assert ProcessedSizes(processor(FIXED)).of_size((300, 100)) == [32, 64]
    with pytest.raises(InputError, match="not supported for this processor"):
        ProcessedSizes(processor(TILED))


def test_processed_pixels_are_read_as_the_processor_left_the_image(default):
    rows = written_rows(boxed(default, "test"), "processed", processor(Qwen()))
    assert all(row["processed_size"] == [[56, 56]] for row in rows)
    answers = [in_written_units(row["answer"], Units.of(row)) for row in rows]
    found = summarise(score_answers(rows, answers))
    assert found["mean_iou"].value > 0.7  # whole pixels of 56 x 56
