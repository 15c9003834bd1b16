"""A curriculum at work: what templates write is true, balanced, repeatable, and leaks nothing."""

import json
import random
from collections import Counter
from html import escape

import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec, read_spec
from data_builders.curriculum.checks import CurriculumChecks, agreed, opinion
from data_builders.curriculum.curriculum import load_curriculum
from data_builders.curriculum.rows import CurriculumUse, open_curriculum
from data_builders.curriculum.templates import Case, written_report
from data_builders.rendering.report_facts import report_facts
from data_builders.schema import Sample, message_text
from rewards.config.input_error import InputError
from rewards.llm.item_lists import Item
from rewards.reading.reading import read
from rewards.rules.facts import Facts, Finding
from rewards.rules.guidelines import read_level, worked_out
from rewards.rules.rule_set import load_rule_set

RETINA = load_rule_set("retina_amd")
PICTURE = Image.new("L", (4, 4))
CLOSING = ("ped", "rpe_elevation", "rpe_atrophy", "retinal_fluid", "hypertransmission", "other_pathology")
FREE = [name for name in RETINA.findings if name not in CLOSING]
SHOWN = [
    [],
    ["drusen"], ["drusen", "drusenoid_ped"], ["crora"], ["shrm", "hyperreflective_foci"], ["subretinal_fluid", "shrm"],
]  # fmt: skip


def retina(present, *, size="large", rest="absent", **values):
    """Facts of one eye, closed, with all other findings absent."""
    found = {}
    for name in present:
        rule = RETINA.findings[name]
        found[name] = Finding(
            polarity="present", size=size if size in rule.sizes else None, side="nasal" if rule.sides else None
        )
    closed = worked_out(Facts(rule_set=RETINA.id, findings=found, values=values), [RETINA.id]).facts
    absent = {n: Finding(polarity="absent") for n in RETINA.findings if n not in closed.findings} if rest else {}
    ordered = {n: {**closed.findings, **absent}[n] for n in RETINA.findings if n in {**closed.findings, **absent}}
    return closed.model_copy(update={"findings": ordered})


def sample(facts, number=0, report=""):
    return Sample(f"s{number}", f"p{number}", f"s{number}", PICTURE, facts, report=report)


def opened(file="retina_vlm", seed=0, **use):
    return open_curriculum(CurriculumUse(file=file, **use), seed=seed, output="unused")


def items_of(facts, file="retina_vlm", *, share=0.2, seed=0, report="", built=None):
    built = built or opened(file, seed, share=share)
    return list(built.items(sample(facts, report=report), facts, "instruction", "train"))


def case_of(item, file="retina_vlm"):
    """The case that a row was made from, from its own columns alone."""
    curriculum, facts = load_curriculum(file), Facts.model_validate_json(item.columns["facts"])
    guidelines = tuple(item.columns["guidelines"])
    return Case(
        worked_out(facts, guidelines),
        load_rule_set(facts.rule_set),
        curriculum,
        curriculum.tasks[item.task],
        guidelines,
    )


@pytest.fixture(scope="module")
def many():
    """The items of 24 eyes of all stages, at a fifth of the published counts, and their build."""
    built = opened(share=0.2)
    rows = [
        item
        for n in range(24)
        for facts in [retina(SHOWN[n % 6])]
        for item in built.items(sample(facts, n), facts, "instruction", "train")
    ]
    return rows, built


def test_every_task_of_the_published_curriculum_has_its_share_of_items(many):
    rows, built = many
    curriculum = load_curriculum("retina_vlm")
    counts = Counter(item.task for item in rows)
    for name, task in curriculum.tasks.items():
        assert counts[name] >= 0.8 * 24 * round(0.2 * task.count), name
    assert {item.columns["stage"] for item in rows} == {"introduction", "specialism"}
    assert built.card()["tasks"]["report_writing"]["kept"] == counts["report_writing"]


def test_yes_and_no_and_there_and_not_there_are_balanced(many):
    tasks = many[1].card()["tasks"]
    for name in ("introduction", "advanced_biomarkers", "specific_questions", "staging_introduction"):
        assert 0.45 <= tasks[name]["yes"] <= 0.55, name
        assert 0.45 <= tasks[name]["positive"] <= 0.55, name
    for name in ("staging_logic", "referral_reasoning"):
        assert 0.45 <= tasks[name]["yes"] <= 0.55, name


def test_every_answer_is_found_again_in_its_row(many):
    """Levels, polarity, size and region of each answer follow from the facts and the guidelines of its own row."""
    stated = Counter()
    for item in many[0]:
        case = case_of(item)
        assert list(CurriculumChecks(case).faults(Item(item.question, item.answer))) == []
        yes, rest = opinion(item.answer)
        facts = case.worked.facts.findings
        for name, finding in read(rest, RETINA).facts.findings.items():
            assert finding.polarity == facts[name].polarity
            assert finding.size in (None, facts[name].size)
            assert finding.side in (None, facts[name].side)
            stated["finding"] += 1
        if item.columns["provenance"]["kind"] == "presence":
            (claim,) = agreed(item.question, yes, RETINA.id).items()
            assert claim == (item.columns["provenance"]["about"], facts[claim[0]].polarity)
            stated["presence"] += 1
        if item.columns["provenance"]["kind"] == "level":
            level = case.worked.scales[item.columns["provenance"]["about"]].level
            assert level.casefold() in item.answer.casefold()
            stated["level"] += 1
    assert min(stated[key] for key in ("finding", "presence", "level")) > 100


def test_no_question_gives_a_finding_away(many):
    """A question names a finding only where both answers are possible; a level only where yes or no is asked."""
    for item in many[0]:
        kind = item.columns["provenance"]["kind"]
        named = read(item.question, RETINA).facts.findings
        if kind not in ("presence", "attribute", "segment"):
            assert named == {}, item.question
        if kind != "check":
            assert read_level(item.question, "stage", case_of(item).guidelines) is None, item.question


def test_questions_and_answers_of_an_image_differ(many):
    by_image = Counter((item.suffix, item.question, item.answer) for item in items_of(retina(["drusen"])))
    assert max(by_image.values()) == 1


def test_the_same_seed_gives_the_same_items_and_another_seed_others():
    first, again, other = (items_of(retina(["drusen"]), share=0.1, seed=s) for s in (1, 1, 2))
    assert first == again
    assert [i.question for i in first] != [i.question for i in other]


def test_the_policy_of_referral_is_named_and_decides():
    base = load_curriculum("retina_vlm")
    answers = {}
    for version in ("retina_referral@1", "retina_referral@2"):
        task = base.tasks["referral_reasoning"].model_copy(
            update={"guidelines": ["retina_amd@1", version], "asks": {"level": 1.0}, "style": "short"}
        )
        stages = [base.stages[0].model_copy(update={"tasks": [task]})]
        built = opened()
        built.curriculum = base.model_copy(update={"stages": stages})
        (item, *_) = items_of(retina(["drusen"]), built=built)
        assert item.columns["guidelines"] == ["retina_amd@1", version]
        answers[version] = item.answer
    assert answers == {"retina_referral@1": "No referral.", "retina_referral@2": "Routine referral."}


def test_a_report_without_a_stage_skips_the_tasks_that_need_one_and_counts_them():
    built = opened(share=0.1)
    facts = retina(["drusen"])
    rows = items_of(facts, built=built, report="Large drusen nasally. No fluid.")
    assert not {"staging_accuracy", "staging_accuracy_reasons"} & {item.task for item in rows}
    assert built.skipped["staging_accuracy", "not known: stage"] == 1
    staged = items_of(facts, share=0.1, report="Large drusen nasally. No fluid. Intermediate AMD.")
    assert {"staging_accuracy", "staging_accuracy_reasons"} <= {item.task for item in staged}


def test_what_a_report_does_not_say_is_not_asked_of_it():
    rows = items_of(retina(["shrm"]), report="Large drusen. No subretinal fluid.")
    asked = {i.columns["provenance"]["about"] for i in rows if i.task == "advanced_biomarkers"}
    assert {about.partition(".")[0] for about in asked} <= {"drusen", "subretinal_fluid", "rpe_elevation"}


def test_a_report_that_contradicts_itself_is_skipped_with_the_reason():
    built = opened(share=0.1)
    rows = items_of(retina(["drusen"]), built=built, report="Large drusen. No elevation of the RPE.")
    assert {item.task for item in rows} == {"introduction"}
    assert any("drusen without elevation" in reason for _, reason in built.skipped)


def test_what_unknown_evidence_leaves_open_is_said_so():
    unknown = Facts(rule_set=RETINA.id, findings={"drusen": Finding(polarity="present")})
    levels = [i for i in items_of(unknown) if i.columns["provenance"]["kind"] == "level" and i.task == "introduction"]
    assert all(item.answer.startswith("At least early AMD") for item in levels)


PRESENT = st.lists(st.sampled_from(FREE), max_size=4, unique=True)


@given(PRESENT, st.sampled_from(["small", "medium", "large"]), st.integers(0, 99))
@settings(max_examples=30)
def test_a_report_written_from_a_row_reads_back_to_the_row(present, size, seed):
    facts = retina(present, size=size)
    curriculum = load_curriculum("retina_vlm")
    worked = worked_out(facts, [RETINA.id])
    case = Case(worked, RETINA, curriculum, curriculum.tasks["introduction"], (RETINA.id,))
    back = report_facts(written_report(case, random.Random(seed)), RETINA)
    assert back.findings == worked.facts.findings
    assert back.values == ({} if worked.scales["stage"].could_be else {"stage": worked.scales["stage"].level})


ECG = Facts(
    rule_set="ecg_intervals@1",
    values={
        "heart_rate": 118.0,
        "pr_interval": 172.0,
        "qrs_duration": 134.0,
        "qt_interval": 391.0,
        "qtc_interval": 471.5,
    },
)


def test_every_number_of_an_ecg_answer_is_a_measured_value():
    rows = items_of(ECG, "ecg_measured", share=1.0)
    assert {item.columns["stage"] for item in rows} == {"measuring", "interpreting"}
    texts = " ".join(item.answer for item in rows)
    assert "172" in texts
    assert "118" in texts
    checks = CurriculumChecks(case_of(rows[0], "ecg_measured"))
    assert next(checks.faults(Item("What is the PR interval?", "The PR interval is 174 ms.")), None) is None
    wrong = Item("What is the PR interval?", "The PR interval is 240 ms.")
    assert next(checks.faults(wrong)) == "a number that was not measured"


def test_findings_of_an_ecg_follow_from_its_measurements():
    rows = items_of(ECG, "ecg_measured", share=1.0)
    asked = {i.columns["provenance"]["about"]: i.answer for i in rows if i.task == "findings_from_intervals"}
    assert all(name != "prolonged_pr" or "172" in answer for name, answer in asked.items())
    assert json.loads(rows[0].columns["facts"])["findings"]["wide_qrs"] == {"polarity": "present"}


def test_a_report_against_a_measurement_is_a_contradiction():
    stated = ECG.model_copy(update={"findings": {"wide_qrs": Finding(polarity="absent")}})
    built = opened("ecg_measured")
    assert items_of(stated, built=built) == []
    assert any("QRS against width" in reason for _, reason in built.skipped)


def test_a_chest_curriculum_follows_the_same_engine():
    facts = Facts(
        rule_set="chest_xray@1",
        findings={
            "nodule": Finding(polarity="present", side="left", size="small"),
            "pneumothorax": Finding(polarity="absent"),
            "effusion": Finding(polarity="absent"),
        },
    )
    rows = items_of(facts, "chest_basics", share=1.0)
    assert {item.columns["capability"] for item in rows} == {"findings", "report", "urgency"}
    urgency = [item for item in rows if item.task == "urgency"]
    assert urgency
    assert all("chest_urgency@1" in item.columns["guidelines"] for item in urgency)


def test_facts_of_another_rule_set_are_refused():
    chest = Facts(rule_set="chest_xray@1", findings={"nodule": Finding(polarity="present")})
    with pytest.raises(InputError, match="curriculum retina_vlm@1 is for retina_amd@1; the facts follow chest_xray@1"):
        items_of(chest)


SPEC = {
    "source": {"name": "table", "rule_set": "retina_amd"},
    "curriculum": {"file": "retina_vlm", "share": 0.1},
    "splits": {"train": 0.5, "test": 0.5},
    "assign": {"p0": "train", "p1": "test"},
    "rows": {"instruction": ["train"], "prompt": ["test"]},
}


def spec_in(tmp_path, **changes):
    (tmp_path / "a.png").write_bytes(b"") if changes.pop("broken", False) else PICTURE.save(tmp_path / "a.png")
    cells = ",".join("Y" if name in ("drusen", "rpe_elevation") else "N" for name in RETINA.findings)
    lines = [f"{n},p{n},a.png,{cells}" for n in range(2)]
    header = ",".join(["id", "patient", "image", *RETINA.findings])
    (tmp_path / "table.csv").write_text("\n".join([header, *lines]), encoding="utf-8")
    source = {**SPEC["source"], "root": str(tmp_path)}
    return BuildSpec.model_validate({**SPEC, "source": source, "output": str(tmp_path / "out"), **changes})


def test_a_build_writes_rows_with_stage_capability_guidelines_and_patient(tmp_path):
    out = build(spec_in(tmp_path), progress=lambda records: records)
    train = pq.read_table(out / "instruction" / "train.parquet").to_pylist()
    test = pq.read_table(out / "prompt" / "test.parquet").to_pylist()
    assert {row["patient"] for row in train} == {"p0"}
    assert {row["patient"] for row in test} == {"p1"}
    referral = next(row for row in train if row["task"] == "referral_reasoning")
    assert (referral["stage"], referral["capability"]) == ("specialism", "referral")
    assert referral["guidelines"] == ["retina_amd@1", "retina_referral@1"]
    assert message_text(referral["completion"])
    assert all(row["answer"] for row in test)
    named = {row["target"] for row in test if json.loads(row["provenance"])["kind"] in ("presence", "attribute")}
    assert named
    assert named <= set(RETINA.findings)
    assert all(row["image_size"] == [[*PICTURE.size]] for row in test)
    assert len({row["id"] for row in train}) == len(train)
    card = json.loads((out / "card.json").read_text(encoding="utf-8"))
    assert card["curriculum"]["id"] == "retina_vlm@1"
    assert card["counts"]["instruction"]["train"]["report_writing"] > 0
    assert escape(message_text(train[0]["completion"])) in (out / "gallery.html").read_text(encoding="utf-8")


def test_an_image_that_cannot_be_read_leaves_nothing_to_build(tmp_path):
    with pytest.raises(InputError, match="all 2 records are quarantined"):
        build(spec_in(tmp_path, broken=True), progress=lambda records: records)


def test_a_spec_names_a_curriculum_that_is_there(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump({**SPEC, "curriculum": "retina_vml", "output": "x"}), encoding="utf-8")
    with pytest.raises(InputError) as told:
        read_spec(path, [])
    assert "Did you mean 'retina_vlm'" in str(told.value)


def test_a_spec_without_curriculum_needs_tasks(tmp_path):
    path = tmp_path / "spec.yaml"
    chest = {"source": {"name": "phantom_chest", "patients": 2}, "output": "x"}
    path.write_text(yaml.safe_dump({**{k: v for k, v in SPEC.items() if k != "curriculum"}, **chest}), encoding="utf-8")
    with pytest.raises(InputError, match="tasks: this key is required, unless there is a curriculum"):
        read_spec(path, [])
