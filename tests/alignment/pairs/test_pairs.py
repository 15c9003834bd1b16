import json
import shutil
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from alignment.checks.read_recipe import read_recipe
from alignment.config.recipe import Sampling
from alignment.models.prepared import built_texts
from alignment.models.tiny import build_tiny
from alignment.pairs.own_errors import graded, num_errors, worst_of
from alignment.pairs.write_pairs import FEATURES, _built, write_pairs
from data_builders.imaging.images import pixels
from data_builders.pairs.llm_rows import relevance_of
from data_builders.pairs.relevance import weights_of
from data_builders.rendering.render import report
from data_builders.schema import message_text
from rewards.config.input_error import InputError
from rewards.reports.severity import errors_of
from rewards.rules.facts import Facts, Finding
from rewards.rules.rule_set import load_rule_set

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


def test_the_response_with_most_errors_is_taken():
    both = "No nodule. There is a large effusion on the left."
    assert worst_of(TRUTH, [RIGHT, INVENTS, both, OMITS]) == both


def test_among_equals_the_one_that_leaves_out_most_is_taken_though_its_error_is_milder():
    assert worst_of(TRUTH, [RIGHT, INVENTS, OMITS]) == OMITS
    assert relevance_of(TRUTH, OMITS) == 0.9 * 0.5 < relevance_of(TRUTH, INVENTS) == 0.7


def test_right_and_unreadable_reports_make_no_pair():
    assert worst_of(TRUTH, [RIGHT, "", "qwerty"]) is None


def test_the_wrong_side_is_an_error():
    swapped = "There is a small nodule on the right. No effusion."
    assert worst_of(TRUTH, [swapped]) == swapped


def test_a_wrong_size_alone_makes_no_pair():
    assert worst_of(TRUTH, ["There is a large nodule on the left. No effusion."]) is None


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


def test_fewer_errors_are_preferred_to_more_and_the_truth_to_all():
    assert graded(THREE, TRUE, [TWO_WRONG, ONE_WRONG]) == [(TRUE, ONE_WRONG), (ONE_WRONG, TWO_WRONG)]


def test_equally_wrong_samples_are_not_ranked():
    assert graded(THREE, TRUE, [ONE_WRONG, ALSO_ONE]) == [(TRUE, ALSO_ONE)]


def test_a_single_wrong_sample_leaves_nothing_to_grade():
    assert graded(THREE, TRUE, [ONE_WRONG, TRUE]) == []
    assert graded(THREE, TRUE, [TRUE]) == []


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
    assert card["relevance"] == card["weights"]  # which the raw reading leaves as it is
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
        assert row["image_size"] == [[64, 64]]
        assert row.keys() >= {"attributes", "may_leave"}
    assert card["format"] == 2


KINDS = ["own_error", "lesion_noise"]


@pytest.mark.filterwarnings("default")
def test_each_kind_is_weighted_by_the_reading_that_is_asked_for(write_recipe, start):
    rows, card = made(write_recipe, start, *KINDS, relevance={"reading": "sensible"}, noise={"step": 900})
    for kind in KINDS:
        own = [row for row in rows if row["kind"] == kind]
        relevance = [row["relevance"] for row in own]
        assert len(set(relevance)) > 1
        assert [row["weight"] for row in own] == weights_of(relevance, "sensible").tolist()
        assert card["relevance"][kind]["mean"] == pytest.approx(sum(relevance) / len(relevance))
        assert card["weights"][kind]["max"] <= 1.25
    for row in rows:
        if row["kind"] == "own_error":
            truth = Facts.model_validate_json(row["facts"])
            assert row["relevance"] == relevance_of(truth, message_text(row["rejected"]))


@pytest.mark.filterwarnings("default")
def test_graded_pairs_weigh_the_part_that_is_asked_for(write_recipe, start):
    rows, _ = made(write_recipe, start, "own_error", graded=0.5)
    graded_rows = [row for row in rows if row["kind"] == "graded"]
    assert graded_rows
    assert all(row["weight"] == 0.5 * row["relevance"] for row in graded_rows)
    assert all(row["weight"] == row["relevance"] for row in rows if row["kind"] == "own_error")
    assert len({row["id"] for row in rows}) == len(rows)


@pytest.mark.filterwarnings("default")
def test_a_files_scores_replace_severities_of_wrong_answers_only(write_recipe, start, tmp_path):
    before, _ = made(write_recipe, start, *KINDS, noise={"step": 900})
    scores = tmp_path / "scores.json"
    scores.write_text(json.dumps({row["id"]: 3 for row in before if row["kind"] == "own_error"}))
    told = {"scores": str(scores), "scale": 10}
    rows, _ = made(write_recipe, start, *KINDS, noise={"step": 900}, relevance=told)
    assert {row["relevance"] for row in rows if row["kind"] == "own_error"} == {0.3}
    assert [row for row in rows if row["kind"] != "own_error"] == [r for r in before if r["kind"] != "own_error"]


def test_a_file_of_scores_that_is_not_there_is_told_before_anything_is_sampled(write_recipe, start):
    with pytest.raises(InputError, match=r"sampling\.relevance\.scores: none\.json"):
        made(write_recipe, start, "own_error", relevance={"scores": "none.json"})


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_judges_debate_the_relevance_of_own_errors(write_recipe, start, server, tmp_path):
    server.answer = lambda body: json.dumps({"score": 0.4})
    judges = [{"model": "m", "endpoint": server.url, "max_attempts": 1}]
    recipe = write_recipe(
        "pairs", model={"path": str(start)}, trainer={}, output=str(tmp_path / "out"),
        sampling={"num_samples": 8, "max_new_tokens": 48, "relevance": {"judges": judges, "max_rounds": 1}},
    )  # fmt: skip
    file = write_pairs(read_recipe(recipe))
    rows, card = rows_of(file.parents[1]), json.loads((file.parent / "card.json").read_text())
    assert {row["relevance"] for row in rows} == {0.4}
    lines = [json.loads(line) for line in (tmp_path / "out/relevance-pairs.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [row["id"] for row in rows]
    assert sum(card["debates"].values()) == len(rows)


@pytest.mark.parametrize("key", ["invented_weight", "omitted_weight", "look_alike_weight"])
def test_weights_by_the_number_of_errors_are_gone(write_recipe, key):
    with pytest.raises(InputError, match=rf"sampling\.{key}: unknown key"):
        read_recipe(write_recipe("pairs", sampling={key: 1.0}))


@pytest.mark.filterwarnings("default")
def test_degraded_answers_are_rejected_under_the_clean_image(write_recipe, start):
    rows, card = made(write_recipe, start, "degraded", noise={"step": 999})
    assert rows
    assert {row["kind"] for row in rows} == {"degraded"}
    for row in rows:
        truth = Facts.model_validate_json(row["facts"])
        assert num_errors(truth, message_text(row["rejected"])) is not None
        assert row["weight"] == row["relevance"] == relevance_of(truth, message_text(row["rejected"]))
        assert row["rejected_images"] is None
    assert len(rows) + card["without_pair"].get("degraded", 0) == card["lesion_noise"]["images"]


@pytest.mark.filterwarnings("default")
def test_each_image_of_a_look_alike_pair_is_shown_with_both_reports(write_recipe, start):
    rows, _ = made(write_recipe, start, "look_alike")
    for one, other in zip(rows[::2], rows[1::2], strict=True):
        assert one["patient"] != other["patient"]
        assert one["chosen"] == other["rejected"] != one["rejected"] == other["chosen"]
        truth, others = (Facts.model_validate_json(row["facts"]) for row in (one, other))
        assert message_text(one["chosen"]) == report(truth, CHEST)
        errors = errors_of(truth, others)
        assert one["relevance"] == max(CHEST.severity(name, kind) for name, kind in errors)


@pytest.mark.filterwarnings("default")
def test_an_llm_is_given_the_samples_and_its_answers_are_checked(write_recipe, start):
    wrong = "There is a large pneumothorax on the left."

    def ask(prompts):
        return ['{"number": null}' if "Candidates" in prompt else json.dumps({"answer": wrong}) for prompt in prompts]

    rows, card = made(write_recipe, start, "llm", ask=ask)
    assert {message_text(row["rejected"]) for row in rows} == {wrong}
    for row in rows:
        assert row["relevance"] == relevance_of(Facts.model_validate_json(row["facts"]), wrong)
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


def with_sampling(folder, **sampling):
    return SimpleNamespace(sampling=Sampling(**sampling), output=str(folder / "run"))


def test_rows_of_a_built_set_are_added_as_they_were_built(data, tmp_path):
    shutil.copytree(data / "preference", tmp_path / "preference")
    file = tmp_path / "preference" / "align.parquet"
    table = pq.read_table(file)
    content = table.to_pylist()
    content[1] |= {"kind": "lesion_noise", "rejected_images": content[1]["images"]}
    pq.write_table(type(table).from_pylist(content, schema=table.schema), file)
    (added,) = _built(with_sampling(tmp_path, built=str(file)))
    assert set(added) == set(FEATURES)
    assert all(added[name] == value for name, value in content[1].items() if name in FEATURES)
    assert {"relevance", "weight"} <= content[1].keys()
    assert len(_built(with_sampling(tmp_path, built=str(file), built_kinds=["hallucination"]))) == len(content) - 1
    with pytest.raises(InputError, match="no row of kind look_alike"):
        _built(with_sampling(tmp_path, built=str(file), built_kinds=["look_alike"]))


def test_nothing_is_added_unasked(tmp_path):
    assert _built(with_sampling(tmp_path)) == []


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
