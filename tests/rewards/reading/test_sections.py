import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.reading.sections import asserting, sentences


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Effusion.", ["Effusion."]),
        ("INDICATION: Cough. FINDINGS: Clear. Nodule.", ["Clear.", "Nodule."]),
        ("History: mass\nImpression: Clear", ["Clear"]),
        ("Reason for exam: fall.\nFINDINGS:\nFracture.", ["Fracture."]),
        ("**Clinical information**: x\n**Findings:** Clear.", ["** Clear."]),
        ("Comparison: none. Clear lungs.", []),
        ("Effusion: small.", ["Effusion: small."]),
        ("No evidence of\nmass", ["No evidence of mass"]),
        ("No mass\nor nodule", ["No mass or nodule"]),
        ("No mass\nNodule", ["No mass", "Nodule"]),
        ("no mass\nnodule", ["no mass", "nodule"]),
        (
            "The heart is of normal size and there is no sign of an acute\nprocess. Clear.",
            ["The heart is of normal size and there is no sign of an acute process.", "Clear."],
        ),
        ("A nodule of 3.7 cm. No mass.", ["A nodule of 3.7 cm.", "No mass."]),
    ],
)
def test_sentences_of_what_is_asserted(text, told):
    assert list(sentences(text)) == told


@given(st.text())
def test_a_text_without_a_colon_is_asserted_whole(text):
    bare = text.replace(":", "")
    assert list(asserting(bare)) == [bare]
