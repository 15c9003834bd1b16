"""Faults of rows and files: a table of fault by command; each names the row or line, and nothing was computed before.

The data sets are sound ones with one row spoilt, so that a check which refuses everything fails here too.
"""

import io
import json
import shutil
import struct
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from alignment.cli.app import app
from data_builders.imaging.images import pixels
from data_builders.row_checks import Check, check_rows, file_faults
from data_builders.row_schema import schema_of
from rewards.config.input_error import InputError

FACTS = {"rule_set": "chest_xray@1", "findings": {"nodule": {"polarity": "present", "side": "left"}}}
DIALOGUE = {
    "rule_set": "bone_marrow@1",
    "scenario": "single",
    "wording": "train",
    "turns": [{"node": "region", "gold": "clot", "question": "Which region?", "answer": "A clot."}],
}
SPOILT = 5


def refused(*arguments, stdin=None):
    """The sentence of a refusal; a traceback or a result fails the test."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    assert isinstance(done.exception, SystemExit), done.exception or done.output
    assert done.exit_code == 2
    return "\n".join(line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: "))


def line(**columns):
    return json.dumps({"response": "left", **columns})


# --- lines of JSON --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reward", "second", "told"),
    [
        ("closed_answer", line(response=None, answer="left"), "'response': got null; expected a text"),
        ("closed_answer", line(response=3, answer="left"), "'response': got int 3"),
        ("closed_answer", line(response=["left"], answer="left"), "'response': got list"),
        ("dialogue_consistency", line(response=[3], dialogue=DIALOGUE), "expected a text or a list of texts (turns)"),
        ("closed_answer", line(answer=3), "'answer': got int 3; expected a text (in quotes) or null"),
        ("label_accuracy", line(answer=["left"]), "'answer': got list"),
        ("report_overlap", line(answer={"a": 1}, facts=None), "'answer': got dict"),
        ("box_overlap", line(boxes="[[0, 0, 5, 5]]"), "'boxes': got str"),
        ("box_overlap", line(boxes=[[0, 0, 5]]), "four finite numbers with x1 < x2"),
        ("box_overlap", line(boxes=[[5, 0, 0, 5]]), "four finite numbers with x1 < x2"),
        ("box_overlap", line(boxes=[[[0, 0, 5, 5]]]), "four finite numbers"),
        ("box_overlap", line(boxes=[[0, 0, "5", 5]]), "four finite numbers"),
        ("box_overlap", line(boxes=[0, 0, 5, 5]), "'boxes': got list [0, 0, 5, 5]"),
        ("box_overlap", line(boxes=[[0, 0, True, 5]]), "four finite numbers"),
        ("box_overlap", line(boxes=[], image_size=[64, 64]), "'image_size': got list [64, 64]; expected a list of"),
        ("box_overlap", line(boxes=[], image_size=[[64, 0]]), "'image_size'"),
        ("box_overlap", line(boxes=[], box_grid="100"), "'box_grid': got str"),
        ("box_overlap", line(boxes=[], target=4), "'target': got int 4"),
        ("box_overlap", line(boxes=[], target="nodul", rule_set="chest_xray@1"), "no 'nodul'. Did you mean 'nodule'?"),
        ("box_overlap", line(boxes=[], rule_set="chest_xry@1"), "Did you mean 'chest_xray'?"),
        ("sequence_boxes", line(boxes=[[0, 0, 5, 5]], box_images=[0]), "'box_images': got list [0]"),
        ("sequence_boxes", line(boxes=[[0, 0, 5, 5]], box_images=[1, 2]), "names 2 images for 1 boxes"),
        (
            "sequence_boxes",
            line(boxes=[[0, 0, 5, 5]], box_images=[3], image_size=[[9, 9], [9, 9]]),
            "names image 3, but 'image_size' holds 2",
        ),
        ("finding_f1", line(facts="{oops"), "'facts': not readable: Invalid JSON"),
        ("finding_f1", line(facts=3), "'facts': got int 3"),
        ("finding_f1", line(facts={"findings": {}}), "'facts': not readable: rule_set: Field required"),
        ("finding_f1", line(facts=FACTS | {"rule_set": "nope@1"}), "'facts': no rule set named 'nope@1'"),
        ("finding_f1", line(facts=FACTS | {"findings": {"nodul": {"polarity": "absent"}}}), "Did you mean 'nodule'?"),
        (
            "finding_boxes",
            line(facts=FACTS | {"findings": {"nodule": {"polarity": "present", "boxes": [[9, 0, 0, 9]]}}}),
            "'facts': a box in them",
        ),
        ("choice_answer", line(answer="PET", options=["CT", "MRI"]), "'PET' is none of its options (CT, MRI)"),
        ("choice_answer", line(answer="C", options=["CT", "MRI"]), "'C' is none of its options"),
        ("choice_answer", line(answer="CT", options=["CT", "ct"]), "'options': got list"),
        ("choice_answer", line(answer="CT", options=["CT", ""]), "a list of different texts, none empty"),
        ("choice_answer", line(answer="CT", options={"A": "CT"}), "'options': got dict"),
        ("dialogue_consistency", line(dialogue="{}"), "'dialogue': not readable"),
        ("dialogue_consistency", line(dialogue=DIALOGUE | {"rule_set": "chest_xray@1"}), "no decision section"),
        (
            "dialogue_consistency",
            line(dialogue=DIALOGUE | {"turns": [DIALOGUE["turns"][0] | {"gold": "clod"}]}),
            "turn 1: 'clod' is no answer of node 'region'",
        ),
        (
            "dialogue_consistency",
            line(dialogue=DIALOGUE | {"turns": [DIALOGUE["turns"][0] | {"node": "regio"}]}),
            "turn 1: no node 'regio'. Did you mean 'region'?",
        ),
        ("crpo", line(prompt=[{"role": "user"}], counterparts=[], facts=None), "'prompt': got list"),
        ("crpo", line(prompt="?", counterparts=["x"], facts=None), "'counterparts': got list ['x']"),
        ("length", "[1]", "expected an object, got list"),
        ("length", "{oops", "not JSON"),
        ("length", '{"response": "x", "weight": NaN}', "NaN is no number of JSON"),
        ("length", '{"response": "x", "weight": 1e999}', "too large a number"),
        ("length", '{"response": ' + "9" * 5000 + "}", "not JSON"),
        ("length", '{"response": ' + "[" * 100_000 + "}", "nested too deeply"),
        ("length", b'{"response": "\xff"}', "not UTF-8 (byte 15)"),
    ],
)  # fmt: skip
def test_score_names_the_line_and_the_cure(reward, second, told):
    sound = {
        "answer": None, "boxes": None, "facts": None, "options": None, "dialogue": None, "box_images": None,
        "prompt": "?", "counterparts": [],
    }  # fmt: skip
    second = second if isinstance(second, bytes) else second.encode()
    said = refused("score", reward, stdin=line(**sound).encode() + b"\n" + second + b"\n")
    assert said.startswith("line 2: ")
    assert told in said


def scored(reward, text):
    done = CliRunner().invoke(app, ["score", reward], input=text)
    assert done.exception is None, done.exception
    return [json.loads(row)["score"] for row in done.output.splitlines()]


def test_a_mark_windows_lines_and_blank_lines_are_passed_over():
    row = line(response="<answer>left</answer>", answer="left")
    assert scored("closed_answer", f"\ufeff{row}\r\n\r\n{row}\r\n".encode()) == [1.0, 1.0]


def test_facts_may_be_the_object_that_read_writes():
    says = "Small nodule on the left."
    as_text, as_object = (line(response=says, facts=facts) for facts in (json.dumps(FACTS), FACTS))
    [first, second] = scored("finding_f1", f"{as_text}\n{as_object}\n")
    assert first == second > 0
    assert scored("dialogue_consistency", line(response=["A clot."], dialogue=DIALOGUE))[0] > 0


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"text": 3}, "'text': got int 3"),
        ({"text": None}, "its text is null"),
        ({"text": "x", "node": 3}, "'node': got int 3"),
        ({}, "needs a 'text'"),
    ],
)
def test_read_names_the_line(row, told):
    said = refused("read", "chest_xray", stdin=json.dumps({"text": "No nodule."}) + "\n" + json.dumps(row) + "\n")
    assert said.startswith("line 2: ")
    assert told in said


# --- rows of data files ---------------------------------------------------------------------------------------------


def png(*size, damaged=False):
    buffer = io.BytesIO()
    Image.effect_noise(size, 50).save(buffer, format="PNG")
    content = buffer.getvalue()
    return content[: len(content) // 2] if damaged else content


def bomb():
    """A PNG whose header says 20,000 x 20,000 pixels, and that has none of them."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    size = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + size + struct.pack(">I", 100) + b"IDAT"


def picture(content, path="x.png"):
    return [{"bytes": content, "path": path}]


def said(*blocks, role="user"):
    return [{"role": role, "content": [{"type": kind, "text": text} for kind, text in blocks]}]


WORDS, PICTURE = ("text", "Where?"), ("image", None)
FAULTS = {
    "facts unreadable": ({"facts": "{oops"}, "'facts': not readable"),
    "facts of an unknown rule set": ({"facts": json.dumps(FACTS | {"rule_set": "x@1"})}, "no rule set named 'x@1'"),
    "rule set unknown": ({"rule_set": "chest_xry@1"}, "Did you mean 'chest_xray'?"),
    "target unknown": ({"target": "nodul"}, "Did you mean 'nodule'?"),
    "box inverted": ({"boxes": [[50, 0, 10, 5]]}, "'boxes': got list"),
    "box of three numbers": ({"boxes": [[50, 0, 10]]}, "'boxes': got list"),
    "sizes of a wrong shape": ({"image_size": [[64]]}, "'image_size': got list"),
    "too many sizes": ({"image_size": [[64, 64], [64, 64]]}, "holds 2 sizes for 1 pictures"),
    "size of another picture": ({"image_size": [[32, 64]]}, "[32, 64] for images[0], which is 64 wide and 64 high"),
    "id null": ({"id": None}, "'id': null"),
    "prompt null": ({"prompt": None}, "'prompt': null"),
    "prompt empty": ({"prompt": []}, "'prompt': got list []; expected messages"),
    "role unknown": ({"prompt": said(PICTURE, WORDS, role="doctor")}, "'prompt': got list"),
    "prompt of the assistant": ({"prompt": said(PICTURE, WORDS, role="assistant")}, "ends with the role 'assistant'"),
    "text block without text": ({"prompt": said(PICTURE, ("text", None))}, "'prompt': got list"),
    "too few image blocks": ({"prompt": said(WORDS)}, "1 pictures for 0 image blocks"),
    "too many image blocks": ({"prompt": said(PICTURE, PICTURE, WORDS)}, "1 pictures for 2 image blocks"),
    "picture missing": ({"images": picture(None, "none/x.png")}, "no file none/x.png (from the working directory)"),
    "picture of nothing": ({"images": picture(None, None)}, "neither bytes nor path"),
    "picture of zero bytes": ({"images": picture(b"", None)}, "0 bytes"),
    "not a picture": ({"images": picture(b"%PDF-1.7")}, "not a picture that can be opened (8 bytes)"),
    "bomb": ({"images": picture(bomb())}, "decompression bomb"),
}


def spoilt(data, out, entry="prompt/align", place=SPOILT, **columns):
    """A copy of a built set with one row changed; its data entry, and what the row is called."""
    kind = entry.partition("/")[0]
    rows = pq.read_table(data / f"{entry}.parquet").to_pylist()
    rows[place] |= columns
    file = out / f"{entry}.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema_of(kind)), file)
    name = rows[place]["id"] or f"{place} (counted from 0)"
    return out / entry, f"row {name}: "


@pytest.fixture(scope="module")
def prompts(data, tmp_path_factory):
    """The folder of each fault's data set, built once."""
    made = {name: tmp_path_factory.mktemp("spoilt") for name in FAULTS}
    return {name: spoilt(data, made[name], **columns) for name, (columns, _) in FAULTS.items()}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("command", ["check", "train", "audit", "eval"])
def test_a_command_names_the_row_and_the_cure(command, fault, prompts, write_recipe, tmp_path):
    entry, row = prompts[fault]
    if command == "eval":
        told = refused("eval", "no/such/model", entry)  # not even looked for
    else:
        told = refused(command, write_recipe("grpo", data={"train": str(entry)}))
    assert row in told
    assert FAULTS[fault][1] in told
    assert not (tmp_path / "grpo").exists()


INSPECTED = ["facts unreadable", "box inverted", "not a picture", "bomb", "picture missing", "too few image blocks"]


@pytest.mark.parametrize("fault", INSPECTED)
def test_inspect_refuses_the_row_and_shows_its_neighbour(fault, prompts):
    entry, row = prompts[fault]
    told = refused("inspect", entry, "--row", SPOILT)
    assert row in told
    assert FAULTS[fault][1] in told
    assert CliRunner().invoke(app, ["inspect", str(entry), "--row", "0"]).exception is None


ANSWERED = {
    "chosen null": ({"chosen": None}, "'chosen': null"),
    "rejected of a user": ({"rejected": said(WORDS)}, "'rejected': opens with the role 'user'"),
    "rejected picture damaged": ({"rejected_images": picture(b"GIF")}, "rejected_images[0]: not a picture"),
    "weight not finite": ({"relevance": float("nan")}, "'relevance': got float nan"),
}


@pytest.mark.parametrize("fault", ANSWERED)
@pytest.mark.parametrize("command", ["check", "train", "export"])
def test_a_preference_row_is_named(command, fault, data, write_recipe, tmp_path):
    columns, wanted = ANSWERED[fault]
    entry, row = spoilt(data, tmp_path / "spoilt", "preference/align", **columns)
    arguments = (
        (entry, "mmedpo", tmp_path / "out")
        if command == "export"
        else (write_recipe("dpo", data={"train": str(entry)}),)
    )
    told = refused(command, *arguments)
    assert row in told
    assert wanted in told
    assert not (tmp_path / "out").exists()


def test_a_row_named_twice_is_refused(data, tmp_path):
    first = pq.read_table(data / "prompt/align.parquet")["id"][0].as_py()
    entry, row = spoilt(data, tmp_path, id=first)
    assert f"{row}'id': '{first}' names another row too" in refused("eval", "no/such/model", entry)


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("answer", 3, "'answer': got int 3"),
        ("boxes", "[[0, 0, 5, 5]]", "'boxes': got str"),
        ("facts", 4, "'facts': got int 4"),
        ("facts", {"rule_set": "chest_xray@1"}, "'facts': got dict"),
        ("task", 1, "'task': got int 1"),
        ("images", "x.png", "'images': got str 'x.png'; expected a list of pictures"),
        ("prompt", "Where?", "'prompt': got str 'Where?'; expected messages"),
        ("options", "CT, MRI", "'options': got str"),
    ],
)
def test_a_column_of_another_type_is_told_with_five_rows_and_their_number(column, value, told, data, tmp_path):
    rows = pq.read_table(data / "prompt/align.parquet").to_pylist()
    file = tmp_path / "align.parquet"
    pq.write_table(pa.Table.from_pylist([row | {column: value} for row in rows]), file)
    *lines, last = refused("eval", "no/such/model", file).splitlines()
    assert len(lines) == 5
    assert all(told in one for one in lines)
    assert last.endswith(f"{len(rows)} rows have such faults; the first 5 are named.")


def test_pixels_of_some_rows_are_read_and_of_all_on_request(data, write_recipe, tmp_path):
    rows = pq.read_table(data / "prompt/align.parquet").num_rows
    entry, row = spoilt(data, tmp_path / "spoilt", place=rows - 2, images=picture(png(64, 64, damaged=True)))
    file = Path(f"{entry}.parquet")
    assert file_faults(file, Check(pixels=2)) == ()
    [told] = file_faults(file, Check(pixels=None))
    assert row in told
    assert "unreadable image" in told
    assert row in refused("check", write_recipe("grpo", data={"train": str(entry)}), "--pixels")


def test_every_header_is_read_once_and_pixels_of_a_few(tmp_path, monkeypatch):
    """The work is linear: of n rows, n headers and 32 pictures."""
    number = 300
    rows = [
        {"id": str(k), "images": picture(png(8 + k % 7, 8)), "prompt": said(PICTURE, WORDS), "image_size": None}
        for k in range(number)
    ]
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=schema_of("prompt")), file)
    opened, loaded = [], []
    real_open, real_load = Image.open, Image.Image.load
    monkeypatch.setattr(Image, "open", lambda *given, **known: opened.append(1) or real_open(*given, **known))
    monkeypatch.setattr("data_builders.row_checks.decoded", lambda image: loaded.append(1) or real_load(image))
    check_rows(file)
    assert (len(opened), len(loaded)) == (number, 32)
    check_rows(file)  # asked again of the same file, nothing is read again
    assert len(opened) == number


def turned(kind, orientation):
    """A picture of 40 x 30 pixels whose EXIF tag says how it stands; orientations of 5 and more lay it on its side."""
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.effect_noise((40, 30), 50).save(buffer, format=kind, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_declared_size_is_that_of_the_picture_as_it_stands(kind, orientation, tmp_path):
    """As ``datasets`` decodes it, and so as a model is shown it."""
    from datasets import Image as Feature

    content = turned(kind, orientation)
    shown = Feature().decode_example({"bytes": content, "path": None}).size
    assert pixels({"bytes": content, "path": None}).size == shown
    row = {"id": "a", "images": picture(content), "prompt": said(PICTURE, WORDS)}
    for number, size in enumerate([shown, shown[::-1]]):
        file = tmp_path / f"{number}.parquet"
        pq.write_table(pa.Table.from_pylist([row | {"image_size": [list(size)]}], schema=schema_of("prompt")), file)
    assert file_faults(tmp_path / "0.parquet") == ()
    [told] = file_faults(tmp_path / "1.parquet")
    assert f"row a: 'image_size': [{shown[1]}, {shown[0]}] for images[0], which is {shown[0]} wide" in told


@pytest.mark.parametrize("entry", ["prompt/align", "prompt/test", "instruction/sft", "preference/align"])
def test_sound_rows_raise_no_alarm(entry, data, marrow):
    for built in (data, marrow):
        if (built / f"{entry}.parquet").is_file():
            assert file_faults(built / f"{entry}.parquet", Check(("prompt",), blocks=True, pixels=None)) == ()


# --- damaged files --------------------------------------------------------------------------------------------------


def truncated(file):
    file.write_bytes(file.read_bytes()[:-100])


def overwritten(file):
    """The footer stands, and what it points to is gone."""
    content = bytearray(file.read_bytes())
    content[4 : len(content) * 2 // 3] = bytes(len(content) * 2 // 3 - 4)
    file.write_bytes(content)


DAMAGE = {
    "truncated": (truncated, "not a whole Parquet file"),
    "overwritten": (overwritten, "not a whole Parquet file"),
    "wrong magic": (lambda file: file.write_bytes(b"PK\x03\x04" * 50), "not a whole Parquet file"),
    "empty": (lambda file: file.write_bytes(b""), "not a whole Parquet file"),
    "no columns": (lambda file: pq.write_table(pa.table({}), file), "no"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("command", ["check", "train", "audit", "eval", "inspect", "export"])
def test_a_damaged_file_is_named(command, damage, data, write_recipe, tmp_path):
    kind = "preference" if command == "export" else "prompt"
    file = tmp_path / kind / "align.parquet"
    file.parent.mkdir()
    shutil.copy(data / kind / "align.parquet", file)
    spoil, told = DAMAGE[damage]
    spoil(file)
    arguments = {
        "eval": ("eval", "no/such/model", file),
        "inspect": ("inspect", file),
        "export": ("export", file, "mmedpo", tmp_path / "out"),
    }.get(command) or (command, write_recipe("grpo", data={"train": str(file)}))
    sentence = refused(*arguments)
    assert str(file.with_suffix("")) in sentence
    assert told in sentence


# --- models and checkpoints -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny model's folder."""
    from alignment.models.tiny import build_tiny

    return build_tiny(["Yes No nodule"], tmp_path_factory.mktemp("tiny") / "model", image_size=64)


def cut_weights(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def shard_gone(folder):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def other_size(folder):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] *= 2
    (folder / "config.json").write_text(json.dumps(config))


def changed(folder, **settings):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))


def adapted(folder, **settings):
    given = {"base_model_name_or_path": str(folder.parent / "model"), **settings}
    (folder / "adapter_config.json").write_text(json.dumps(given))


MODEL_DAMAGE = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "holds no checkpoint"),
    "config of no JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json: not JSON"),
    "config of no model": (lambda folder: (folder / "config.json").write_text("{}"), "names no model_type"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
    "truncated weights": (cut_weights, "model.safetensors: is truncated"),
    "empty weights": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "is truncated (0 bytes)"),
    "no safetensors": (lambda folder: (folder / "model.safetensors").write_bytes(b"PK\x03\x04" * 9), "is truncated"),
    "shard gone": (shard_gone, "lacks model-00001-of-00002.safetensors"),
    "no tokenizer": (lambda folder: [f.unlink() for f in folder.glob("tokenizer*.json")], "could not be loaded"),
    "tokenizer of nothing": (lambda folder: (folder / "tokenizer.json").write_text("{}"), "could not be loaded"),
    "settings in a list": (lambda folder: (folder / "tokenizer_config.json").write_text("[]"), "expected an object"),
    "generation in a list": (lambda folder: (folder / "generation_config.json").write_text("[]"), "expected an object"),
    "generation unreadable": (lambda folder: (folder / "generation_config.json").write_text("{"), "not JSON"),
    "index of nothing": (lambda folder: (folder / "model.safetensors.index.json").write_text("{}"), "names no weights"),
    "index in a list": (
        lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": [1]}'),
        "names no weights",
    ),
    "no heads": (lambda folder: changed(folder, text_config={"num_attention_heads": 0}), "not as expected"),
    "words of the wrong type": (lambda folder: changed(folder, text_config="x"), "not as expected"),
    "adapter of an unknown kind": (lambda folder: adapted(folder, peft_type="X"), "not as expected"),
    "adapter without weights": (lambda folder: adapted(folder, peft_type="LORA"), "could not be loaded"),
    "type unknown": (lambda folder: changed(folder, model_type="evil9"), "could not be loaded"),
    "type without eyes": (lambda folder: changed(folder, model_type="llama"), "llama"),
    "other size": (other_size, "its tensors have other sizes than its config.json says"),
}


@pytest.mark.parametrize("damage", MODEL_DAMAGE)
@pytest.mark.parametrize("command", ["eval", "train"])
def test_a_damaged_model_is_named(command, damage, tiny, data, write_recipe, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    spoil, told = MODEL_DAMAGE[damage]
    spoil(folder)
    arguments = (folder, data / "prompt/test") if command == "eval" else (write_recipe(model={"path": str(folder)}),)
    sentence = refused(command, *arguments)
    assert str(folder) in sentence
    assert told in sentence


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ("{}", "lists no files"),
        ('{"files": {"a": 3}, "processes": 1}', "no sizes"),
    ],
)
def test_a_checkpoint_with_a_damaged_manifest_is_passed_over(content, told, tmp_path, caplog):
    from alignment.resuming.checkpoints import last_whole, seal

    for step in (1, 2):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
        seal(tmp_path / f"checkpoint-{step}", step=step)
    (tmp_path / "checkpoint-2" / "complete.json").write_text(content)
    assert last_whole(tmp_path) == tmp_path / "checkpoint-1"
    assert told in caplog.text


# --- what only a model's processor refuses --------------------------------------------------------------------------


class Refusing:
    """A processor's part that is asked here: a template that wants a user first, and Qwen's limit of shapes."""

    def apply_chat_template(self, messages, **_):
        from jinja2 import TemplateError

        if messages[0]["role"] == "system":
            raise TemplateError("System role not supported")
        return "text"

    def __call__(self, *, images, **_):
        for image in images[0]:
            if max(image.size) > 200 * min(image.size):
                raise ValueError("absolute aspect ratio must be smaller than 200, got 300.0")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"images": picture(png(1, 300))}, r"row b: .*processor refuses it \(images: 1 x 300\): absolute aspect ratio"),
        (
            {"prompt": [*said(WORDS, role="system"), *said(PICTURE, WORDS)]},
            "row b: .*roles system, user.*supported",
        ),
    ],
)
def test_a_row_that_the_processor_refuses_is_named(changes, told):
    from alignment.data.processor_checks import check_processing

    sound = {"id": "a", "images": picture(png(64, 64)), "prompt": said(PICTURE, WORDS)}
    check_processing(Refusing(), [sound])
    with pytest.raises(InputError, match=told):
        check_processing(Refusing(), [sound, sound | {"id": "b"} | changes])
