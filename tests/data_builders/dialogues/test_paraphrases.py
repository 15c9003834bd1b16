"""Paraphrases of a dialogue's answers through the LLM client, against a real endpoint on loopback."""

import json
import random
from collections import Counter

import pytest
from datasets import Dataset

from alignment.cli.app import app
from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec
from data_builders.dialogues.paraphrases import LlmParaphraser, Paraphrase
from data_builders.dialogues.writer import Writer
from rewards.config.input_error import InputError
from rewards.dialogues.dialogue import read_dialogue
from rewards.llm.client import LlmStop
from rewards.rules.facts import Facts
from rewards.rules.rule_set import load_rule_set

MARROW = load_rule_set("phantom_marrow")
CLOT = Facts(rule_set="phantom_marrow@1", values={"field": "clot", "focus": "sharp"})


def sentence_of(body):
    return body["messages"][-1]["content"].rpartition("Sentence: ")[2]


def settings(server, **changes):
    llm = {"model": "m", "endpoint": server.url, "max_wait_s": 0.05, **changes.pop("llm", {})}
    return Paraphrase.model_validate({"llm": llm, "variants": 2, **changes})


def numbered(server, form="{n}: {said}"):
    """The endpoint rewords each sentence, another way each time."""
    seen = Counter()

    def answer(body):
        said = sentence_of(body)
        seen[said] += 1
        return form.format(n=seen[said], said=said)

    server.answer = answer
    return seen


def content(tmp_path, server, **changes):
    return {
        "source": {"name": "phantom_marrow", "patients": 8, "images_per_patient": 1, "size": 64},
        "output": str(tmp_path / "data"),
        "splits": {"sft": 0.5, "test": 0.5},
        "rows": {"instruction": ["sft"], "prompt": ["test"]},
        "tasks": {},
        "dialogues": {
            "test_wording": ["test"],
            "paraphrase": settings(server, **changes).model_dump(mode="json"),
        },
    }


def card_of(tmp_path, server, **changes):
    folder = build(BuildSpec.model_validate(content(tmp_path, server, **changes)), progress=lambda records: records)
    return folder, json.loads((folder / "card.json").read_text())


def test_a_sentence_is_asked_for_its_wordings_once_and_they_are_taken_in_turn(server):
    seen = numbered(server)
    paraphraser = LlmParaphraser.of(settings(server))
    said = [paraphraser("It is a clot.") for _ in range(5)]
    assert said[0] != said[1]
    assert said == [said[0], said[1]] * 2 + [said[0]]
    assert seen == {"It is a clot.": 2}


def test_quotation_marks_and_line_breaks_are_taken_off(server):
    numbered(server, form='"{said}"\n')
    assert LlmParaphraser.of(settings(server))("It is a clot.") == "It is a clot."


@pytest.mark.parametrize("fault", ["refusal", "cut off", "server"])
def test_no_reply_leaves_the_template_and_is_counted(server, fault):
    if fault == "cut off":
        server.finish = "length"
    server.script = ["refusal"] * 9 if fault == "refusal" else [500] * 40 if fault == "server" else []
    counts = Counter()
    paraphrase = LlmParaphraser.of(settings(server, variants=1, llm={"max_attempts": 2}))
    dialogue = Writer(CLOT, MARROW, "train", random.Random(0), paraphrase=paraphrase, counts=counts).dialogue("single")
    (turn,) = dialogue.turns
    assert turn.answer in MARROW.decision.nodes[turn.node].answers[turn.gold].say.train
    assert counts == {"refused: empty": 1}


def test_what_tests_say_is_refused_in_training_whatever_its_case(server):
    tested = MARROW.decision.nodes["region"].answers["clot"].say.test[0]
    writer = Writer(CLOT, MARROW, "train", random.Random(0), paraphrase=lambda _: tested.upper())
    assert writer._answer_words("region", "clot") in MARROW.decision.nodes["region"].answers["clot"].say.train
    assert writer.counts == {"refused: a wording of tests": 1}


def test_words_of_tests_are_never_reworded(server):
    seen = numbered(server)
    writer = Writer(CLOT, MARROW, "test", random.Random(0), paraphrase=LlmParaphraser.of(settings(server)))
    writer.dialogue("standard")
    assert not seen
    assert not writer.counts


def test_a_build_rewords_training_answers_and_counts_what_it_refused(tmp_path, server):
    def answer(body):
        said = sentence_of(body)
        return "Perhaps." if "quality" in said.lower() else f"I see this: {said}"

    server.answer = answer
    folder, card = card_of(tmp_path, server)
    rows = list(Dataset.from_parquet(str(folder / "instruction/sft.parquet"), cache_dir=str(tmp_path)))
    said = [turn.answer for row in rows for turn in read_dialogue(row["dialogue"]).turns]
    assert 0 < sum(text.startswith("I see this: ") for text in said) == card["paraphrases"]["used"]
    assert card["paraphrases"]["used"] + card["paraphrases"]["refused: unparsed"] == len(said)


def test_the_same_cache_gives_the_same_rows_without_another_call(tmp_path, server):
    numbered(server)
    llm = {"cache": str(tmp_path / "cache")}
    first, _ = card_of(tmp_path, server, llm=llm)
    bytes_before, calls = (first / "instruction/sft.parquet").read_bytes(), len(server.requests)
    again, _ = card_of(tmp_path, server, llm=llm)
    assert (again / "instruction/sft.parquet").read_bytes() == bytes_before
    assert len(server.requests) == calls > 0


def test_a_dead_endpoint_stops_the_build_and_leaves_no_folder(tmp_path, server):
    server.script = [401] * 9
    with pytest.raises(LlmStop, match="answered 401"):
        card_of(tmp_path, server)
    assert not (tmp_path / "data").exists()


def test_a_local_model_needs_who_can_load_it(tmp_path, server):
    spec = content(tmp_path, server)
    spec["dialogues"]["paraphrase"]["llm"]["endpoint"] = None
    with pytest.raises(InputError, match="has no endpoint"):
        build(BuildSpec.model_validate(spec), progress=lambda records: records)


def test_the_command_line_builds_with_paraphrases(tmp_path, server):
    import yaml
    from typer.testing import CliRunner

    numbered(server, form="I see this: {said}")
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(content(tmp_path, server)))
    result = CliRunner().invoke(app, ["build", str(tmp_path / "spec.yaml")])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "data/card.json").read_text())["paraphrases"]["used"] > 0


@pytest.mark.parametrize(
    ("section", "want"),
    [({"variants": 0}, "variants"), ({"temperature": -1.0}, "temperature"), ({"llm": {}}, "model")],
)
def test_a_wrong_setting_is_named(tmp_path, server, section, want):
    spec = content(tmp_path, server)
    spec["dialogues"]["paraphrase"] |= section
    with pytest.raises(ValueError, match=want):
        BuildSpec.model_validate(spec)
