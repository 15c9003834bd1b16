import json
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_builders.formats.pairs import Pair, survey, words_of
from data_builders.formats.preference_formats import FORMATS, read_pairs
from data_builders.formats.preference_writing import write_pairs
from data_builders.formats.record_images import RecordImage
from data_builders.formats.records import Unreadable
from data_builders.schema import assistant_turn, user_turn
from rewards.config.input_error import InputError

DATA = Path(os.environ.get("CLINALIGN_DATA", Path(__file__).parents[4] / "shared" / "data")) / "mmedpo"
needs_mmedpo = pytest.mark.skipif(not DATA.is_dir(), reason="MMedPO's released pairs are absent (set CLINALIGN_DATA)")


def named(*names):
    return tuple(RecordImage(name) for name in names)


TEXT = Pair("0", named("xmlab1/source.jpg"), "What modality is used?", "MRI", "This is an X-ray", 0.8, relevance=0.8)
IMAGE = Pair("1", named("a.png"), "Is there a nodule?", "Yes", "Yes", 1.25, named("a-noised.png"), relevance=0.5)
BARE = Pair("2", (), "What is a nodule?", "A spot", "A bone", 1.0, relevance=0.0)
SEVERAL = Pair(
    "3", named("a.png", "b.png"), "What changed?", "Nothing", "A mass grew", 1.0, named("a.png", "b-noised.png"),
    relevance=0.7,
)  # fmt: skip
PICTURE = {"type": "image", "text": None}


def words(text):
    return {"type": "text", "text": text}


BETWEEN = {"role": "user", "content": [words("Before:"), PICTURE, words("\nAfter: "), PICTURE, words(" Well?")]}
TURNS = (BETWEEN, *assistant_turn("It grew."), *user_turn("By how much?", num_images=0))
DIALOGUE = Pair(
    "4", named("a.png", "b.png"), words_of(TURNS, 2)[0], "Twice", "Half", 1.0, relevance=0.5, turns=TURNS, patient="p7"
)
SYSTEM = {"role": "system", "content": [words("You read films.")]}


def conversation(question, answer):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


MMEDPO = {
    "id": 0,
    "image": "xmlab1/source.jpg",
    "conversations": conversation("<image>\nWhat modality is used?", " MRI"),
    "rejected_conversations": conversation("<image>\nWhat modality is used?", " This is an X-ray"),
    "weighted_score": 0.8,
}
MS_SWIFT = {
    "messages": [{"role": "user", "content": "<image>Is there a nodule?"}, {"role": "assistant", "content": "Yes"}],
    "images": ["a.png"],
}
TRL = {
    "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is there a nodule?"}]}],
    "chosen": [{"role": "assistant", "content": "Yes"}],
    "rejected": "No",
    "images": ["a.png"],
}


def read(path, shape):
    """The pairs of a file, and what is wrong with the others by where they stand."""
    found = list(read_pairs(path, shape)[1])
    faults = {one.location: one.reason for one in found if isinstance(one, Unreadable)}
    return [one for one in found if isinstance(one, Pair)], faults


def read_one(tmp_path, shape, record):
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps([record]))
    return read(path, shape)


def test_mmedpos_own_record_is_read(tmp_path):
    pairs, faults = read_one(tmp_path, "mmedpo", MMEDPO)
    assert pairs == [TEXT]
    assert faults == {}


def test_a_llava_record_with_a_rejected_image_weighs_one(tmp_path):
    record = {key: value for key, value in MMEDPO.items() if key != "weighted_score"}
    (pair,), _ = read_one(tmp_path, "llava", record | {"rejected_image": "noised.jpg"})
    assert (pair.weight, pair.rejected_images) == (None, named("noised.jpg"))


@pytest.mark.parametrize(
    ("more", "rejected", "others"),
    [
        ({"rejected_response": "No"}, "No", ()),
        ({"rejected_images": ["a-noised.png"]}, "Yes", ("a-noised.png",)),
        ({"rejected_response": "No", "rejected_images": ["b.png"]}, "No", ("b.png",)),
        (
            {
                "rejected_messages": [
                    {"role": "user", "content": "<image>Is there a nodule?"}, {"role": "assistant", "content": "No"}
                ]
            },
            "No",
            (),
        ),
    ],
)  # fmt: skip
def test_each_way_in_which_ms_swift_says_rejected_is_read(tmp_path, more, rejected, others):
    (pair,), faults = read_one(tmp_path, "ms_swift", MS_SWIFT | more)
    assert faults == {}
    assert (pair.question, pair.chosen, pair.rejected, pair.rejected_images) == (
        "Is there a nodule?", "Yes", rejected, named(*others),
    )  # fmt: skip


def test_trls_columns_are_read_as_strings_and_as_messages(tmp_path):
    (pair,), _ = read_one(tmp_path, "trl", TRL)
    assert (pair.question, pair.chosen, pair.rejected, pair.images) == (
        "Is there a nodule?",
        "Yes",
        "No",
        named("a.png"),
    )


@pytest.mark.parametrize(
    ("shape", "record", "says"),
    [
        ("mmedpo", {k: v for k, v in MMEDPO.items() if k != "weighted_score"}, "no 'weighted_score'"),
        ("mmedpo", MMEDPO | {"weighted_score": "0.8"}, "'weighted_score' is str"),
        ("mmedpo", MMEDPO | {"weighted_score": True}, "'weighted_score' is bool True"),
        ("mmedpo", MMEDPO | {"rejected_noised": 1}, "pure noise"),
        ("mmedpo", MMEDPO | {"chosen_noised": 1}, "pure noise"),
        ("mmedpo", MMEDPO | {"image": 5}, "an image is int 5"),
        ("mmedpo", MMEDPO | {"conversations": []}, "'conversations' is empty"),
        (
            "mmedpo",
            MMEDPO | {"conversations": [{"from": "gpt", "value": "a"}, {"from": "human", "value": "b"}]},
            "do not alternate: assistant",
        ),
        ("mmedpo", MMEDPO | {"conversations": [{"from": "human"}, {"from": "gpt"}]}, "turn 1: user says null"),
        ("mmedpo", MMEDPO | {"rejected_conversations": conversation("Other?", "x")}, "different questions"),
        ("ms_swift", MS_SWIFT, "none of rejected_messages, rejected_response, rejected_images"),
        ("trl", {k: v for k, v in TRL.items() if k != "chosen"}, "no 'chosen'"),
        ("trl", TRL | {"rejected": []}, "'rejected' is empty"),
        ("trl", TRL | {"rejected": [{"role": "assistant"}]}, "turn 1: assistant says null"),
        ("trl", TRL | {"weight": "heavy"}, "'weight' is str"),
        ("trl", TRL | {"relevance": 8}, "'relevance' is 8, outside 0 to 1"),
        ("mmedpo", MMEDPO | {"relevance": "high"}, "'relevance' is str"),
    ],
)
def test_a_record_that_cannot_be_read_is_told_by_its_place(tmp_path, shape, record, says):
    pairs, faults = read_one(tmp_path, shape, record)
    assert pairs == []
    assert says in faults["record 0"]


@pytest.mark.parametrize(
    ("content", "says"), [("[{]", "not JSON"), ("[]", "holds no records"), ("", "holds no records"), ("{]", "not JSON")]
)
def test_a_file_without_records_is_refused(tmp_path, content, says):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError, match=says):
        read_pairs(tmp_path / "x.json", "mmedpo")
    with pytest.raises(InputError, match="no such file"):
        read_pairs(tmp_path / "y.json", "mmedpo")


@pytest.mark.parametrize("shape", FORMATS)
def test_what_is_written_is_read_back(tmp_path, shape):
    pairs = [TEXT, IMAGE, BARE, SEVERAL, DIALOGUE]
    back, faults = read(write_pairs(pairs, tmp_path / "pairs", shape), shape)
    assert faults == {}
    assert back == ([unscored(pair) for pair in pairs] if shape == "llava" else pairs)


def unscored(pair):
    """What is left of a pair in LLaVA's shape, which has no place for a weight."""
    return replace(pair, weight=None, relevance=None)


@pytest.mark.parametrize("shape", ["ms_swift", "trl"])
def test_a_system_prompt_is_read_back(tmp_path, shape):
    pair = replace(DIALOGUE, turns=(SYSTEM, *TURNS), question=f"You read films.\n{DIALOGUE.question}")
    assert read(write_pairs([pair], tmp_path / "pairs", shape), shape) == ([pair], {})


TWO_TEXTS = {"role": "user", "content": [words("One"), words("Two")]}


@pytest.mark.parametrize(
    ("shape", "pair", "why"),
    [
        ("llava", replace(DIALOGUE, turns=(SYSTEM, *TURNS)), "its trainers know no system prompt"),
        ("mmedpo", replace(DIALOGUE, turns=(SYSTEM, *TURNS)), "its trainers know no system prompt"),
        ("ms_swift", replace(BARE, turns=(TWO_TEXTS,)), "read back, it would say something else"),
        ("trl", replace(BARE, question="Is <image> a tag?"), "1 image tags for 0 images"),
        ("trl", replace(BARE, chosen="  "), "assistant says nothing"),
    ],
)
def test_what_a_shape_cannot_hold_is_refused_by_its_row(tmp_path, shape, pair, why):
    with pytest.raises(InputError, match=rf"row {pair.id}: the format {shape} cannot hold it \(.*{why}"):
        write_pairs([pair], tmp_path / "pairs", shape)
    assert not (tmp_path / "pairs").exists()


def test_a_score_on_another_scale_is_a_weight_of_unknown_relevance(tmp_path):
    (pair,), _ = read_one(tmp_path, "mmedpo", MMEDPO | {"weighted_score": 8})
    assert (pair.weight, pair.relevance) == (8.0, None)


@pytest.mark.parametrize("shape", ["ms_swift", "trl"])
def test_a_relevance_that_no_one_knows_is_not_written(tmp_path, shape):
    pair = Pair("6", (), "What is a nodule?", "A spot", "A bone", 0.5)
    path = write_pairs([pair], tmp_path / "pairs", shape)
    assert "relevance" not in json.loads(path.read_text())
    assert read(path, shape) == ([pair], {})


WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map(str.strip).filter(
    lambda text: text and "<" not in text
)  # fmt: skip
NAMES = WORDS.filter(lambda text: "://" not in text and not text.startswith(("file:", "data:")))


@st.composite
def pairs_of_turns(draw):
    """A pair whose questions each hold images, words, and images between words."""
    pieces = st.lists(st.one_of(st.none(), WORDS), min_size=1, max_size=4).filter(
        lambda parts: all(one is None or other is None for one, other in pairwise(parts))
    )  # fmt: skip
    turns = []
    for _ in range(draw(st.integers(1, 3))):
        blocks = [PICTURE if part is None else words(part) for part in draw(pieces)]
        turns += [{"role": "user", "content": blocks}, *assistant_turn(draw(WORDS))]
    number = sum(block["type"] == "image" for turn in turns for block in turn["content"])
    question, beyond = words_of(turns[:-1], number)
    images = st.lists(NAMES.map(RecordImage), min_size=number, max_size=number).map(tuple)
    return Pair(
        draw(WORDS), draw(images), question, draw(WORDS), draw(WORDS), draw(st.floats(0, 2)),
        draw(st.one_of(st.just(()), images)), draw(st.floats(0, 1)), beyond, draw(st.one_of(st.none(), WORDS)),
    )  # fmt: skip


@given(st.lists(pairs_of_turns(), min_size=1, max_size=4), st.sampled_from(FORMATS))
def test_any_words_and_turns_survive_the_round_trip(tmp_path_factory, pairs, shape):
    path = tmp_path_factory.mktemp("trip") / "pairs"
    held = [unscored(pair) for pair in pairs] if shape == "llava" else pairs
    assert read(write_pairs(pairs, path, shape), shape) == (held, {})


def test_an_mmedpo_record_is_written_as_it_was_read(tmp_path):
    (tmp_path / "in.json").write_text(json.dumps([MMEDPO]))
    (pair,), _ = read(tmp_path / "in.json", "mmedpo")
    (again,) = json.loads(write_pairs([pair], tmp_path / "out.json", "mmedpo").read_text())
    assert set(again) == {*MMEDPO, "relevance"}
    assert again["weighted_score"] == again["relevance"] == 0.8
    assert again["conversations"][0] == MMEDPO["conversations"][0]


def test_a_survey_counts_what_is_weak():
    same = Pair("4", named("c.png"), "Is it?", "Yes", "Yes", 0.0)
    yes = Pair("5", named("c.png"), "Is it?", "Yes", "Yes, it is, which contradicts the truth", 0.5)
    counted = survey([TEXT, IMAGE, same, yes])
    assert (counted["pairs"], counted["identical"], counted["repeated"]) == (4, 1, 1)
    assert (counted["contains_truth"], counted["same_polarity"], counted["meta_text"]) == (1, 1, 1)
    assert counted["weights"]["zero"] == 1


def test_an_image_side_pair_is_not_identical():
    assert not IMAGE.is_identical
    assert Pair("6", named("a.png"), "?", "Yes", "Yes", 1.0, named("a.png")).is_identical


@needs_mmedpo
def test_the_released_slake_pairs_have_their_known_blemishes():
    pairs, faults = read(DATA / "slake_dpo_weighted.json", "mmedpo")
    counted = survey(pairs)
    assert faults == {}
    assert (counted["pairs"], counted["identical"], counted["repeated"]) == (4919, 5, 7)
    assert counted["weights"]["zero"] == 78
    assert counted["brevity"]["rejected_longer"] == pytest.approx(0.94, abs=0.005)
    assert counted["brevity"]["shortcut_accuracy"] > 0.95


@needs_mmedpo
def test_the_released_slake_pairs_survive_a_round_trip_through_every_format(tmp_path):
    pairs, _ = read(DATA / "slake_dpo_weighted.json", "mmedpo")
    for shape in ("mmedpo", "ms_swift", "trl"):
        assert read(write_pairs(pairs[:500], tmp_path / shape, shape), shape) == (pairs[:500], {})
