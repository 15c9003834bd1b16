"""Own preferences in every shape that people have them in: read alike, or refused by a sentence with its place."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Features, Value
from datasets import Image as ImageColumn
from PIL import Image

from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec
from data_builders.cards import read_card
from data_builders.formats.export import export
from data_builders.formats.preference_formats import FORMATS
from data_builders.formats.preference_writing import LISTS
from data_builders.schema import user_turn
from rewards.config.input_error import InputError

SPEC = {"splits": {"all": 1.0}, "rows": {"preference": ["all"]}, "tasks": {}, "max_quarantined": 1.0}


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        values = np.random.default_rng(seed).integers(0, 256, (16, 24), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / name)
    return tmp_path


def built(folder, file, **knobs):
    source = {"name": "preferences", "file": str(folder / file), **knobs}
    out = build(BuildSpec.model_validate({**SPEC, "source": source, "output": str(folder / "out")}))
    rows = [row for path in sorted(out.glob("preference/*.parquet")) for row in pq.read_table(path).to_pylist()]
    return rows, read_card(out)


def lines(folder, *records, name="pairs.jsonl"):
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return name


def said(row):
    """Each message of a row's prompt as its role and its words, an image block as one star."""
    return [
        (m["role"], [block["text"] if block["type"] == "text" else "*" for block in m["content"]])
        for m in row["prompt"]
    ]


def answers(row):
    return row["chosen"][0]["content"][0]["text"], row["rejected"][0]["content"][0]["text"]


def message(role, text):
    return {"role": role, "content": text}


def turn(speaker, text):
    return {"from": speaker, "value": text}


Q, YES, NO = "Is it?", "Yes", "No"
ONE_QUESTION = {
    "trl strings": {"images": ["a.png"], "prompt": Q, "chosen": YES, "rejected": NO},
    "trl, key image": {"image": "a.png", "prompt": Q, "chosen": YES, "rejected": NO},
    "trl, key question": {"image": "a.png", "question": Q, "chosen": YES, "rejected": NO},
    "trl messages": {
        "images": ["a.png"], "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": Q}]}],
        "chosen": [message("assistant", YES)], "rejected": [message("assistant", NO)],
    },
    "trl, implicit prompt": {
        "images": ["a.png"],
        "chosen": [message("user", Q), message("assistant", YES)],
        "rejected": [message("user", Q), message("assistant", NO)],
    },
    "trl, prompt said twice": {
        "images": ["a.png"], "prompt": Q,
        "chosen": [message("user", Q), message("assistant", YES)],
        "rejected": [message("user", Q), message("assistant", NO)],
    },
    "sharegpt with chosen and rejected": {
        "images": ["a.png"], "conversations": [turn("human", f"<image>{Q}")],
        "chosen": turn("gpt", YES), "rejected": turn("gpt", NO),
    },
    "llava": {
        "image": "a.png", "conversations": [turn("human", f"<image>\n{Q}"), turn("gpt", YES)],
        "rejected_conversations": [turn("human", f"<image>\n{Q}"), turn("gpt", NO)],
    },
    "mmedpo": {
        "id": 7, "image": "a.png", "conversations": [turn("human", f"<image>\n{Q}"), turn("gpt", YES)],
        "rejected_conversations": [turn("human", f"<image>\n{Q}"), turn("gpt", NO)], "weighted_score": 1.0,
    },
    "ms-swift, response": {
        "images": ["a.png"], "messages": [message("user", f"<image>{Q}"), message("assistant", YES)],
        "rejected_response": NO,
    },
    "ms-swift, messages": {
        "images": ["a.png"], "messages": [message("user", f"<image>{Q}"), message("assistant", YES)],
        "rejected_messages": [message("user", f"<image>{Q}"), message("assistant", NO)],
    },
}  # fmt: skip


@pytest.mark.parametrize("shape", ONE_QUESTION)
def test_one_question_in_every_shape_is_one_row(folder, shape):
    (row,), card = built(folder, lines(folder, ONE_QUESTION[shape]))
    assert card["quarantined"]["count"] == 0
    assert (said(row), answers(row)) == ([("user", ["*", Q])], (YES, NO))
    assert row["prompt"] == user_turn(Q)
    assert Image.open(io.BytesIO(row["images"][0]["bytes"])).size == (24, 16)
    assert (row["weight"], row["kind"], row["rejected_images"]) == (1.0, "hallucination", None)


SYSTEM, FIRST, SECOND = "You read films.", "What is shown?", "And now?"
BETWEEN = [message("user", f"Before: <image> After: <image> {FIRST}"), message("assistant", "A chest.")]
DIALOGUE = [
    ("system", [SYSTEM]), ("user", ["Before: ", "*", " After: ", "*", f" {FIRST}"]),  ("assistant", ["A chest."]),
]  # fmt: skip
SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}


def as_llava(messages):
    return [turn(SPEAKERS[m["role"]], m["content"]) for m in messages]


def dialogue(answer):
    return [message("system", SYSTEM), *BETWEEN, message("user", SECOND), message("assistant", answer)]


SEVERAL_TURNS = {
    "trl, implicit prompt": {"chosen": dialogue(YES), "rejected": dialogue(NO)},
    "trl, prompt of messages": {
        "prompt": dialogue(YES)[:-1], "chosen": dialogue(YES)[-1:], "rejected": dialogue(NO)[-1:],
    },
    "sharegpt, system beside": {
        "system": SYSTEM, "conversations": as_llava(dialogue(YES)[1:-1]), "chosen": turn("gpt", YES),
        "rejected": turn("gpt", NO),
    },
    "llava": {
        "conversations": as_llava(dialogue(YES)), "rejected_conversations": as_llava(dialogue(NO)),
    },
    "ms-swift, response": {"messages": dialogue(YES), "rejected_response": NO},
    "ms-swift, messages": {"messages": dialogue(YES), "rejected_messages": dialogue(NO)},
}  # fmt: skip


@pytest.mark.parametrize("shape", SEVERAL_TURNS)
def test_system_turns_and_text_between_images_stay_where_they_stood(folder, shape):
    (row,), _ = built(folder, lines(folder, SEVERAL_TURNS[shape] | {"images": ["a.png", "b.png"]}))
    assert said(row) == [*DIALOGUE, ("user", [SECOND])]
    assert answers(row) == (YES, NO)
    assert len(row["images"]) == 2


@pytest.mark.parametrize(
    ("record", "wrong"),
    [
        ({"prompt": Q, "chosen": YES, "rejected": [NO, "Never"]}, [NO, "Never"]),
        ({"prompt": Q, "chosen": YES, "rejected": [[message("assistant", NO)], [message("assistant", "Never")]]},
         [NO, "Never"]),
        ({"messages": [message("user", Q), message("assistant", YES)], "rejected_response": [NO, "Never"]},
         [NO, "Never"]),
        ({"messages": [message("user", Q), message("assistant", YES)], "rejected_response": [NO]}, [NO]),
    ],
)  # fmt: skip
def test_several_rejected_answers_are_a_pair_each_in_one_split(folder, record, wrong):
    rows, card = built(folder, lines(folder, {"id": "x", **record}))
    assert [answers(row) for row in rows] == [(YES, text) for text in wrong]
    assert len({row["id"] for row in rows}) == len(wrong)
    assert len({row["patient"] for row in rows}) == 1
    assert card["repeated_questions"] == len(wrong) - 1


def test_a_weight_that_is_not_there_is_one_and_the_card_counts_it(folder):
    plain = ONE_QUESTION["trl strings"]
    rows, card = built(folder, lines(folder, plain, plain | {"prompt": "Else?", "weight": 0.25, "relevance": 0.5}))
    assert [(row["weight"], row["relevance"]) for row in rows] == [(1.0, None), (0.25, 0.5)]
    assert card["notes"]["pairs without a weight: they weigh 1"] == 1


CSV = 'image,question,chosen,rejected,weight\na.png,"Is it, there?",Yes,No,0.5\nb.png,Else?,Yes,No,\n'


def test_a_csv_is_read_by_its_header(folder):
    (folder / "pairs.csv").write_text(CSV)
    rows, card = built(folder, "pairs.csv")
    assert [(said(row)[0][1], answers(row), row["weight"]) for row in rows] == [
        (["*", "Is it, there?"], (YES, NO), 0.5), (["*", "Else?"], (YES, NO), 1.0),
    ]  # fmt: skip
    assert card["notes"]["pairs without a weight: they weigh 1"] == 1


def test_cells_of_a_csv_hold_several_images_and_boxes_stay_words(folder):
    (folder / "pairs.csv").write_text(
        "images,question,chosen,rejected,rejected_images\n"
        'a.png;b.png,Where?,"[[1, 2, 3, 4]]","[[5, 6, 7, 8]]","[""c.png"", ""b.png""]"\n'
    )
    (row,), _ = built(folder, "pairs.csv")
    assert answers(row) == ("[[1, 2, 3, 4]]", "[[5, 6, 7, 8]]")
    assert pixels(row["images"]) == [pixels_of(folder / name) for name in ("a.png", "b.png")]
    assert pixels(row["rejected_images"]) == [pixels_of(folder / name) for name in ("c.png", "b.png")]


def test_a_number_is_an_answer(folder):
    (row,), _ = built(folder, lines(folder, PLAIN | {"chosen": 3, "rejected": [4.0]}))
    assert answers(row) == ("3", "4")


def pictures(folder, names):
    return [{"bytes": (folder / name).read_bytes(), "path": None} for name in names]


def test_parquet_with_images_as_bytes_needs_no_folder(folder, tmp_path_factory):
    records = [{"images": pictures(folder, ["a.png", "b.png"]), "prompt": "<image><image>Is it?", "chosen": YES,
                "rejected": NO, "rejected_images": pictures(folder, ["c.png", "b.png"])}]  # fmt: skip
    alone = tmp_path_factory.mktemp("alone")
    pq.write_table(pa.Table.from_pylist(records), alone / "pairs.parquet")
    (row,), _ = built(alone, "pairs.parquet")
    assert said(row) == [("user", ["*", "*", Q])]
    assert pixels(row["images"]) == [pixels_of(folder / "a.png"), pixels_of(folder / "b.png")]
    assert pixels(row["rejected_images"]) == [pixels_of(folder / "c.png"), pixels_of(folder / "b.png")]


def test_a_saved_datasets_folder_is_read(folder):
    content = {"image": [str(folder / "a.png")], "question": [Q], "chosen": [YES], "rejected": [NO]}
    features = Features({"image": ImageColumn(), "question": Value("string"), "chosen": Value("string"),
                         "rejected": Value("string")})  # fmt: skip
    Dataset.from_dict(content, features=features).save_to_disk(str(folder / "saved"))
    (row,), _ = built(folder, "saved")
    assert (said(row), answers(row)) == ([("user", ["*", Q])], (YES, NO))
    assert pixels(row["images"]) == [pixels_of(folder / "a.png")]


def pixels(images):
    return [Image.open(io.BytesIO(image["bytes"])).tobytes() for image in images]


def pixels_of(file):
    return Image.open(file).tobytes()


PLAIN = ONE_QUESTION["trl strings"]
SWIFT = ONE_QUESTION["ms-swift, response"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (PLAIN | {"rejected": " Yes "}, "equal under the same image"),
        (PLAIN | {"chosen": None}, "'chosen'"),
        (PLAIN | {"rejected": ""}, "'rejected'"),
        (PLAIN | {"rejected": [NO, None]}, "'rejected'"),
        (PLAIN | {"rejected": []}, "'rejected'"),
        (PLAIN | {"prompt": None}, "'prompt'"),
        (PLAIN | {"prompt": "<image><image>Is it?"}, "2 image"),
        (PLAIN | {"chosen": "<image>Yes"}, "image tag"),
        (PLAIN | {"weight": -1}, "'weight'"),
        (PLAIN | {"weight": "heavy"}, "'weight'"),
        (PLAIN | {"images": ["none.png"]}, "none.png"),
        (PLAIN | {"images": []} | {"prompt": "<image>Is it?"}, "1 image"),
        (SWIFT | {"messages": SWIFT["messages"][:1]}, "no 'chosen'"),
        ({"images": ["a.png", "b.png"], "chosen": dialogue(YES)[1:],
          "rejected": [*BETWEEN, message("user", "Else?"), message("assistant", NO)]}, "different questions (turn 3)"),
        (PLAIN | {"videos": ["a.mp4"]}, "'videos' is not read"),
        (["not", "a", "record"], "object"),
    ],
)  # fmt: skip
def test_a_bad_record_is_quarantined_with_its_line(folder, record, reason):
    file = lines(folder, PLAIN, record, PLAIN | {"prompt": "Else?"})
    rows, card = built(folder, file)
    assert len(rows) == 2
    (told,) = card["quarantined"]["records"]
    assert reason in told["reason"]
    assert "line 2" in f"{told['id']} {told['reason']}"


@pytest.mark.parametrize(
    ("records", "knobs", "says"),
    [
        ([{"question": Q, "answer": YES}], {}, r"question, answer"),
        ([SWIFT], {"format": "trl"}, r"format: trl.*ms_swift.*messages"),
        ([PLAIN], {"format": "llava"}, r"format: llava.*trl"),
        ([PLAIN], {"images": "nowhere"}, r"no folder"),
    ],
)
def test_a_file_of_another_shape_is_one_error(folder, records, knobs, says):
    with pytest.raises(InputError, match=says):
        built(folder, lines(folder, *records), **knobs)


@pytest.mark.parametrize("key", ["image", "images"])
def test_pairs_without_their_images_are_an_error_unless_they_are_asked_for_as_text(folder, key):
    away = lines(folder, *[{key: f"gone/{k}.png", "prompt": Q, "chosen": YES, "rejected": NO} for k in range(3)])
    with pytest.raises(InputError, match=r"none of .*3.*images.*text_only: true"):
        built(folder, away)
    rows, card = built(folder, away, text_only=True)
    assert [(said(row), row["images"]) for row in rows] == [([("user", [Q])], [])] * 3
    assert card["notes"]["pairs whose images are left out (text_only)"] == 3


def test_one_picture_is_in_one_split_under_any_name(folder):
    (folder / "again.png").write_bytes((folder / "a.png").read_bytes())
    records = [PLAIN, PLAIN | {"images": ["again.png"], "prompt": "Else?"}, PLAIN | {"images": ["b.png"]}]
    rows, card = built(folder, lines(folder, *records))
    one, two, three = (row["patient"] for row in rows)
    assert one == two != three
    assert card["patients"] == "unknown"


def test_pairs_that_share_a_picture_by_way_of_others_are_one_group(folder):
    chain = [["a.png", "b.png"], ["c.png"], ["b.png", "c.png"]]
    rows, _ = built(folder, lines(folder, *[PLAIN | {"images": names} for names in chain]))
    assert len({row["patient"] for row in rows}) == 1


def test_the_splits_of_a_saved_dict_are_taken_over(folder):
    sides = {name: Dataset.from_list([{"prompt": f"{Q} {name}", "chosen": YES, "rejected": NO}]) for name in "ab"}
    DatasetDict(sides).save_to_disk(str(folder / "saved"))
    source = {"name": "preferences", "file": str(folder / "saved")}
    changes = {"splits": {"align": 0.5, "test": 0.5}, "rows": {"preference": ["align", "test"]}}
    spec = {**SPEC, **changes, "source": source, "source_splits": {"a": "align", "b": "test"}}
    out = build(BuildSpec.model_validate({**spec, "output": str(folder / "out")}))
    found = {name: pq.read_table(out / f"preference/{name}.parquet").to_pylist() for name in ("align", "test")}
    assert {name: said(rows[0])[0][1] for name, rows in found.items()} == {"align": ["Is it? a"], "test": ["Is it? b"]}


def test_a_patient_that_the_records_name_is_the_group(folder):
    named = PLAIN | {"person": 7.0}
    (row,), card = built(folder, lines(folder, named, PLAIN | {"prompt": "Else?"}), patient="person")
    assert (row["patient"], card["patients"]) == ("7", {"all": 1})
    assert "it has no 'person'" in card["quarantined"]["records"][0]["reason"]
    with pytest.raises(InputError, match=r"no record of .* has 'persom'"):
        built(folder, lines(folder, named), patient="persom")


@pytest.mark.parametrize("shape", FORMATS)
def test_an_export_of_dialogues_is_built_to_the_same_rows(folder, shape):
    """The patient too; LLaVA's trainer knows no system prompt, so there the row with one is refused by its id."""
    several = SEVERAL_TURNS["ms-swift, response"] | {"images": ["a.png", "b.png"], "weight": 0.5, "patient": "p1"}
    without = several | {"messages": several["messages"][1:]}
    noised = PLAIN | {"rejected_images": ["c.png"], "weight": 0.25, "patient": "p2"}
    rows, _ = built(folder, lines(folder, without if shape in LISTS else several, noised))
    result = export(folder / "out/preference/all.parquet", shape, folder / "exported")
    back, _ = built(folder, result["exported"], images=result["images"])
    for one, two in zip(rows, back, strict=True):
        kept = {"prompt", "chosen", "rejected", "patient", "kind"} | ({"weight"} if shape != "llava" else set())
        assert {name: one[name] for name in kept} == {name: two[name] for name in kept}
        for name in ("images", "rejected_images"):
            assert [image["bytes"] for image in one[name] or []] == [image["bytes"] for image in two[name] or []]


@pytest.mark.parametrize("shape", LISTS)
def test_an_export_that_would_lose_a_system_prompt_is_refused(folder, shape):
    (row,), _ = built(folder, lines(folder, SEVERAL_TURNS["ms-swift, response"] | {"images": ["a.png", "b.png"]}))
    with pytest.raises(InputError, match=rf"row {row['id']}: the format {shape} cannot hold it .* system prompt"):
        export(folder / "out/preference/all.parquet", shape, folder / "exported")
    assert not (folder / "exported").exists()


def test_a_patient_that_nobody_knows_is_not_exported_as_one(folder):
    built(folder, lines(folder, PLAIN))
    result = export(folder / "out/preference/all.parquet", "trl", folder / "exported")
    with open(result["exported"]) as file:
        assert "patient" not in json.loads(file.read())


def test_pairs_that_share_a_rejected_picture_stand_in_one_split(folder):
    (folder / "noised.png").write_bytes((folder / "b.png").read_bytes())
    records = [PLAIN | {"images": ["a.png"], "rejected_images": ["b.png"]}, PLAIN | {"images": ["noised.png"]}]
    rows, _ = built(folder, lines(folder, *records))
    assert (len(rows), len({row["patient"] for row in rows})) == (2, 1)
