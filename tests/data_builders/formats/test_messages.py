import base64
from io import BytesIO

import pytest
from PIL import Image

from data_builders.formats.messages import conversation
from data_builders.formats.record_images import RecordError, RecordImage, opened_image, record_images
from data_builders.schema import assistant_turn, user_turn

ASKED = [*user_turn("Is there a nodule?"), *assistant_turn("No.")]
DIALOGUE = [*ASKED, *user_turn("Why?", num_images=0), *assistant_turn("The lungs are clear.")]


def png():
    buffer = BytesIO()
    Image.new("L", (4, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def role(name, content):
    return {"role": name, "content": content}


def llava(*words, who=("human", "gpt")):
    return [{"from": who[k % 2], "value": text} for k, text in enumerate(words)]


SAME = {
    "llava": {"image": "a.png", "conversations": llava("<image>\nIs there a nodule?", "No.")},
    "llava, tag behind": {"image": "a.png", "conversations": llava("Is there a nodule?\n<image>", " No.\n")},
    "messages of strings": {
        "images": ["a.png"],
        "messages": [role("user", "<image>Is there a nodule?"), role("assistant", "No.")],
    },
    "messages of blocks": {
        "images": ["a.png"],
        "messages": [
            role("user", [{"type": "image", "text": None}, {"type": "text", "text": "Is there a nodule?"}]),
            role("assistant", [{"type": "text", "text": "No."}]),
        ],
    },
    "openai": {
        "messages": [
            role(
                "user",
                [
                    {"type": "image_url", "image_url": {"url": "a.png"}},
                    {"type": "text", "text": "Is there a nodule?"},
                ],
            ),
            role("assistant", "No."),
        ]
    },
    "struct of lists": {
        "images": ["a.png"],
        "messages": {"role": ["user", "assistant"], "content": ["<image>Is there a nodule?", "No."]},
    },
    "query": {"query": "<image>Is there a nodule?", "response": "No.", "images": ["a.png"], "history": []},
    "query of qwen": {"query": "<img>a.png</img>Is there a nodule?", "response": "No."},
    "completion": {"prompt": "Is there a nodule?", "completion": "No.", "image": "a.png"},
    "completion of messages": {
        "prompt": [role("user", "Is there a nodule?")],
        "completion": [role("assistant", "No.")],
        "images": ["a.png"],
    },
    "prompt and answer": {"prompt": [role("user", "Is there a nodule?")], "answer": "No.", "images": ["a.png"]},
    "question": {"question": "Is there a nodule?", "answer": "No.", "image": "a.png", "images": None},
    "instruction": {"instruction": "Is there a nodule?", "input": "", "output": "No.", "image": "a.png"},
}


@pytest.mark.parametrize("name", SAME)
def test_every_shape_says_the_same(name):
    found = conversation(SAME[name])
    expected = ASKED if name != "llava, tag behind" else [{**ASKED[0], "content": ASKED[0]["content"][::-1]}, ASKED[1]]
    assert found.messages == expected
    assert found.images == (RecordImage("a.png"),)


@pytest.mark.parametrize("name", SAME)
def test_images_open_the_first_question_only_where_no_tag_says_otherwise(name):
    assert conversation(SAME[name]).untagged is ("completion" in name or name in ("prompt and answer", *ALIKE))


ALIKE = ("question", "instruction")


@pytest.mark.parametrize(
    "record",
    [
        {"image": "a.png", "conversations": llava("<image>Is there a nodule?", "No.", "Why?", "The lungs are clear.")},
        {
            "images": "a.png",
            "query": "Why?",
            "response": "The lungs are clear.",
            "history": [["<image>Is there a nodule?", "No."]],
        },
    ],
)
def test_earlier_turns_are_kept(record):
    assert conversation(record).messages == DIALOGUE


@pytest.mark.parametrize(
    "record",
    [
        {"system": "Be brief.", "question": "Why?", "answer": "So."},
        {"messages": [role("system", "Be brief."), role("user", "Why?"), role("assistant", "So.")]},
        {"conversations": [{"from": "system", "value": "Be brief."}, *llava("Why?", "So.")]},
    ],
)
def test_a_system_prompt_comes_first(record):
    assert conversation(record).messages[0] == role("system", [{"type": "text", "text": "Be brief."}])


def test_text_between_images_stays_between_and_images_open_later_turns():
    words = llava("Before <image> and after <image>.", "It grew.", "And <image>?", "It shrank.")
    found = conversation({"images": ["a", "b", "c"], "conversations": words})
    assert [b["text"] or "|" for m in found.messages[::2] for b in m["content"]] == [
        "Before ", "|", " and after ", "|", ".", "And ", "|", "?"
    ]  # fmt: skip
    assert [image.name for image in found.images] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"text": "..."}, "no known shape: it has text"),
        ({"image": "a.png", "conversations": llava("<image><image>?", "No.")}, "2 image tags for 1 images"),
        ({"conversations": llava("<image>?", "No.")}, "1 image tags for 0 images"),
        ({"image": "a.png", "conversations": llava("What?", "<image>")}, "only questions show images"),
        ({"image": "a.png", "conversations": llava("What?", "<image 1>")}, "<image 1>"),
        ({"question": "What?", "answer": None}, "its answer is null"),
        ({"question": "What?", "answer": float("nan")}, "its answer is null"),
        ({"question": "What?", "answer": " "}, "assistant says nothing"),
        ({"question": "What?"}, "its last question has no 'answer'"),
        ({"conversations": llava("What?", None)}, "turn 2: assistant says null"),
        ({"conversations": llava("What?", "No.", "Why?")}, "its last question has no 'answer'"),
        ({"conversations": llava("Hello", "What?", "That", who=("gpt", "human"))}, "roles do not alternate"),
        ({"messages": [role("user", "a"), role("user", "b"), role("assistant", "c")]}, "roles do not alternate"),
        ({"messages": [role("user", "a"), role("tool", "b")]}, "the role 'tool'"),
        ({"messages": []}, "is empty"),
        ({"query": "a", "response": "b", "history": ["c"]}, "pairs of question and answer"),
        ({"question": "a", "answer": "b", "img_file": "a.png"}, "'img_file' names a picture"),
        ({"question": "a", "answer": "b", "image": "https://x.org/a.png"}, "is an address"),
        ({"question": "a", "answer": "b", "videos": ["a.mp4"]}, "'videos' is not read"),
        ({"system": "a", "messages": [role("system", "b"), role("user", "c"), role("assistant", "d")]}, "leave one"),
        ({"prompt": "Look.", "question": "A nodule?", "completion": "No."}, "asks in 'prompt' and in 'question'"),
        (
            {"question": "A nodule?", "input": "A film of a child.", "answer": "No."},
            "asks in 'question' and in 'input'",
        ),
        ({"prompt": [role("user", "a"), role("assistant", "b")], "completion": "c"}, "leave one of the two out"),
        ({"messages": [role("user", "a"), {**role("assistant", "b"), "weight": 0}]}, "not to be learnt"),
        ({"messages": [role("user", "a"), {**role("assistant", "b"), "loss": False}]}, "not to be learnt"),
        ({"prompt": "a", "completion": "b", "label": False}, "not to be learnt (KTO)"),
    ],
)
def test_what_cannot_be_read_is_said(record, reason):
    with pytest.raises(RecordError) as fault:
        conversation(record)
    assert reason in str(fault.value)


def test_alpacas_history_comes_before_its_instruction():
    record = {"instruction": "Why?", "output": "The lungs are clear.", "image": "a.png"}
    assert conversation(record | {"history": [["Is there a nodule?", "No."]]}).messages == DIALOGUE


@pytest.mark.parametrize(
    "record",
    [
        {"question": "Is it so?", "answer": "no", "label": False},
        {"messages": [{**role("user", "Why?"), "weight": 0}, role("assistant", "So.")]},
        {"messages": [role("user", "<image> Why?"), role("assistant", "So.")], "image": "a.png", "question": "Why?"},
        {"instruction": float("nan"), "question": "Why?", "answer": "So."},
    ],
)
def test_what_only_looks_unread_is_read(record):
    assert conversation(record).messages[-1]["role"] == "assistant"


def test_an_answer_that_is_a_number_is_written_as_one_writes_it():
    words = [conversation({"question": "How many?", "answer": answer}).messages[1] for answer in (3, 3.0, 2.5)]
    assert words == [message for text in ("3", "3", "2.5") for message in assistant_turn(text)]


@pytest.mark.parametrize(
    "value",
    [
        png(),
        {"bytes": png(), "path": None},
        {"bytes": base64.b64encode(png()).decode()},
        "data:image/png;base64," + base64.b64encode(png()).decode(),
    ],
)
def test_a_picture_held_in_the_record_is_opened(tmp_path, value):
    (image,) = record_images({"image": value})
    assert opened_image(image, tmp_path).size == (4, 3)


def test_a_picture_is_looked_for_in_its_root_and_stands_upright(tmp_path):
    lying = Image.new("L", (4, 3))
    exif = lying.getexif()
    exif[0x0112] = 6
    lying.save(tmp_path / "右肺.jpg", exif=exif)
    (image,) = record_images({"images": [{"bytes": None, "path": "右肺.jpg"}]})
    assert opened_image(image, tmp_path).size == (3, 4)
    for name in ("../out.png", "/etc/hostname", "none.png"):
        with pytest.raises(RecordError):
            opened_image(RecordImage(name), tmp_path)
