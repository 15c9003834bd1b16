import json

import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec
from data_builders.cards import read_card
from data_builders.row_checks import file_faults
from data_builders.schema import message_text
from data_builders.sources.source import Source
from rewards.config.input_error import InputError


def picture(folder, name, shade=0, size=(8, 6)):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, shade).save(path)
    return name


def write(folder, *rows):
    path = folder / "own.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def read(folder, *rows, **knobs):
    return list(Source(name="chats", file=str(write(folder, *rows)), **knobs).samples())


def built(folder, *rows, kinds=("instruction", "prompt"), source=None, **more):
    content = {
        "source": {"name": "chats", "file": str(write(folder, *rows)), **(source or {})},
        "output": str(folder / "set"),
        "splits": {"train": 1.0},
        "rows": {kind: ["train"] for kind in kinds},
        "tasks": {},
        "max_quarantined": 1.0,
        **more,
    }
    out = build(BuildSpec.model_validate(content))
    files = {kind: out / kind / "train.parquet" for kind in kinds}
    assert [file_faults(file) for file in files.values()] == [()] * len(files)
    return *(pq.read_table(file).to_pylist() for file in files.values()), read_card(out)


def asked(question, answer, **more):
    return {"question": question, "answer": answer, **more}


def test_a_dialogue_is_one_instruction_row_and_a_prompt_row_for_each_answer(tmp_path):
    names = [picture(tmp_path, "a.png"), picture(tmp_path, "b.png", 9)]
    words = ["<image>\nA nodule?", "Yes", "And here: <image>", "It grew."]
    turns = [{"from": ("human", "gpt")[k % 2], "value": text} for k, text in enumerate(words)]
    row = {"id": "q", "system": "Be brief.", "image": names, "conversations": turns}
    (taught,), (first, last), card = built(tmp_path, row)
    assert [m["role"] for m in taught["prompt"]] == ["system", "user"]
    assert [message_text([m]) for m in taught["completion"]] == ["Yes", "And here: ", "It grew."]
    assert [len(r["images"]) for r in (taught, first, last)] == [2, 1, 2]
    assert (first["id"], first["answer"], first["task"]) == ("q-prompt-1", "Yes", "closed")
    assert (last["id"], last["answer"], last["task"]) == ("q-prompt-2", "It grew.", "open")
    assert message_text(last["prompt"]) == "Be brief.\nA nodule?\nYes\nAnd here: "
    assert card["counts"] == {"instruction": {"train": {"open": 1}}, "prompt": {"train": {"closed": 1, "open": 1}}}


def test_the_card_says_what_is_not_known_and_what_was_decided(tmp_path):
    row = asked("A nodule?", "no", image=picture(tmp_path, "a.png"))
    _, _, card = built(tmp_path, row, row)
    assert card["patients"] == "unknown"
    assert card["licence"] == "not known to clinalign: that of the user's file"
    assert card["notes"] == {
        "records that say the same as an earlier one": 1,
        "records without an image tag: their images open the first question": 2,
    }
    _, _, card = built(tmp_path, row | {"patient": 7}, source={"licence": "CC BY 4.0"})
    assert (card["patients"], card["licence"]) == ({"train": 1}, "CC BY 4.0")


def test_records_that_share_any_picture_are_one_group(tmp_path):
    a, b = picture(tmp_path, "a.png", 1), picture(tmp_path, "b.png", 2)
    copy, other = picture(tmp_path, "sub/copy.png", 2), picture(tmp_path, "c.png", 3)
    rows = [asked("?", "no", image=names) for names in (a, copy, [a, b], other)]
    patients = [sample.patient for sample in read(tmp_path, *rows)]
    assert len(set(patients[:3])) == 1
    assert patients[3] != patients[0]
    assert patients[0] == read(tmp_path, *rows[::-1])[-1].patient


def test_a_record_without_the_patient_that_others_have_is_quarantined(tmp_path):
    known, unknown = read(tmp_path, asked("?", "no", mrn=7.0), asked("?", "no"), patient="mrn")
    assert known.patient == "7"
    assert (unknown.id, unknown.reason[:18]) == ("line 2", "it has no 'mrn', a")
    with pytest.raises(InputError, match=r"no record of .* has 'mnr'"):
        read(tmp_path, asked("?", "no"), patient="mnr")


def test_ids_given_twice_are_told_apart_by_what_is_said(tmp_path):
    rows = [asked("A nodule?", "no", id=1), asked("A mass?", "yes", id=1), asked("A mass?", "yes", id=1)]
    first, second, third = read(tmp_path, *rows, asked("A mass?", "no", id=2))[:3]
    assert first.id.startswith("1-")
    assert len({first.id, second.id, third.id}) == 3
    assert third.id == f"{second.id}-2"
    again = read(tmp_path, *rows[1:], rows[0], asked("A mass?", "no", id=2))
    assert [sample.id for sample in again] == [second.id, third.id, first.id, "2"]


def test_what_cannot_be_used_is_quarantined_with_its_line(tmp_path):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    rows = [
        asked("?", None),
        asked("?", "no", image="none.png"),
        asked("?", "no", image="cut.png"),
        asked("?", "no", image="../out.png"),
        asked("?", "no", options=["CT", "MRI"]),
        asked("?", "no", boxes=[[0, 0, 9, 5]], image=picture(tmp_path, "a.png")),
        asked("?", "no"),
    ]
    found = read(tmp_path, *rows)
    assert [sample.id for sample in found[:-1]] == [f"line {k}" for k in range(1, 7)]
    for sample, reason in zip(
        found, ["null", "no such file", "unreadable", "leaves", "none of its", "8 x 6"], strict=False
    ):
        assert reason in sample.reason


def test_options_boxes_and_tasks_stay_beside_the_question(tmp_path):
    name = picture(tmp_path, "影像.png")
    rows = [
        asked("Which modality?", "B", options={"A": "CT", "B": "MRI", "C": None}),
        asked("CT or MRI?", "MRI", options=["CT", "MRI"]),
        asked("Where?", "[1,1,5,5]", boxes=[1, 1, 5, 5], image=name),
        asked("Describe.", "Clear.", task="report"),
        asked("?", "<think>Large.</think><answer>Yes</answer>", answers=["Yes", "Present"], task="vqa"),
    ]
    _, prompts, card = built(tmp_path, *rows)
    assert [row["task"] for row in prompts] == ["choice", "choice", "box", "report", "closed"]
    assert [message_text(row["prompt"]) for row in prompts[:2]] == ["Which modality?\nA. CT\nB. MRI", "CT or MRI?"]
    assert (prompts[2]["boxes"], prompts[2]["box_grid"], prompts[2]["image_size"]) == ([[1, 1, 5, 5]], None, [[8, 6]])
    assert (prompts[4]["answer"], prompts[4]["answers"]) == ("Yes", ["Yes", "Present"])
    assert card["notes"]["task 'vqa' is not known: taken by what the record has"] == 1


def test_the_records_own_splits_are_taken_over(tmp_path):
    rows = [asked("A nodule?", "no", split="training"), asked("A mass?", "no", split="held out")]
    splits = {"train": 0.5, "test": 0.5}
    spec = {
        "splits": splits,
        "rows": {"prompt": ["train", "test"]},
        "source_splits": {"training": "train", "held out": "test"},
    }
    _, card = built(tmp_path, *rows, kinds=("prompt",), **spec)
    assert card["counts"] == {"prompt": {"test": {"closed": 1}, "train": {"closed": 1}}}
    shared = [row | {"image": picture(tmp_path, "a.png")} for row in rows]
    with pytest.raises(InputError, match="is in both test and train"):
        built(tmp_path, *shared, kinds=("prompt",), **spec)


def test_a_file_of_no_known_shape_is_refused_with_what_it_holds(tmp_path):
    with pytest.raises(InputError, match=r"Seen: text, label\. Known: conversations"):
        read(tmp_path, {"text": "...", "label": 1})


def test_our_own_rows_read_back_equal(tmp_path):
    rows = [asked("A nodule?", "no", image=picture(tmp_path, "a.png"), id="q", patient="p")]
    (taught,), (prompt,), _ = built(tmp_path, *rows)
    for kind, row in (("instruction", taught), ("prompt", prompt)):
        spec = {"source": {"name": "chats", "file": str(tmp_path / "set" / kind / "train.parquet")}}
        content = {"output": str(tmp_path / "again"), "splits": {"train": 1.0}, "rows": {kind: ["train"]}, "tasks": {}}
        out = build(BuildSpec.model_validate(spec | content))
        (again,) = pq.read_table(out / kind / "train.parquet").to_pylist()
        differing = {name for name in row if row[name] != again[name]}
        assert differing == {"id", "provenance", "images"}
        assert [image["bytes"] for image in again["images"]] == [image["bytes"] for image in row["images"]]


@pytest.mark.parametrize(
    ("more", "options"),
    [
        ({"options": {"B": "MRI", "A": "CT"}}, ["CT", "MRI"]),
        ({"options": {"A": "CT", "B": "MRI", "C": None}}, ["CT", "MRI"]),
        ({"A": "CT", "B": "MRI", "C": "US", "D": ""}, ["CT", "MRI", "US"]),
        ({"A": "one letter is no list of options"}, None),
    ],
)
def test_lettered_options_stand_in_the_order_of_their_letters(tmp_path, more, options):
    (sample,) = read(tmp_path, asked("Which?", "B", **more))
    assert sample.reference.get("options") == options


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"options": {"A": "CT", "B": None, "C": "US"}}, "without a gap"),
        ({"A": "CT", "C": "US"}, "without a gap"),
        ({"boxes": [[0.1, 0.2, 0.5, 0.6]]}, "shares of the image"),
    ],
)
def test_what_would_be_judged_otherwise_than_meant_is_refused(tmp_path, more, reason):
    (sample,) = read(tmp_path, asked("Which?", "C", image=picture(tmp_path, "a.png"), **more))
    assert reason in sample.reason


def dialogue(*answers):
    turns = [[("user", f"Q{k}?"), ("assistant", answer)] for k, answer in enumerate(answers)]
    return {"messages": [{"role": role, "content": text} for pair in turns for role, text in pair]}


def test_earlier_answers_are_judged_by_their_final_words(tmp_path):
    rows, _ = built(tmp_path, dialogue("<think>t</think><answer>yes</answer>", "No."), kinds=("prompt",))
    assert [(row["task"], row["answer"]) for row in rows] == [("closed", "yes"), ("closed", "No.")]
    _, card = built(tmp_path, dialogue("<answer>yes", "No."), dialogue("Yes.", "No."), kinds=("prompt",))
    assert "one of its answers are broken" in json.dumps(card["quarantined"])


def test_splits_of_the_file_that_are_not_taken_over_are_noted(tmp_path):
    note = "samples of another split of the file: its splits are not taken over, see source_splits"
    rows = [asked("Q?", "no", split="test"), asked("R?", "no", split="train")]
    assert built(tmp_path, *rows)[-1]["notes"][note] == 1
    assert note not in built(tmp_path, *rows, source_splits={"test": "train", "train": "train"})[-1].get("notes", {})
