"""A curriculum written by a language model: what it is told, what it answers, and what becomes of that."""

import json
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from PIL import Image

from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec
from data_builders.curriculum.checks import CurriculumChecks
from data_builders.curriculum.curriculum import load_curriculum
from data_builders.curriculum.llm_items import request_for
from data_builders.curriculum.rows import CurriculumUse, open_curriculum
from data_builders.curriculum.templates import Case
from data_builders.schema import Sample
from rewards.config.input_error import InputError
from rewards.llm.client import LlmStop
from rewards.llm.item_lists import Item
from rewards.rules.facts import Facts, Finding
from rewards.rules.guidelines import worked_out
from rewards.rules.rule_set import load_rule_set

RETINA = load_rule_set("retina_amd")
CURRICULUM = load_curriculum("retina_vlm")
DRUSEN, ABSENT = Finding(polarity="present", size="large", side="nasal"), Finding(polarity="absent")
FACTS = Facts(
    rule_set=RETINA.id,
    findings={"drusen": DRUSEN, "rpe_elevation": Finding(polarity="present")}
    | {n: ABSENT for n in RETINA.findings if n not in ("drusen", "rpe_elevation")},
)
SOUND = """1. Q: Is there any sign of drusen?
   A: Yes, there are large drusen in the nasal region.
2. Q: Is any subretinal fluid visible?
   A: No, there is none.
3. Q: How would you stage this eye?
   A: This is intermediate AMD.
4. Q: What does the image tell about the retinal fluid?
   A: The image shows no retinal fluid at all."""


def sample(number=0):
    return Sample(f"s{number}", f"p{number}", f"s{number}", Image.new("L", (4, 4)), FACTS)


def case(task="staging_logic"):
    chosen = CURRICULUM.tasks[task]
    guidelines = CURRICULUM.guidelines_of(chosen)
    return Case(worked_out(FACTS, guidelines), RETINA, CURRICULUM, chosen, guidelines)


def use(server=None, **changes):
    llm = {"model": "writer", "endpoint": server.url if server else "http://127.0.0.1:9/v1", "max_wait_s": 0.02}
    settings = {"file": "retina_vlm", "share": 0.1, "rounds": 2, "llm": llm | changes.pop("llm", {})}
    return CurriculumUse.model_validate(settings | changes)


def items(server, tmp_path, **changes):
    built = open_curriculum(use(server, **changes), seed=0, output=str(tmp_path / "out"))
    return list(built.items(sample(), FACTS, "instruction", "train")), built


def prompt_of(body):
    return body["messages"][-1]["content"]


def test_a_prompt_has_the_guidelines_the_report_the_rules_and_the_number():
    request = request_for(case(), 7, report="Large drusen nasally.", temperature=0.8, max_tokens=100)
    text = request.messages[-1].text
    for part in (
        "Guideline retina_amd@1", "active late wet AMD", "Large drusen nasally.", "Write 7 different questions",
        "drusen present means rpe elevation present", "the evidence first, then the conclusion",
    ):  # fmt: skip
        assert part in text
    assert "retina_amd@1" in request.version


def test_a_prompt_without_a_report_lists_what_is_known_and_nothing_else():
    text = request_for(case("introduction"), 3, report="", temperature=0.0, max_tokens=100).messages[-1].text
    assert "drusen: present, large, nasal region" in text
    assert "subretinal fluid: absent" in text
    assert "age" not in re.findall(r"^- (\w+):", text, re.MULTILINE)


def test_sections_are_told_in_the_numbers_that_are_asked_for():
    text = request_for(case("staging_accuracy_reasons"), 4, report="x", temperature=0.0, max_tokens=9).messages[-1].text
    assert "Items 1 to 3: the conclusion first" in text
    assert "Items 4 to 4: the evidence first" in text


def test_another_version_of_a_guideline_is_another_request():
    ours = case("referral_reasoning")
    other = Case(ours.worked, RETINA, CURRICULUM, ours.task, ("retina_amd@1", "retina_referral@2"))
    first, second = (request_for(c, 3, report="x", temperature=0.0, max_tokens=9) for c in (ours, other))
    assert first.key("m") != second.key("m")


PLANTED = [
    ("Is there any drusen?", "No.", "contradicts the findings"),
    ("Is the eye free of drusen?", "Yes, it is.", "contradicts the findings"),
    ("What do you see?", "There is subretinal fluid in the foveal region.", "contradicts the findings"),
    ("What do you see?", "Large drusen in the temporal region.", "contradicts the findings"),
    ("How would you stage this eye?", "This is late dry AMD.", "contradicts the stage"),
    ("Is this active late wet AMD?", "Yes.", "contradicts the stage"),
    ("Is this intermediate AMD?", "No, it is not.", "contradicts the stage"),
    ("What should happen?", "The patient needs an urgent referral.", "contradicts the referral"),
    ("What should happen?", "I am sorry, but I cannot help with that.", "refusal"),
    ("What is seen?", "According to the description there are drusen.", "names its source"),
    ("What do the GUIDELINES say?", "Large drusen.", "names its source"),
    ("Where are the large nasal drusen?", "Large nasal drusen.", "the question gives the answer away"),
    ("What is seen?", "Large drusen are seen. " * 150, "longer than 300 tokens"),
    ("What is seen here?", "Large drusen are seen.", "near-duplicate"),
]
CLEAN = [
    ("Is there any drusen?", "Yes."),
    ("Is the eye free of drusen?", "No, there are large drusen."),
    ("How would you stage this eye?", "Intermediate AMD, not late dry AMD, since there is no hypertransmission."),
    ("Is this active late wet AMD?", "No. There is no fluid, so it is intermediate AMD."),
    ("What should happen?", "No referral is needed."),
    ("Which fluid is there?", "None: neither intraretinal nor subretinal fluid can be seen."),
    ("What is seen nasally?", "There are large drusen, and the RPE is elevated."),
]
EARLIER = [Item("What is seen here?", "Large drusen are seen.")]


@pytest.mark.parametrize(("question", "answer", "reason"), PLANTED)
def test_every_planted_fault_is_found_and_named(question, answer, reason):
    checks = CurriculumChecks(case("referral_reasoning"))
    kept = EARLIER if reason == "near-duplicate" else []
    assert reason in (checks(Item(question, answer), kept) or "")


@pytest.mark.parametrize(("question", "answer"), CLEAN)
def test_no_clean_item_is_rejected(question, answer):
    assert CurriculumChecks(case("referral_reasoning"))(Item(question, answer), EARLIER) is None


def test_sound_items_become_rows_that_name_the_model(server, tmp_path):
    server.answer = lambda body: SOUND
    rows, built = items(server, tmp_path)
    assert len({prompt_of(body) for body in server.requests}) == len(server.requests)
    introduction = [row for row in rows if row.task == "introduction"]
    assert introduction[0].question == "Is there any sign of drusen?"
    assert introduction[0].columns["provenance"]["generator"] == "writer"
    assert introduction[0].columns["guidelines"] == ["retina_amd@1"]
    assert built.card()["generator"] == "writer"


def test_rejects_are_named_and_what_is_missing_is_asked_for_again(server, tmp_path):
    def answer(body):
        if "These questions are done" in prompt_of(body):
            return "1. Q: Which stage would you give it?\n   A: It is intermediate AMD.\n2. Q: Any SHRM?\n   A: No."
        return (
            "1) **Q:** Is there fluid?\n**A:** Yes.\n2) **Q:** Any drusen?\n**A:** Yes.\n3. Q: Any hypertransmission?"
        )

    server.answer = answer
    rows, built = items(server, tmp_path, share=0.2)
    first = [row.question for row in rows if row.task == "introduction"]
    assert first[0] == "Any drusen?"
    assert len(first) == 2
    assert built.rejected["introduction"] == {"contradicts the findings": 1, "no answer": 1, "more than asked for": 1}


@pytest.mark.slow
def test_refusals_and_cut_replies_are_counted_and_nothing_is_made_of_them(server, tmp_path):
    server.answer = lambda body: "I'm sorry, but the report does not contain a stage."
    rows, built = items(server, tmp_path)
    assert rows == []
    assert all(counts["refusal"] >= 1 for counts in built.rejected.values())
    assert built.card()["tasks"]["report_writing"]["skipped"] == {"questions missing": 2}
    server.answer, server.finish = (lambda body: SOUND.rsplit("\n", 2)[0]), "length"
    _, cut = items(server, tmp_path, temperature=0.1)
    assert all(counts["cut off"] >= 1 for counts in cut.rejected.values())


def test_a_build_that_was_stopped_goes_on_without_repeating_a_call(server, tmp_path):
    server.answer = lambda body: SOUND
    whole, _ = items(server, tmp_path / "whole")
    calls = len(server.requests)
    server.requests.clear()
    server.script = [200, 200, 429, 200, 401]
    with pytest.raises(LlmStop, match="401"):
        items(server, tmp_path, llm={"concurrency": 1})
    server.script = []
    resumed, _ = items(server, tmp_path, llm={"concurrency": 1})
    bodies = [json.dumps(body, sort_keys=True) for body in server.requests]
    assert len(bodies) == calls + 2  # the 429 and the 401, which brought no reply
    assert len(set(bodies)) == calls
    assert resumed == whole
    again, _ = items(server, tmp_path)
    assert again == whole
    assert len(server.requests) == calls + 2


def test_calls_at_once_are_bounded_and_capped(server, tmp_path):
    server.answer, server.delay_s = (lambda body: SOUND), 0.02
    items(server, tmp_path, llm={"concurrency": 3})
    assert server.most_at_once <= 3
    with pytest.raises(InputError, match="cap of 2 calls is reached"):
        items(server, tmp_path / "capped", llm={"caps": {"calls": 2}})


def test_a_dead_endpoint_is_one_clear_error_and_leaves_no_half_data_set(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "table.csv").write_text("id,patient,image,drusen\n1,p,a.png,Y", encoding="utf-8")
    spec = BuildSpec(
        source={"name": "table", "root": str(tmp_path), "rule_set": "retina_amd"},
        output=str(tmp_path / "out"),
        splits={"train": 1.0},
        rows={"instruction": ["train"]},
        curriculum=use(llm={"endpoint": f"http://127.0.0.1:{port}/v1", "max_attempts": 2}),
    )  # fmt: skip
    with pytest.raises(LlmStop, match=f"no connection after 2 attempts .*{port}"):
        build(spec, progress=lambda records: records)
    assert not (tmp_path / "out").exists()


def test_without_an_endpoint_a_local_model_needs_the_top_floor(tmp_path):
    with pytest.raises(InputError, match="no endpoint, and a local model cannot be loaded here"):
        open_curriculum(use(llm={"endpoint": None}), seed=0, output=str(tmp_path / "out"))


KILLED = """
import sys
from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec
build(BuildSpec.model_validate_json(sys.argv[1]), progress=lambda records: records)
"""


@pytest.mark.slow
def test_a_build_that_was_killed_goes_on_to_the_same_data_set_without_repeating_a_call(server, tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "table.csv").write_text("id,patient,image,drusen\n1,p,a.png,Y\n2,q,a.png,N", encoding="utf-8")
    server.answer = lambda body: SOUND
    spec = {
        "source": {"name": "table", "root": str(tmp_path), "rule_set": "retina_amd"},
        "output": str(tmp_path / "out"),
        "splits": {"train": 1.0},
        "rows": {"instruction": ["train"]},
        "curriculum": use(server, llm={"concurrency": 1}).model_dump(mode="json"),
    }
    whole = build(BuildSpec.model_validate(spec | {"output": str(tmp_path / "whole")}), progress=lambda r: r)
    calls = len(server.requests)
    server.requests.clear()
    server.delay_s = 0.1
    child = subprocess.Popen([sys.executable, "-c", KILLED, json.dumps(spec)])
    while len(server.requests) < 6 and child.poll() is None:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = (tmp_path / "out-replies" / "replies.jsonl").read_text(encoding="utf-8").count("\n")
    assert 5 <= kept < calls
    assert not (tmp_path / "out").exists()
    before, server.delay_s = len(server.requests), 0.0
    build(BuildSpec.model_validate(spec), progress=lambda r: r)
    assert len(server.requests) - before == calls - kept
    first, second = (folder / "instruction" / "train.parquet" for folder in (whole, tmp_path / "out"))
    assert first.read_bytes() == second.read_bytes()
