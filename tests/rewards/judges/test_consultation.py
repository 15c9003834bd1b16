"""PulseMind's dialogue formats read, replayed and judged."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.config.input_error import InputError
from rewards.judges.consultation import (
    Consultation,
    Turn,
    Unread,
    image_files,
    read_cmtmedqa,
    read_dialogue,
    read_meddiagnose,
    replay,
    transcript,
)
from rewards.judges.consultation_judge import consultation_pairs, judge_consultations
from rewards.judges.judging import DIMENSIONS
from rewards.ratings.tally import Tally, tally

FIGURE = (
    "Patient: My chest hurts. <image1,2>\nSince Monday.\nDoctor: Do you cough?\nPatient: Yes <image3>.\nDoctor: Rest."
)
CHINESE = "患者：胸口疼 <attachment>a1,b2<attachment>\n医生：咳嗽吗？\n患者：是的\n医生：多休息。"


def test_the_format_of_the_paper_is_read():
    assert read_dialogue(FIGURE) == (
        Turn("patient", "My chest hurts. \nSince Monday.", ("1", "2")), Turn("doctor", "Do you cough?"),
        Turn("patient", "Yes .", ("3",)), Turn("doctor", "Rest."),
    )  # fmt: skip


def test_the_format_of_meddiagnose_is_read_with_full_width_punctuation():
    assert read_dialogue(CHINESE) == (
        Turn("patient", "胸口疼", ("a1", "b2")), Turn("doctor", "咳嗽吗？"),
        Turn("patient", "是的"), Turn("doctor", "多休息。"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "speakers", "images", "answered"),
    [
        ("Patient: a\nPatient: b\nDoctor: c", "ppd", (), [2]),
        ("Doctor: hello\nPatient: a\nDoctor: b", "dpd", (), [2]),
        ("Patient: a\nDoctor: b\nPatient: bye", "pdp", (), [1]),
        ("Patient: a\nDoctor: b\nPatient: see <image7>\nDoctor: c", "pdpd", ("7",), [1, 3]),
        ("Patient: <image1> again <image1>\nDoctor: b", "pd", ("1", "1"), [1]),
        ("Patient: <attachment>x,y</attachment><attachment>z<attachment>\nDoctor: b", "pd", ("x", "y", "z"), [1]),
        ("**Patient:** a\n  doctor : b", "pd", (), [1]),
        ("Patient: the doctor: said so\nDoctor: b", "pd", (), [1]),
        ("Doctor: only me", "d", (), []),
    ],
)
def test_dialogues_of_every_shape_are_read(text, speakers, images, answered):
    found = Consultation("x", read_dialogue(text))
    assert "".join(turn.speaker[0] for turn in found.turns) == speakers
    assert tuple(name for turn in found.turns for name in turn.images) == images
    assert found.doctor_turns == answered


@pytest.mark.parametrize(
    ("text", "reason"), [("", "no speaker"), ("Hello\nPatient: a", "before the first"), ("x", "no")]
)
def test_what_is_no_dialogue_says_why(text, reason):
    with pytest.raises(ValueError, match=reason):
        read_dialogue(text)


WORDS = st.text("abc 是。?", min_size=1, max_size=20).map(str.strip).filter(bool)


@given(st.lists(st.tuples(st.sampled_from(["patient", "doctor"]), WORDS, st.lists(st.sampled_from("123"), max_size=2))))
def test_a_transcript_reads_back(spoken):
    turns = tuple(Turn(speaker, text, tuple(images)) for speaker, text, images in spoken)
    assert not turns or read_dialogue(transcript(turns)) == turns


@given(st.text())
def test_any_text_is_read_or_refused(text):
    try:
        turns = read_dialogue(text)
    except ValueError:
        return
    assert all(turn.text or turn.images for turn in turns)


def test_a_csv_of_consultations_gives_each_row_or_its_reason(tmp_path):
    file = tmp_path / "x.csv"
    file.write_text(f'Id,Response\nc1,"{FIGURE}"\nc2,\n,"Patient: a"\n', encoding="utf-8-sig")
    found = list(read_meddiagnose(file))
    assert found[0] == Consultation("c1", read_dialogue(FIGURE))
    assert found[1] == Unread("c2", "no speaker is named")
    assert found[2].id == "row 3"


def test_a_json_of_consultations_gives_each_record_or_its_reason(tmp_path):
    file = tmp_path / "x.json"
    good = {"instruction": "q2", "output": "a2", "cate1": "x", "history": [["q1", "a1"]]}
    file.write_text(
        json.dumps(
            [good, {"instruction": "q", "output": ""}, 3, {**good, "history": [["q1"]]}, {**good, "history": None}]
        )
    )
    found = list(read_cmtmedqa(file))
    assert transcript(found[0].turns) == "Patient: q1\nDoctor: a1\nPatient: q2\nDoctor: a2"
    assert [type(one) for one in found] == [Consultation, Unread, Unread, Unread, Consultation]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("x.csv", b"Id,answer\n1,2\n", "expected columns Id and Response, got Id, answer"),
        ("x.csv", b"", "it is empty"),
        ("x.csv", "Id,Response\n1,患者".encode("gb18030"), "not UTF-8"),
        ("x.json", b"[{", "not JSON"),
        ("x.json", b"{}", "expected a list"),
        ("gone.json", None, "no such file"),
    ],
)
def test_a_file_that_is_none_is_one_clear_error(tmp_path, name, content, complaint):
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        list((read_meddiagnose if name.endswith("csv") else read_cmtmedqa)(file))


def test_images_are_found_in_the_case_or_the_root_and_never_outside(tmp_path):
    root = tmp_path / "images"
    (root / "c1").mkdir(parents=True)
    for place in (root / "c1" / "1.png", root / "2.jpg", tmp_path / "secret.png"):
        place.write_bytes(b"x")
    assert image_files(Consultation("c1", (Turn("patient", "a", ("1", "2", "1")),)), root) == {
        "1": root / "c1" / "1.png", "2": root / "2.jpg",
    }  # fmt: skip
    for name in ("3", "../secret", "../../secret"):
        with pytest.raises(InputError, match="no image"):
            image_files(Consultation("c1", (Turn("patient", "a", (name,)),)), root)


REAL = Consultation("c1", read_dialogue(FIGURE))


def replayed(*answers):
    left = list(answers)
    return replay(REAL, lambda said: left.pop(0))


def test_a_replay_keeps_the_patients_turns_and_the_models_own_replies():
    shown = []
    found = replay(REAL, lambda said: shown.append(transcript(said)) or f"reply {len(shown)}")
    assert [turn.text for turn in found.turns if turn.speaker == "doctor"] == ["reply 1", "reply 2"]
    assert "reply 1" in shown[1]
    assert "Do you cough?" not in shown[1]
    assert found.turns[2] == REAL.turns[2]


def test_by_turn_each_answer_is_judged_after_the_real_dialogue_with_the_images_seen_so_far():
    images = {name: name.encode() for name in "123"}
    pairs = consultation_pairs(REAL, replayed("a", "b"), replayed("c", "d"), unit="turn", images=images)
    assert [(p.first, p.second, p.case.reference) for p in pairs] == [("a", "c", "Do you cough?"), ("b", "d", "Rest.")]
    assert [p.case.images for p in pairs] == [(b"1", b"2"), (b"1", b"2", b"3")]
    assert pairs[1].case.question == transcript(REAL.turns[:3])


def test_as_a_whole_the_transcripts_are_judged_against_the_real_one():
    (pair,) = consultation_pairs(REAL, replayed("a", "b"), replayed("c", "d"), unit="whole")
    assert "Doctor: a" in pair.first
    assert "Doctor: d" in pair.second
    assert pair.case.reference == transcript(REAL.turns)
    assert "Doctor" not in pair.case.question
    assert pair.case.images == ()


def test_of_a_whole_replay_no_answer_is_judged_with_its_thinking():
    aloud = replayed("<think>Flu?</think>a", "<think>Or worse?</think>b")
    (pair,) = consultation_pairs(REAL, aloud, replayed("c", "d"), unit="whole")
    assert pair == consultation_pairs(REAL, replayed("a", "b"), replayed("c", "d"), unit="whole")[0]


def test_a_replay_of_another_consultation_is_refused():
    other = Consultation("c2", REAL.turns)
    with pytest.raises(InputError, match="a replay of 'c2'"):
        consultation_pairs(REAL, other, REAL, unit="turn")


class Longer:
    """Prefers the longer answer; has no verdict where both say "?"."""

    calls_left = None

    async def compare(self, pairs):
        return [
            None
            if p.first == p.second == "?"
            else dict.fromkeys(
                DIMENSIONS, 0.5 + 0.5 * ((len(p.first) > len(p.second)) - (len(p.first) < len(p.second)))
            )
            for p in pairs
        ]

    def num_calls(self, pairs):
        return len(pairs)


@pytest.mark.parametrize(
    ("ours", "theirs", "score"),
    [
        (("long", "long"), ("x", "x"), 1.0), (("long", "x"), ("x", "long"), 0.5), (("x", "x"), ("x", "x"), 0.5),
        (("?", "long"), ("?", "x"), 1.0), (("?", "?"), ("?", "?"), None),
    ],
)  # fmt: skip
def test_a_consultation_scores_the_mean_of_its_judged_turns(ours, theirs, score):
    pairs = consultation_pairs(REAL, replayed(*ours), replayed(*theirs), unit="turn")
    assert asyncio.run(judge_consultations(Longer(), [pairs])) == [score]


def test_half_the_turns_unjudged_may_be_too_many():
    pairs = consultation_pairs(REAL, replayed("?", "long"), replayed("?", "x"), unit="turn")
    assert asyncio.run(judge_consultations(Longer(), [pairs, pairs], min_valid=0.6)) == [None, None]


def test_the_tally_keeps_ties_and_failures_apart():
    found = tally([1.0, 0.75, 0.5, 0.0, None])
    assert found == Tally(2, 1, 1, 1)
    assert found.win_rate == 0.4
    assert found.score[0] == 0.625
    assert found.score[1] < 0.625 < found.score[2]
    assert str(tally([]).win_rate) == "nan"


def test_the_published_average_is_reproduced():
    """Table 4: the mean of (84.0, 68.0) is 76.0; a rate is wins over all rows."""
    first, second = tally([1.0] * 84 + [0.0] * 10 + [None] * 6), tally([1.0] * 68 + [0.5] * 32)
    assert (first.win_rate + second.win_rate) / 2 == pytest.approx(0.76)
