import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.rules.rule_set import load_rule_set, shipped
from rewards.rules.symbols import read_symbol

MARROW, ECG = (load_rule_set(name).decision for name in ("bone_marrow", "ecg_mi"))
DECISIONS = {name: decision for name in shipped() if (decision := load_rule_set(name).decision)}

EDGES = [
    ("quality", "This image is good for diagnosis.", "high"),
    ("quality", "Perhaps suitable, perhaps not", "hedged"),
    ("quality", "Yes.", "high"),
    ("quality", "The quality is excellent", "high"),
    ("region", "No blood is seen.", "not blood"),
    ("region", "It is neither blood nor clot", "unparsed"),
    ("region", "Clot with dense particles.", "clot"),
    ("region", "Well-preserved area near particles dominated by blood", "ambiguous"),
    ("abnormality", "No signs of malignancy.", "normal"),
    ("abnormality", "No evidence of cancer; normal", "normal"),
    ("abnormality", "The image is abnormal.", "abnormal"),
    ("abnormality", "Normal.", "normal"),
    ("proliferation", "No plasma cell proliferation.", "no abnormality"),
    ("proliferation", "Blast cells are increased.", "myeloblasts"),
    ("proliferation", "Myeloblasts and plasma cells are increased.", "ambiguous"),
    ("proliferation", "I noticed something.", "unparsed"),
    ("diagnosis", "This is not AML.", "not AML"),
    ("diagnosis", "Rule out multiple myeloma.", "hedged"),
    ("diagnosis", "Immature cells are common.", "unparsed"),
    ("diagnosis", "Either AML or multiple myeloma.", "ambiguous"),
    ("diagnosis", "I cannot determine.", "refused"),
    ("diagnosis", "Acute leukemia, notable", "unparsed"),
    ("diagnosis", "Healthy.", "normal"),
    ("diagnosis", "There is no doubt this is blood cancer", "cancer"),
    ("diagnosis", "", "empty"),
    ("quality", "  \n", "empty"),
]
"""The edge table of the published matcher's mistakes; the wanted reading beside each answer."""

FURTHER = [
    ("region", "Not a clot but blood.", "blood"),
    ("region", "There is no clot, and the region is adequate.", "adequate"),
    ("region", "It is adequate, not blood.", "adequate"),
    ("region", "Blood is not seen.", "not blood"),
    ("region", "Blood: none", "not blood"),
    ("region", "You said it was blood. It is a clot.", "clot"),
    ("region", "It is blood. It is not blood.", "ambiguous"),
    ("region", "Clot?", "hedged"),
    ("region", "Perhaps: a clot.", "hedged"),
    ("region", "Perhaps, it is a clot.", "hedged"),
    ("region", "You said: it is a clot. Blood.", "blood"),
    ("region", "Negative for: blood.", "not blood"),
    ("region", "Nothing is wrong, it is blood.", "blood"),
    ("region", "Blood; a clot cannot be excluded", "ambiguous"),
    ("region", "I cannot tell. Blood.", "hedged"),
    ("region", "<think>clot? no</think><answer>Blood.</answer>", "blood"),
    ("region", "Blood.\nUSER: And the diagnosis?", "unparsed"),
    ("region", "<|im_start|>assistant blood", "unparsed"),
    ("abnormality", "No, it is normal.", "normal"),
    ("abnormality", "No.", "normal"),
    ("abnormality", "Yes, but normal.", "ambiguous"),
    ("abnormality", "Not normal.", "abnormal"),
    ("abnormality", "Not only abnormal: malignant.", "abnormal"),
    ("proliferation", "No myeloblasts but many plasma cells.", "plasma cells"),
    ("proliferation", "Blasts and plasma cells are absent.", "no abnormality"),
    ("proliferation", "Blasts are absent.", "no abnormality"),
    ("diagnosis", "AML rather than multiple myeloma.", "AML"),
    ("diagnosis", "AML, with myeloma ruled out.", "AML"),
    ("diagnosis", "Probably AML.", "hedged"),
    ("diagnosis", "ACUTE   MYELOID\nLEUKEMIA", "unparsed"),
    ("diagnosis", "Acute  myeloid leukemia", "AML"),
]


def said(reading):
    return f"not {reading.symbol}" if reading.kind == "not" else reading.symbol or reading.kind


@pytest.mark.parametrize(("node", "answer", "want"), EDGES + FURTHER)
def test_an_answer_is_read_as_a_clinician_means_it(node, answer, want):
    assert said(read_symbol(answer, MARROW.nodes[node])) == want


@pytest.mark.parametrize(
    ("answer", "want"),
    [("NSTEMI", "nstemi"), ("Not a STEMI.", "not stemi"), ("A non-STEMI.", "nstemi"), ("STEMI", "stemi")],
)
def test_a_name_inside_another_is_read_as_the_longer_one(answer, want):
    assert said(read_symbol(answer, ECG.nodes["diagnosis"])) == want


@pytest.mark.parametrize(
    ("answer", "want"),
    [
        ("Yes.", "low"),
        ("I agree.", "low"),
        ("No.", "high"),
        ("I do not agree.", "high"),
        ("No, the image is sharp.", "high"),
        ("Yes, it is sharp.", "ambiguous"),
        ("The clinician believes that it is poor.", "unparsed"),
    ],
)
def test_a_bare_yes_answers_the_claim_that_was_put(answer, want):
    assert said(read_symbol(answer, MARROW.nodes["quality"], claim="low")) == want


def templates():
    for name, decision in DECISIONS.items():
        for node_name, node in decision.nodes.items():
            for symbol, answer in node.answers.items():
                for template in (*answer.say.train, *answer.say.test):
                    yield pytest.param(node, symbol, template, id=f"{name}.{node_name}: {template}")


@pytest.mark.parametrize(("node", "symbol", "template"), list(templates()))
def test_every_shipped_template_reads_back_to_its_own_symbol(node, symbol, template):
    assert read_symbol(template, node).stated == symbol


def test_the_words_that_were_read_are_named():
    assert read_symbol("Blast cells are increased.", MARROW.nodes["proliferation"]).words == ("Blast cells",)


@pytest.mark.parametrize(
    "hostile",
    [
        "no ",
        "blood ",
        "not a blood clot and ",
        "\n",
        ", it ",
        "blood, ",
        "cannot ",
        "yes ",
        "\n user",
        "?! ",
        "ab" * 50,
        "and the ",
    ],
)
def test_a_hostile_text_is_read_in_linear_time(hostile):
    node = MARROW.nodes["region"]

    def seconds(size):
        text = (hostile * (size // len(hostile) + 1))[:size]
        started = time.process_time()
        read_symbol(text, node)
        return time.process_time() - started

    seconds(1000)
    # Eight times the text: a quadratic reader would take 64 times as long.
    assert min(seconds(160_000) for _ in range(2)) < 30 * max(seconds(20_000), 0.002)


@settings(deadline=None)
@given(st.text(), st.sampled_from(list(MARROW.nodes)))
def test_any_text_is_read_the_same_twice(text, name):
    node = MARROW.nodes[name]
    reading = read_symbol(text, node)
    assert reading == read_symbol(text, node)
    assert (reading.symbol is not None) == (reading.kind in ("symbol", "not"))


@settings(deadline=None)
@given(st.sampled_from(["AML", "multiple myeloma", "normal", "inconclusive"]), st.sampled_from(["AML", "myeloma"]))
def test_naming_two_symbols_never_states_one(first, second):
    if {first, second} not in ({"AML"}, {"multiple myeloma", "myeloma"}):
        assert read_symbol(f"It is {first}. It is {second}.", MARROW.nodes["diagnosis"]).stated is None
