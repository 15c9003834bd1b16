import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_builders.formats.preference_formats import FORMATS, Pair, read_pairs, survey, write_pairs
from rewards.config.input_error import InputError

DATA = Path(os.environ.get("CLINALIGN_DATA", Path(__file__).parents[4] / "shared" / "data")) / "mmedpo"
needs_mmedpo = pytest.mark.skipif(not DATA.is_dir(), reason="MMedPO's released pairs are absent (set CLINALIGN_DATA)")
TEXT = Pair("0", ("xmlab1/source.jpg",), "What modality is used?", "MRI", "This is an X-ray", 0.8, relevance=0.8)
IMAGE = Pair("1", ("a.png",), "Is there a nodule?", "Yes", "Yes", 1.25, ("a-noised.png",), relevance=0.5)
BARE = Pair("2", (), "What is a nodule?", "A spot", "A bone", 1.0, relevance=0.0)
SEVERAL = Pair(
    "3", ("a.png", "b.png"), "What changed?", "Nothing", "A mass grew", 1.0, ("a.png", "b-noised.png"), relevance=0.7
)


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


def read_one(tmp_path, shape, record):
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps([record]))
    return read_pairs(path, shape)


def test_mmedpos_own_record_is_read(tmp_path):
    pairs, faults = read_one(tmp_path, "mmedpo", MMEDPO)
    assert pairs == [TEXT]
    assert faults == {}


def test_a_llava_record_with_a_rejected_image_weighs_one(tmp_path):
    record = {key: value for key, value in MMEDPO.items() if key != "weighted_score"}
    (pair,), _ = read_one(tmp_path, "llava", record | {"rejected_image": "noised.jpg"})
    assert (pair.weight, pair.rejected_images) == (1.0, ("noised.jpg",))


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
        "Is there a nodule?", "Yes", rejected, others,
    )  # fmt: skip


def test_trls_columns_are_read_as_strings_and_as_messages(tmp_path):
    (pair,), _ = read_one(tmp_path, "trl", TRL)
    assert (pair.question, pair.chosen, pair.rejected, pair.images) == ("Is there a nodule?", "Yes", "No", ("a.png",))


@pytest.mark.parametrize(
    ("shape", "record", "says"),
    [
        ("mmedpo", {k: v for k, v in MMEDPO.items() if k != "weighted_score"}, "no 'weighted_score'"),
        ("mmedpo", MMEDPO | {"weighted_score": "0.8"}, "'weighted_score' is str"),
        ("mmedpo", MMEDPO | {"weighted_score": True}, "'weighted_score' is bool"),
        ("mmedpo", MMEDPO | {"rejected_noised": 1}, "pure noise"),
        ("mmedpo", MMEDPO | {"chosen_noised": 1}, "pure noise"),
        ("mmedpo", MMEDPO | {"image": 5}, "'image' is not a file name"),
        ("mmedpo", MMEDPO | {"conversations": []}, "does not hold two turns"),
        ("mmedpo", MMEDPO | {"conversations": [{"from": "gpt"}, {"from": "human"}]}, "not from human, then gpt"),
        ("mmedpo", MMEDPO | {"conversations": [{"from": "human"}, {"from": "gpt"}]}, "without 'value'"),
        ("mmedpo", MMEDPO | {"rejected_conversations": conversation("Other?", "x")}, "different questions"),
        ("mmedpo", "not a record", "expected an object, got str"),
        ("ms_swift", MS_SWIFT, "no 'rejected_images'"),
        ("trl", {k: v for k, v in TRL.items() if k != "chosen"}, "no 'chosen'"),
        ("trl", TRL | {"rejected": []}, "does not hold one turn"),
        ("trl", TRL | {"rejected": [{"role": "assistant"}]}, "neither text nor content blocks"),
        ("trl", TRL | {"weight": "heavy"}, "'weight' is str"),
        ("trl", TRL | {"relevance": 8}, "'relevance' is 8, outside 0 to 1"),
        ("mmedpo", MMEDPO | {"relevance": "high"}, "'relevance' is str"),
    ],
)
def test_a_record_that_cannot_be_read_is_told_by_its_place(tmp_path, shape, record, says):
    pairs, faults = read_one(tmp_path, shape, record)
    assert pairs == []
    assert says in faults[0]


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
    pairs = [TEXT, IMAGE, BARE, SEVERAL]
    back, faults = read_pairs(write_pairs(pairs, tmp_path / "pairs", shape), shape)
    assert faults == {}
    unscored = {"weight": 1.0, "relevance": None}
    assert [{**vars(p), **unscored} for p in back] == [{**vars(p), **unscored} for p in pairs]
    if shape == "llava":  # it has no place for a weight
        assert {(pair.weight, pair.relevance) for pair in back} == {(1.0, None)}
    else:
        assert back == pairs


def test_a_score_on_another_scale_is_a_weight_of_unknown_relevance(tmp_path):
    (pair,), _ = read_one(tmp_path, "mmedpo", MMEDPO | {"weighted_score": 8})
    assert (pair.weight, pair.relevance) == (8.0, None)


@pytest.mark.parametrize("shape", ["ms_swift", "trl"])
def test_a_relevance_that_no_one_knows_is_not_written(tmp_path, shape):
    pair = Pair("6", (), "What is a nodule?", "A spot", "A bone", 0.5)
    path = write_pairs([pair], tmp_path / "pairs", shape)
    assert "relevance" not in json.loads(path.read_text())
    assert read_pairs(path, shape) == ([pair], {})


SAID = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map(str.strip).filter(
    lambda text: text and "<image>" not in text
)  # fmt: skip
PAIRS = st.builds(
    Pair, id=SAID, images=st.lists(SAID, max_size=2).map(tuple), question=SAID, chosen=SAID, rejected=SAID,
    weight=st.floats(0, 2), rejected_images=st.just(()), relevance=st.floats(0, 1),
)  # fmt: skip


@given(st.lists(PAIRS, min_size=1, max_size=4), st.sampled_from(["mmedpo", "ms_swift", "trl"]))
def test_any_words_survive_the_round_trip(tmp_path_factory, pairs, shape):
    path = tmp_path_factory.mktemp("trip") / "pairs"
    assert read_pairs(write_pairs(pairs, path, shape), shape) == (pairs, {})


def test_an_mmedpo_record_is_written_as_it_was_read(tmp_path):
    (tmp_path / "in.json").write_text(json.dumps([MMEDPO]))
    (pair,), _ = read_pairs(tmp_path / "in.json", "mmedpo")
    (again,) = json.loads(write_pairs([pair], tmp_path / "out.json", "mmedpo").read_text())
    assert set(again) == {*MMEDPO, "relevance"}
    assert again["weighted_score"] == again["relevance"] == 0.8
    assert again["conversations"][0] == MMEDPO["conversations"][0]


def test_a_survey_counts_what_is_weak():
    same = Pair("4", ("c.png",), "Is it?", "Yes", "Yes", 0.0)
    yes = Pair("5", ("c.png",), "Is it?", "Yes", "Yes, it is, which contradicts the truth", 0.5)
    counted = survey([TEXT, IMAGE, same, yes])
    assert (counted["pairs"], counted["identical"], counted["repeated"]) == (4, 1, 1)
    assert (counted["contains_truth"], counted["same_polarity"], counted["meta_text"]) == (1, 1, 1)
    assert counted["weights"]["zero"] == 1


def test_an_image_side_pair_is_not_identical():
    assert not IMAGE.is_identical
    assert Pair("6", ("a.png",), "?", "Yes", "Yes", 1.0, ("a.png",)).is_identical


@needs_mmedpo
def test_the_released_slake_pairs_have_their_known_blemishes():
    pairs, faults = read_pairs(DATA / "slake_dpo_weighted.json", "mmedpo")
    counted = survey(pairs)
    assert faults == {}
    assert (counted["pairs"], counted["identical"], counted["repeated"]) == (4919, 5, 7)
    assert counted["weights"]["zero"] == 78
    assert counted["brevity"]["rejected_longer"] == pytest.approx(0.94, abs=0.005)
    assert counted["brevity"]["shortcut_accuracy"] > 0.95


@needs_mmedpo
def test_the_released_slake_pairs_survive_a_round_trip_through_every_format(tmp_path):
    pairs, _ = read_pairs(DATA / "slake_dpo_weighted.json", "mmedpo")
    for shape in ("mmedpo", "ms_swift", "trl"):
        assert read_pairs(write_pairs(pairs, tmp_path / shape, shape), shape) == (pairs, {})
