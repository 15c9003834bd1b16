"""Language models in a build, on a real endpoint on loopback: false reports, debated relevance, what goes wrong."""

import json

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec, read_spec
from data_builders.pairs.llm_rows import asker, relevance_of
from data_builders.schema import message_text
from rewards.config.input_error import InputError
from rewards.llm.spec import LlmSpec, open_llm
from rewards.reports.severity import UNREAD
from rewards.rules.facts import Facts, Finding

FALSE = "There is a large pneumothorax on the left."
SPEC = {
    "source": {"name": "phantom_chest", "patients": 8, "images_per_patient": 1, "size": 64},
    "splits": {"align": 1.0},
    "rows": {"preference": ["align"]},
    "tasks": {},
    "corruptions_per_image": 2,
}
TRUTH = Facts(
    rule_set="chest_xray@1",
    findings={
        "nodule": Finding(polarity="present"),
        "effusion": Finding(polarity="absent"),
        "pneumothorax": Finding(polarity="absent"),
    },
)


def spec_of(server, name="m", **more):
    return {"model": name, "endpoint": server.url, "max_attempts": 1, **more}


def built(folder, **changes):
    """The rows of a small built set, and its card."""
    out = build(BuildSpec.model_validate({**SPEC, "output": str(folder / "set"), **changes}))
    rows = pq.read_table(out / "preference/align.parquet").to_pylist()
    return rows, json.loads((out / "card.json").read_text())


def writes(body):
    return json.dumps({"answer": FALSE})


def debated(body):
    """Longer statements score higher, so that scores differ."""
    statement = body["messages"][-1]["content"].partition("STATEMENT")[2]
    return json.dumps({"score": 0.2 if "No nodule" in statement else 0.8})


def test_the_models_report_replaces_the_first_corrupted_truth_of_each_image(server, tmp_path):
    before, _ = built(tmp_path / "plain")
    server.answer = writes
    rows, card = built(tmp_path, llm=spec_of(server))
    written = [row for row in rows if row["kind"] == "llm"]
    told = card["preference"]["align"]["llm"]
    assert [row["id"] for row in rows] == [row["id"] for row in before]
    assert len(written) == told["written"]
    assert told["written"] + sum(told["dropped"].values()) == 8
    assert {message_text(row["rejected"]) for row in written} == {FALSE}
    assert len({row["id"].rpartition("-preference-")[0] for row in written}) == len(written)
    kept = {row["id"]: row for row in rows if row["kind"] == "hallucination"}
    assert kept
    assert all(row["rejected"] == kept[row["id"]]["rejected"] for row in before if row["id"] in kept)


def test_its_weight_is_the_severity_of_its_gravest_error(server, tmp_path):
    server.answer = writes
    rows, card = built(tmp_path, llm=spec_of(server))
    of_llm = [row for row in rows if row["kind"] == "llm"]
    assert {(row["relevance"], row["weight"]) for row in of_llm} == {(1.0, 1.0)}  # an invented pneumothorax
    assert "llm" in card["preference"]["align"]["weights"]


def test_a_tagged_set_has_tagged_reports(server, tmp_path):
    server.answer = writes
    rows, _ = built(tmp_path, llm=spec_of(server), answer_style="tagged")
    assert f"<answer>{FALSE}</answer>" in {message_text(row["rejected"]) for row in rows if row["kind"] == "llm"}
    assert all("<answer>" not in body["messages"][-1]["content"] for body in server.requests)


@pytest.mark.parametrize(
    ("act", "reply", "reason"),
    [
        (None, "I would rather not.", "no JSON with an answer (8)"),
        (None, json.dumps({"answer": " "}), "empty (8)"),
        (500, "", "no reply: HTTP 500 (8)"),
        (429, "", "no reply: HTTP 429 (8)"),
        ("truncated", "", "no reply: the connection was cut (8)"),
        ("broken json", "", "no reply: not a chat completion (8)"),
    ],
)
def test_a_model_that_wrote_nothing_that_is_fit_stops_the_build_with_its_fault(server, tmp_path, act, reply, reason):
    rows, _ = built(tmp_path)
    server.answer = lambda body: reply
    server.script = [act] * 40 if act else []
    with pytest.raises(InputError) as told:
        built(tmp_path, llm=spec_of(server))
    assert str(told.value).startswith(f"llm: m wrote none of the 8 false answers asked for: {reason}. Mend the ")
    assert pq.read_table(tmp_path / "set/preference/align.parquet").to_pylist() == rows


def test_a_fault_of_the_server_is_counted_as_that_and_its_request_is_asked_again_as_it_was(server, tmp_path):
    server.answer = lambda body: "no" if FALSE in str(body) else json.dumps({"answer": FALSE})
    server.script = [500] * 9
    rows, card = built(tmp_path, llm=spec_of(server, concurrency=1))
    told = card["preference"]["align"]["llm"]
    assert told["dropped"]["no reply: HTTP 500"] == 1  # eight in the first round, one of them in the second too
    assert told["written"] + sum(told["dropped"].values()) == 8
    assert sum(row["kind"] == "llm" for row in rows) == told["written"]
    assert all("An earlier attempt" not in str(body) for body in server.requests)


@pytest.mark.slow
def test_judges_debate_the_relevance_of_each_rejected_answer(server, tmp_path):
    server.answer = debated
    judges = [spec_of(server, "first"), spec_of(server, "second")]
    rows, card = built(tmp_path, relevance={"judges": judges, "reading": "raw"})
    lines = [json.loads(line) for line in (tmp_path / "set/relevance-align.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [row["id"] for row in rows]
    assert [line["score"] for line in lines] == [row["weight"] for row in rows] == [row["relevance"] for row in rows]
    assert {row["weight"] for row in rows} == {0.2, 0.8}
    assert card["preference"]["align"]["llm"]["debates"] == {"consensus": len(rows)}
    assert {turn["judge"] for turn in lines[0]["transcript"]} == {"1: first", "2: second"}
    assert all(message_text(row["chosen"]) not in str(server.requests) for row in rows)  # judges see no truth


@pytest.mark.slow
def test_an_unreadable_debate_is_a_missing_score(server, tmp_path):
    server.answer = lambda body: "no idea"
    with pytest.raises(InputError, match="has no score"):
        built(tmp_path, relevance={"judges": [spec_of(server)], "max_rounds": 1})
    rows, card = built(tmp_path, relevance={"judges": [spec_of(server)], "max_rounds": 1, "missing": "one"})
    assert {row["weight"] for row in rows} == {1.0}
    assert card["preference"]["align"]["llm"]["debates"] == {"unreadable": len(rows)}


def test_scores_from_two_places_are_refused(server):
    with pytest.raises(ValidationError, match="both give scores"):
        BuildSpec.model_validate(
            {**SPEC, "output": "x", "relevance": {"judges": [spec_of(server)], "scores": "scores.json"}}
        )


def test_a_model_without_preference_rows_has_no_effect_and_is_refused(server):
    with pytest.raises(ValidationError, match=r"need rows\.preference"):
        BuildSpec.model_validate({**SPEC, "output": "x", "rows": {"prompt": ["align"]}, "llm": spec_of(server)})


def test_a_local_model_is_refused_in_a_build(tmp_path):
    with pytest.raises(InputError, match="has no endpoint"):
        built(tmp_path, llm={"model": "smollm2"})


def test_the_llm_section_is_read_from_a_spec_as_strictly_as_elsewhere(tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_text(json.dumps({**SPEC, "output": "x", "llm": {"model": "m", "endpont": "http://127.0.0.1:1/v1"}}))
    with pytest.raises(InputError, match="endpoint"):
        read_spec(file, [])


def test_equal_prompts_are_asked_once_and_a_failure_is_told(server):
    client = open_llm(LlmSpec(**spec_of(server)))
    assert asker(client)(["a", "b", "a"]) == ["echo: a", "echo: b", "echo: a"]
    assert len(server.requests) == 2
    server.script = [500]
    (failure,) = asker(client)(["c"])
    assert (failure.kind, failure.brief) == ("server", "HTTP 500")


@pytest.mark.parametrize(
    ("report", "severity"),
    [
        ("There is a nodule. There is an effusion. There is a pneumothorax.", 1.0),  # the graver of two inventions
        ("There is a nodule. There is a pleural effusion.", 0.7),
        ("No nodule. No effusion.", 0.9 * 0.5),  # missed
    ],
)
def test_the_gravest_error_decides(report, severity):
    assert relevance_of(TRUTH, report) == pytest.approx(severity)


def test_a_report_whose_error_has_no_name_weighs_one_half():
    healthy = Facts(rule_set="chest_xray@1", findings={"nodule": Finding(polarity="absent")})
    assert relevance_of(healthy, "Something is odd.") == UNREAD
