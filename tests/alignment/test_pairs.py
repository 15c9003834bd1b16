import json
import shutil

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from alignment.controls import pixels
from alignment.models import built_texts
from alignment.pairs import FEATURES, _built, conflict, graded, worst_of, write_pairs
from alignment.recipe import Sampling, read_recipe
from alignment.tiny import build_tiny
from data_builders.render import report
from data_builders.schema import message_text
from rewards.facts import Facts, Finding
from rewards.rule_set import load_rule_set
from rewards.strict_yaml import InputError

CHEST = load_rule_set("chest_xray")

TRUTH = Facts(
    rule_set="chest_xray@1",
    findings={
        "nodule": Finding(polarity="present", side="left", size="small"),
        "effusion": Finding(polarity="absent"),
    },
)
RIGHT = "There is a small nodule on the left. No effusion."
OMITS = "No nodule. No effusion."
INVENTS = "There is a small nodule on the left. There is a large effusion on the left."


def test_the_response_with_most_errors_is_taken_and_its_errors_add_up():
    both = "No nodule. There is a large effusion on the left."
    assert worst_of(TRUTH, [RIGHT, INVENTS, both, OMITS], Sampling()) == (both, 1.5 + 0.75)


def test_among_equals_the_one_that_leaves_out_most_is_taken():
    assert worst_of(TRUTH, [RIGHT, INVENTS, OMITS], Sampling()) == (OMITS, 0.75)


def test_an_omission_weighs_less():
    assert worst_of(TRUTH, [RIGHT, OMITS], Sampling()) == (OMITS, 0.75)


def test_right_and_unreadable_reports_make_no_pair():
    assert worst_of(TRUTH, [RIGHT, "", "qwerty"], Sampling()) is None


def test_the_wrong_side_is_an_invention():
    swapped = "There is a small nodule on the right. No effusion."
    assert worst_of(TRUTH, [swapped], Sampling()) == (swapped, 1.5)


THREE = Facts(
    rule_set="chest_xray@1",
    findings={
        "nodule": Finding(polarity="present", side="left", size="small"),
        "effusion": Finding(polarity="absent"),
        "pneumothorax": Finding(polarity="absent"),
    },
)
TRUE = report(THREE, CHEST)
ONE_WRONG = "There is a small nodule on the left. There is a large effusion on the left. No pneumothorax."
TWO_WRONG = "There is a small nodule on the right. There is a large effusion on the left. No pneumothorax."
ALSO_ONE = "There is a small nodule on the left. No effusion. There is a large pneumothorax on the left."


def test_without_its_weight_nothing_but_the_worst_is_taken():
    assert graded(THREE, TRUE, [ONE_WRONG, TWO_WRONG], Sampling()) == []


def test_fewer_errors_are_preferred_to_more_and_the_truth_to_all():
    pairs = graded(THREE, TRUE, [TWO_WRONG, ONE_WRONG], Sampling(graded=0.5))
    assert pairs == [(TRUE, ONE_WRONG, 0.75), (ONE_WRONG, TWO_WRONG, 1.5)]


def test_equally_wrong_samples_are_not_ranked():
    pairs = graded(THREE, TRUE, [ONE_WRONG, ALSO_ONE], Sampling(graded=1.0))
    assert pairs == [(TRUE, ALSO_ONE, 1.5)]


def test_a_single_wrong_sample_leaves_nothing_to_grade():
    assert graded(THREE, TRUE, [ONE_WRONG, TRUE], Sampling(graded=1.0)) == []


def rows_of(folder):
    return pq.read_table(folder / "preference" / "pairs.parquet").to_pylist()


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    """A tiny untrained model: most of what it samples is wrong, and some of it can be read."""
    folder = tmp_path_factory.mktemp("start") / "tiny"
    return build_tiny(built_texts(str(data / "instruction/sft")), folder, image_size=64)


def made(write_recipe, start, *kinds, ask=None, **sampling):
    options = {"num_samples": 8, "max_new_tokens": 48, "kinds": list(kinds), **sampling}
    recipe = read_recipe(write_recipe("pairs", model={"path": str(start)}, trainer={}, sampling=options))
    file = write_pairs(recipe, ask=ask)
    return rows_of(file.parents[1]), json.loads((file.parent / "card.json").read_text())


@pytest.mark.filterwarnings("default")
def test_text_and_image_side_stand_in_one_set_with_its_card(write_recipe, start):
    rows, card = made(write_recipe, start, "own_error", "lesion_noise", "look_alike", noise={"step": 900})
    assert {row["kind"] for row in rows} == {"own_error", "lesion_noise", "look_alike"} == set(card["weights"])
    assert len({row["id"] for row in rows}) == len(rows)
    noised = [row for row in rows if row["kind"] == "lesion_noise"]
    assert card["lesion_noise"]["images"] == len(noised)
    for row in noised:
        assert row["chosen"] == row["rejected"]
        clean, other = (pixels(row[key][0]) for key in ("images", "rejected_images"))
        assert clean.size == other.size
        assert clean != other
    for row in rows:
        assert row["kind"] == "lesion_noise" or row["rejected_images"] is None


@pytest.mark.filterwarnings("default")
def test_degraded_answers_are_rejected_under_the_clean_image(write_recipe, start):
    rows, card = made(write_recipe, start, "degraded", noise={"step": 999})
    assert rows
    assert {row["kind"] for row in rows} == {"degraded"}
    for row in rows:
        truth = Facts.model_validate_json(row["facts"])
        assert conflict(truth, message_text(row["rejected"]), Sampling()) is not None
        assert row["rejected_images"] is None
    assert len(rows) + card["without_pair"].get("degraded", 0) == card["lesion_noise"]["images"]


@pytest.mark.filterwarnings("default")
def test_each_image_of_a_look_alike_pair_is_shown_with_both_reports(write_recipe, start):
    rows, _ = made(write_recipe, start, "look_alike", look_alike_weight=0.25)
    assert {row["weight"] for row in rows} == {0.25}
    for one, other in zip(rows[::2], rows[1::2], strict=True):
        assert one["patient"] != other["patient"]
        assert one["chosen"] == other["rejected"] != one["rejected"] == other["chosen"]
        assert message_text(one["chosen"]) == report(Facts.model_validate_json(one["facts"]), CHEST)


@pytest.mark.filterwarnings("default")
def test_an_llm_is_given_the_samples_and_its_answers_are_checked(write_recipe, start):
    wrong = "There is a large pneumothorax on the left."

    def ask(prompts):
        return ['{"number": null}' if "Candidates" in prompt else json.dumps({"answer": wrong}) for prompt in prompts]

    rows, card = made(write_recipe, start, "llm", ask=ask)
    assert {message_text(row["rejected"]) for row in rows} == {wrong}
    assert all(conflict(Facts.model_validate_json(row["facts"]), wrong, Sampling()) for row in rows)
    assert len(rows) + sum(card["refused"].values()) == len(rows) + card["without_pair"]["llm"]


@pytest.mark.filterwarnings("default")
def test_an_llm_that_is_not_there_is_asked_for(write_recipe, start):
    with pytest.raises(InputError, match="'llm' needs an LLM"):
        made(write_recipe, start, "llm")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_recipes_own_llm_is_asked_through_the_one_client(write_recipe, start, server):
    wrong = "There is a large pneumothorax on the left."
    server.answer = lambda body: (
        '{"number": null}' if "Candidates" in body["messages"][-1]["content"] else json.dumps({"answer": wrong})
    )
    rows, _ = made(write_recipe, start, "llm", llm={"model": "m", "endpoint": server.url, "max_attempts": 1})
    assert rows
    assert {message_text(row["rejected"]) for row in rows} == {wrong}
    assert {body["model"] for body in server.requests} == {"m"}


def test_an_llm_that_no_kind_asks_is_refused():
    with pytest.raises(ValidationError, match="no effect unless kinds name 'llm'"):
        Sampling(llm={"model": "m", "endpoint": "http://127.0.0.1:1/v1"})


def test_rows_of_a_built_set_are_added_as_they_were_built(data, tmp_path):
    shutil.copytree(data / "preference", tmp_path / "preference")
    file = tmp_path / "preference" / "align.parquet"
    table = pq.read_table(file)
    content = table.to_pylist()
    content[1] |= {"kind": "lesion_noise", "rejected_images": content[1]["images"]}
    pq.write_table(type(table).from_pylist(content, schema=table.schema), file)
    (added,) = _built(Sampling(built=str(file)))
    assert set(added) == set(FEATURES)
    assert all(added[name] == value for name, value in content[1].items() if name in FEATURES)
    assert len(_built(Sampling(built=str(file), built_kinds=["hallucination"]))) == len(content) - 1
    with pytest.raises(InputError, match="no row of kind look_alike"):
        _built(Sampling(built=str(file), built_kinds=["look_alike"]))


def test_nothing_is_added_unasked():
    assert _built(Sampling()) == []


@pytest.mark.filterwarnings("default")
def test_boxes_without_units_are_not_noised(write_recipe, start, data, tmp_path):
    shutil.copytree(data / "prompt", tmp_path / "bare" / "prompt")
    recipe = read_recipe(
        write_recipe(
            "pairs", model={"path": str(start)}, trainer={}, sampling={"kinds": ["lesion_noise"]},
            data={"train": str(tmp_path / "bare" / "prompt" / "align")},
        )
    )  # fmt: skip
    with pytest.raises(InputError, match="the units of its boxes"):
        write_pairs(recipe)
