"""What radiologists write, by hand: each line a sentence of our own, the finding, and how it must be read."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.reading.reading import MAX_CHARACTERS, read
from rewards.rules.rule_set import load_rule_set

PHANTOM = load_rule_set("chest_xray")
RULES = load_rule_set("chest_report")

NEGATION = """
There is no evidence of pneumothorax. | pneumothorax | absent
No radiographic evidence of an effusion. | effusion | absent
The lungs are free of consolidation. | consolidation | absent
Clear of infiltrate. | infiltrate | absent
Negative for pneumothorax. | pneumothorax | absent
Lungs are expanded without focal consolidation. | consolidation | absent
Absence of pleural effusion. | effusion | absent
The heart is not enlarged. | cardiomegaly | absent
The heart is mildly enlarged. | cardiomegaly | present
Neither effusion nor pneumothorax. | pneumothorax | absent
Neither effusion nor pneumothorax. | effusion | absent
This is scarring rather than consolidation. | consolidation | absent
This is scarring rather than consolidation. | scarring | present
Scar instead of a nodule. | nodule | absent
The study fails to show a nodule. | nodule | absent
Pneumonia has been ruled out. | pneumonia | absent
We cannot identify a nodule. | nodule | absent
There is no doubt that a nodule is present. | nodule | present
Not only a nodule but also an effusion. | nodule | present
Not only a nodule but also an effusion. | effusion | present
Resolution of the effusion. | effusion | absent
Cardiomegaly without edema. | cardiomegaly | present
Cardiomegaly without edema. | edema | absent
"""
AFTER = """
The pneumothorax has resolved. | pneumothorax | absent
The effusions have since completely resolved. | effusion | absent
The pneumothorax has not resolved. | pneumothorax | present
Partial resolution of the effusion. | effusion | present
The left effusion is no longer seen. | effusion | absent
Pleural effusion is absent. | effusion | absent
Pneumothorax and effusion are absent. | pneumothorax | absent
A nodule was not identified. | nodule | absent
Consolidation is not visualized. | consolidation | absent
Pneumothorax: none. | pneumothorax | absent
Effusion: no. | effusion | absent
Right shoulder: negative for fracture. | fracture | absent
The nodule seen previously has cleared. | nodule | absent
The pneumonia is now resolved. | pneumonia | absent
The nodule is not well seen. | nodule | present
An effusion not seen on the prior study. | effusion | present
"""
CHANGE = """
No change in the effusion. | effusion | present
No significant interval change in the left nodule. | nodule | present
Stable cardiomegaly. | cardiomegaly | present
The nodule is unchanged. | nodule | present
The effusion has not significantly changed. | effusion | present
Without change in the opacity. | opacity | present
The consolidation has improved. | consolidation | present
No increase in the pneumothorax. | pneumothorax | present
"""
DOUBT = """
Pneumonia cannot be excluded. | pneumonia | uncertain
Pneumonia cannot be completely excluded. | pneumonia | uncertain
Cannot exclude a small effusion. | effusion | uncertain
A nodule is not excluded. | nodule | uncertain
It is difficult to exclude an infiltrate. | infiltrate | uncertain
Possible small effusion. | effusion | uncertain
Findings may represent edema. | edema | uncertain
There may be a nodule. | nodule | uncertain
Opacity which could be pneumonia. | pneumonia | uncertain
Opacity which could be pneumonia. | opacity | present
Opacity suspicious for pneumonia. | opacity | present
Opacity suspicious for pneumonia. | pneumonia | uncertain
Concerning for pneumonia. | pneumonia | uncertain
Atelectasis versus infiltrate. | atelectasis | uncertain
Atelectasis versus infiltrate. | infiltrate | uncertain
Streaky opacity, atelectasis versus infiltrate. | opacity | present
Probable scarring. | scarring | uncertain
Effusion is suspected. | effusion | uncertain
A nodule is unlikely. | nodule | uncertain
Nodule? | nodule | uncertain
?Pneumothorax | pneumothorax | uncertain
No findings suspicious for pneumonia. | pneumonia | absent
No effusion, possible nodule. | nodule | uncertain
No effusion, possible nodule. | effusion | absent
Possible nodule without effusion. | effusion | absent
Rule out pneumothorax. | pneumothorax | uncertain
This may be due to atelectasis or edema. | edema | uncertain
Opacity compatible with pneumonia. | pneumonia | present
"""
LISTS = """
No focal consolidation, pleural effusion, or pneumothorax. | consolidation | absent
No focal consolidation, pleural effusion, or pneumothorax. | pneumothorax | absent
No nodule or mass, stable cardiomegaly. | cardiomegaly | present
No nodule or mass, stable cardiomegaly. | mass | absent
No effusion but a nodule. | nodule | present
No effusion, however there is a nodule. | nodule | present
No effusion and there is mild atelectasis. | atelectasis | present
No pneumothorax is seen, left basal scarring. | scarring | present
No effusion with mild atelectasis. | atelectasis | present
No abnormality except for a granuloma. | granuloma | present
No mass other than the calcified granuloma. | granuloma | present
Nodule, no effusion. | nodule | present
Effusion without pneumothorax, nodule, or mass. | mass | absent
No evidence of effusion
or pneumothorax. | pneumothorax | absent
"""
MENTIONED = """
History of pneumonia. | pneumonia | -
Evaluate for pneumothorax. | pneumothorax | -
INDICATION: Rule out effusion. FINDINGS: Clear. | effusion | -
Clinical history: nodule. | nodule | -
COMPARISON: Film with effusion. IMPRESSION: Effusion on the left. | effusion | present
Reason for exam: pneumonia. Findings: No pneumonia. | pneumonia | absent
FINDINGS: Small nodule. IMPRESSION: Nodule. | nodule | present
TECHNIQUE: Two views. Findings: Cardiomegaly. | cardiomegaly | present
If there is concern for fracture, repeat the film. | fracture | -
The subject is not named. | nodule | -
Pericardial effusion. | effusion | -
"""
KINDS = """
Small effusion. No large effusion. | effusion | present
No new nodule. Stable nodule in the left lung. | nodule | present
No large effusion. | effusion | absent
No effusion on the right. Effusion on the left. | effusion | present
Effusion. No effusion. | effusion | uncertain
"""


def cases(*tables):
    for table in tables:
        for line in table.strip().replace("\nor ", "\\nor ").splitlines():
            text, finding, polarity = (part.strip() for part in line.split(" | "))
            yield text.replace("\\n", "\n"), finding, polarity


@pytest.mark.parametrize(
    ("text", "finding", "polarity"), list(cases(NEGATION, AFTER, CHANGE, DOUBT, LISTS, MENTIONED, KINDS))
)
def test_prose_is_read_as_written(text, finding, polarity):
    found = read(text, RULES).facts.findings.get(finding)
    assert (found.polarity if found else "-") == polarity


@pytest.mark.parametrize(
    ("text", "finding", "side"),
    [
        ("Right-sided pleural effusion.", "effusion", "right"),
        ("Nodule in the left lower lobe.", "nodule", "left"),
        ("Nodule, left upper lobe.", "nodule", "left"),
        ("LLL pneumonia.", "pneumonia", "left"),
        ("Bilateral pleural effusions.", "effusion", "bilateral"),
        ("Effusions on both sides.", "effusion", "bilateral"),
        ("Effusion in the left and right pleural space.", "effusion", "bilateral"),
        ("Left and right pleural effusions.", "effusion", "bilateral"),
        ("Nodule on the left and right effusion.", "nodule", "left"),
        ("Both a nodule and an effusion.", "nodule", None),
        ("Nodules in both lungs.", "nodule", "bilateral"),
        ("Nodules in both upper lobes.", "nodule", "bilateral"),
        ("Bibasilar atelectasis.", "atelectasis", "bilateral"),
        ("Effusion on the left. Effusion on the right.", "effusion", "bilateral"),
        ("Small left effusion and right basilar atelectasis.", "effusion", "left"),
        ("Small left effusion and right basilar atelectasis.", "atelectasis", "right"),
        ("Left nodule, effusion on the right.", "nodule", "left"),
        ("On the left, there is a nodule.", "nodule", "left"),
        ("A nodule.", "nodule", None),
    ],
)
def test_sides_are_the_finding_s_own(text, finding, side):
    found = read(text, RULES).facts.findings[finding]
    assert (found.polarity, found.side) == ("present", side)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("Small left effusion.", "small"),
        ("Effusion, large, on the left.", "large"),
        ("Small nodule and large effusion.", "large"),
        ("An effusion of 3 cm.", None),
    ],
)
def test_sizes_are_the_finding_s_own(text, size):
    assert read(text, RULES).facts.findings["effusion"].size == size


def test_both_sides_are_said_to_be_both_where_a_rule_set_knows_only_one():
    assert read("Bilateral effusions.", PHANTOM).facts.findings["effusion"].side == "bilateral"
    assert read("Effusion on the left. Effusion on the right.", PHANTOM).conflicts == {"effusion"}


def test_each_mention_has_its_words_and_the_cue_that_decided():
    reading = read("Pneumonia cannot be excluded. Effusion on the left. No pneumothorax.", RULES)
    assert reading.cues == {"pneumonia": ["cannot be excluded"], "effusion": [""], "pneumothorax": ["no"]}
    assert reading.evidence["pneumonia"] == ["Pneumonia cannot be excluded."]


def test_a_sentence_that_names_a_finding_without_a_claim_is_no_unread_one():
    assert read("History of pneumonia.", RULES).unread == ()


def test_phrases_leave_words_open_but_no_normal_ones():
    assert "cardiomegaly" not in read("The heart is normal and the aorta is enlarged.", RULES).facts.findings
    assert read("Heart size is now moderately enlarged.", RULES).facts.findings["cardiomegaly"].polarity == "present"


WORDS = st.sampled_from(
    re.split(
        "[|]",
        "no|not|without|effusion|nodule|left|both|possible|versus|cannot be excluded|has resolved|is absent|,|.|;|:|?|("
        "|\n|heart|enlarged|FINDINGS:|INDICATION:|history of|[[1,2,3,4]]|İ|\x85|but|with|and|or|may",
    )
)


@given(st.one_of(st.text(), st.lists(WORDS, max_size=40).map(" ".join)))
def test_any_text_is_read_and_every_mention_has_words_and_cue(text):
    reading = read(text, RULES)
    for name, finding in reading.facts.findings.items():
        assert finding.polarity in ("present", "absent", "uncertain")
        assert len(reading.evidence[name]) == len(reading.cues[name]) > 0
    assert reading.conflicts <= {n for n, f in reading.facts.findings.items() if f.polarity == "uncertain"}


HOSTILE = [
    "no ",
    "nodule ",
    "No possible ",
    "nodule, ",
    "heart ",
    "a",
    " ",
    "\n",
    "findings:",
    "clinical ",
    "? ",
    "cannot be completely ",
    "difficult to exclude      ",
    "has since now also completely ",
    "nodule versus ",
    "not significantly interval acute ",
    "#",
    ". ",
    "[",
    "(",
    "of\n",
    "left nodule and ",
    "degenerative x ",
    "İ",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_million_characters_are_read_in_time(piece):
    text = piece * (1_000_000 // len(piece)) + " nodule"
    start = time.process_time()
    read(text, PHANTOM)
    assert time.process_time() - start < 4  # about 1 s on one unloaded core


@pytest.mark.parametrize("piece", ["no nodule ", "nodule versus, ", "may not ", "heart is ", "degenerative x "])
def test_time_grows_with_length_not_with_its_square(piece):
    def seconds(characters):
        text = piece * (characters // len(piece))
        start = time.process_time()
        read(text, RULES)
        return time.process_time() - start

    seconds(1000)
    assert seconds(160_000) < 30 * max(seconds(20_000), 0.005)


def test_what_is_beyond_the_longest_text_is_unread():
    reading = read("No effusion. " + "x" * MAX_CHARACTERS + " nodule", RULES)
    assert "nodule" not in reading.facts.findings
    assert reading.unread[-1].endswith("nodule")
