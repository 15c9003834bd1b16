import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.reading.assertion import lowered, lowered_assertions


def said(sentence, *phrases):
    """What the sentence says of each phrase (letters in capitals by default)."""
    spans = [m.span() for m in re.finditer("|".join(phrases) or r"\b[A-Z]\b", sentence)]
    return lowered_assertions(lowered(sentence), spans)


@pytest.mark.parametrize(
    ("sentence", "polarities"),
    [
        ("no A or B", ["absent", "absent"]),
        ("A but no B", ["present", "absent"]),
        ("no A; B", ["absent", "present"]),
        ("A without B or C", ["present", "absent", "absent"]),
        ("A and B have resolved", ["absent", "absent"]),
        ("A, which has resolved, and B", ["present", "present"]),
        ("there is A, the B has resolved", ["present", "absent"]),
        ("history of A", [None]),
        ("history of possible A", [None]),
        ("no change in A", ["present"]),
        ("not absent A", ["present"]),
        ("A versus B, C", ["uncertain", "uncertain", "present"]),
        ("A, B versus C", ["present", "uncertain", "uncertain"]),
        ("A may represent B", ["present", "uncertain"]),
        ("no A suspicious for B", ["absent", "uncertain"]),
        ("no findings suspicious for A", ["absent"]),
        ("no A, B cannot be excluded", ["absent", "uncertain"]),
        ("A may be due to B", ["present", "uncertain"]),
        ("no A due to B", ["absent", "present"]),
    ],
)
def test_cues_reach_as_far_as_their_clause(sentence, polarities):
    assert [a.polarity for a in said(sentence)] == polarities


def test_the_cue_that_decided_is_named():
    assert [a.cue for a in said("no A, B cannot be excluded but C")] == ["no", "cannot be excluded", ""]


def test_a_denial_of_one_kind_is_restricted():
    assert [a.restricted for a in said("no large A, B or new C")] == [True, False, True]


def test_without_spans_nothing_is_said():
    assert lowered_assertions("no effusion", []) == []


@given(st.text(), st.data())
def test_every_span_of_any_text_gets_an_assertion(text, data):
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    spans = list(zip(cuts[::2], cuts[1::2], strict=False))
    assert len(lowered_assertions(lowered(text), spans)) == len(spans)


@given(st.text())
def test_lowering_keeps_every_character_in_its_place(text):
    assert len(lowered(text)) == len(text)
