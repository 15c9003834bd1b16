"""The parser for what models really return, asking again, and the checks on items."""

import asyncio
import json
import time
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_builders.curriculum.item_checks import ItemChecks, contradicts, leak, similarity, source_word
from rewards.llm.client import LlmClient, LlmStop, ask
from rewards.llm.item_lists import Item, ask_for_items, is_refusal, parse_items
from rewards.rules.facts import Facts, Finding
from tests.rewards.scripted import Scripted

ONE = [Item("Is there fluid?", "No, none.")]
TWO = [*ONE, Item("Which stage?", "Intermediate.")]

FORMS = {
    "two lines": "1. Q: Is there fluid?\nA: No, none.\n\n2. Q: Which stage?\nA: Intermediate.",
    "one line": "1. Q: Is there fluid? A: No, none.\n2. Q: Which stage? A: Intermediate.",
    "round brackets": "1) Q: Is there fluid?\n   A: No, none.\n2) Q: Which stage?\n   A: Intermediate.",
    "indented": "  1. Q: Is there fluid?\n     A: No, none.\n  2. Q: Which stage?\n     A: Intermediate.",
    "bold numbers": "**1.** Q: Is there fluid?\nA: No, none.\n**2.** Q: Which stage?\nA: Intermediate.",
    "bold labels": "1. **Q:** Is there fluid?\n   **A:** No, none.\n2. **Q:** Which stage?\n   **A:** Intermediate.",
    "bold items": "1. **Q: Is there fluid?**\n   **A:** No, none.\n2. **Q: Which stage?**\n   **A:** Intermediate.",
    "numbered labels": "Q1: Is there fluid?\nA1: No, none.\nQ2: Which stage?\nA2: Intermediate.",
    "long labels": "Question: Is there fluid?\nAnswer: No, none.\nQuestion 2: Which stage?\nAnswer 2: Intermediate.",
    "headings": "### Q1: Is there fluid?\nA1: No, none.\n---\n### Q2: Which stage?\nA2: Intermediate.\n---",
    "chat": "USER: Is there fluid?\nASSISTANT: No, none.\nUSER: Which stage?\nASSISTANT: Intermediate.",
    "bullets": "- Q: Is there fluid?\n- A: No, none.\n- Q: Which stage?\n- A: Intermediate.",
    "number alone": "1.\nQ: Is there fluid?\nA: No, none.\n2.\nQ: Which stage?\nA: Intermediate.",
    "preamble": "Sure! Here they are:\n\n1. Q: Is there fluid?\nA: No, none.\n2. Q: Which stage?\nA: Intermediate.",
    "no labels": "1. Is there fluid?\nNo, none.\n2. Which stage?\nIntermediate.",
    "no labels, one line": "1. Is there fluid? No, none.\n2. Which stage? Intermediate.",
    "fenced text": "```\n1. Q: Is there fluid?\nA: No, none.\n2. Q: Which stage?\nA: Intermediate.\n```",
    "full width": "1. Q：Is there fluid?\nA：No, none.\n2. Q：Which stage?\nA：Intermediate.",
    "windows": "1. Q: Is there fluid?\r\nA: No, none.\r\n\r\n2. Q: Which stage?\r\nA: Intermediate.\r\n",
    "json": json.dumps([asdict(item) for item in TWO]),
    "fenced json": f"Here:\n```json\n{json.dumps([{'Q': i.question, 'A': i.answer} for i in TWO], indent=2)}\n```",
    "wrapped json": json.dumps({"items": [{"q1": i.question, "a1": i.answer} for i in TWO]}),
    "json lines": "\n".join(json.dumps(asdict(item)) for item in TWO),
    "single quotes": "[{'question': 'Is there fluid?', 'answer': 'No, none.'},"
    " {'question': 'Which stage?', 'answer': 'Intermediate.',}]",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_items(form):
    parsed = parse_items(FORMS[form])
    assert parsed.items == TWO
    assert parsed.rejects == []


def test_an_answer_of_several_lines_is_kept_whole():
    answer = "Findings:\n- drusen of 3.5 mm\n1. large\n\nImpression: intermediate."
    parsed = parse_items(f"1. Q: Write a report.\nA: {answer}\n2. Q: Which stage?\nA: Intermediate.")
    assert parsed.items == [Item("Write a report.", answer), TWO[1]]


def test_an_answer_that_begins_with_a_decimal_is_not_a_number_of_an_item():
    parsed = parse_items("1. How thick?\n3.5 mm\n2. Which stage?\nIntermediate.")
    assert parsed.items == [Item("How thick?", "3.5 mm"), TWO[1]]


def test_words_in_capitals_are_not_deleted():
    assert (
        parse_items("1. Q: Why?\nA: ASSESSMENT of ANSWERS is due.").items[0].answer == "ASSESSMENT of ANSWERS is due."
    )


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("1. Q: Is there fluid?\nA: No, none.\n2. Q: Which stage?", ["no answer"]),
        ("1. Q: Which stage?\n2. Q: Is there fluid?\nA: No, none.", ["no answer"]),
        ("A: Intermediate.\n1. Q: Is there fluid?\nA: No, none.", ["no question"]),
        ("1. Q: Is there fluid?\nA: No, none.\n2. Q:\nA:", ["empty item"]),
        ('[{"question": "Is there fluid?", "answer": "No, none."}, {"question": "Which', ["cut off"]),
        ('[{"question": "Is there fluid?", "answer": "No, none."}, {"question": "Which?"}]', ["no answer"]),
    ],
)
def test_each_reject_has_its_reason(text, reasons):
    parsed = parse_items(text)
    assert parsed.items == ONE
    assert [reject.reason for reject in parsed.rejects] == reasons


def test_the_last_item_of_a_reply_that_was_cut_is_rejected():
    parsed = parse_items(FORMS["two lines"], truncated=True)
    assert (parsed.items, [r.reason for r in parsed.rejects]) == (ONE, ["cut off"])
    assert parse_items(FORMS["json"], truncated=True).items == TWO


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that.", "I cannot provide medical advice.", "As an AI, I have no eyes.",
        "I am unable to answer.", "The report does not contain a stage.",
    ],
)  # fmt: skip
def test_a_refusal_is_named(text):
    assert [r.reason for r in parse_items(text).rejects] == ["refusal"]
    assert ItemChecks()(Item("Which stage?", text), []) == "refusal"


@pytest.mark.parametrize("text", ["No fluid is seen.", "It cannot be staged by drusen alone.", "I see no drusen."])
def test_a_plain_negative_is_no_refusal(text):
    assert not is_refusal(text)


@pytest.mark.parametrize(("text", "reason"), [("", "empty reply"), (" \n", "empty reply"), ("Hello.", "no item")])
def test_nothing_is_never_silent(text, reason):
    assert [r.reason for r in parse_items(text).rejects] == [reason]


@given(
    st.one_of(
        st.text(),
        st.lists(
            st.sampled_from(
                ["1.", "Q:", "A:", "\n", '{"q":', "{", "}", "]", '"', "?", "**", "x", ": ", "2)", "I'm sorry"]
            )
        ).map("".join),
    )
)
def test_any_text_is_read_without_an_error_and_without_silence(text):
    parsed = parse_items(text)
    assert parsed.items or parsed.rejects
    assert all(item.question and item.answer for item in parsed.items)


@pytest.mark.parametrize("unit", ["{", '{"a":', "1. ", "Q: ", "A:", "* ", "\n1.", "[{", " \t", "?A:", "#_"])
def test_a_reply_of_a_hundred_thousand_pieces_is_read_in_linear_time(unit):
    started = time.process_time()
    parse_items(unit * 100_000)
    assert time.process_time() - started < 4


WORDS = st.text("abcdefgh ", min_size=1, max_size=30).map(str.strip).filter(bool)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=6))
def test_what_is_written_as_a_list_is_read_back(pairs):
    wanted = [Item(f"is {q}?", f"it {a}.") for q, a in pairs]
    text = "\n".join(f"{k}. Q: {item.question}\nA: {item.answer}" for k, item in enumerate(wanted, start=1))
    assert parse_items(text).items == wanted


def scripted(*replies):
    """A client that gives these replies in order, and the prompts it was given."""
    prompts, left = [], list(replies)

    def rule(request):
        prompts.append(request.messages[-1].text)
        return left.pop(0)

    return LlmClient(Scripted(rule)), prompts


def items_of(client, **settings):
    return asyncio.run(ask_for_items(client, ask("Write 3 items."), **settings))


def test_what_is_missing_is_asked_again_and_named():
    client, prompts = scripted(FORMS["two lines"], "1. Q: Which eye?\nA: The left.")
    assert items_of(client, count=3).items == [*TWO, Item("Which eye?", "The left.")]
    assert "Is there fluid?" in prompts[1]
    assert "Write 1 more" in prompts[1]


def test_a_round_that_brings_nothing_new_is_the_last():
    client, prompts = scripted(FORMS["two lines"], FORMS["two lines"], "never asked")
    parsed = items_of(client, count=3, check=ItemChecks())
    assert parsed.items == TWO
    assert [r.reason for r in parsed.rejects] == ["near-duplicate", "near-duplicate"]
    assert len(prompts) == 2


def test_no_more_is_kept_than_was_asked_for():
    client, _ = scripted(FORMS["two lines"])
    parsed = items_of(client, count=1)
    assert (parsed.items, [r.reason for r in parsed.rejects]) == (ONE, ["more than asked for"])


def test_a_failed_call_is_a_reject_and_a_stop_is_a_stop(server):
    from rewards.llm.spec import LlmSpec, open_llm

    server.script = ["refusal", 401]
    client = open_llm(LlmSpec(model="m", endpoint=server.url))
    assert [r.reason for r in items_of(client, count=2).rejects] == ["refused"]
    with pytest.raises(LlmStop):
        items_of(client, count=2)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (Item("What does the REPORT say?", "A nodule."), "names its source: 'report'"),
        (Item("Is it?", "As Mentioned, yes."), "names its source: 'mentioned'"),
        (Item("Is it?", "Yes " * 500), "longer than 400 tokens"),
        (Item("Where is the large nodule of the left lung?", "Large nodule of the left lung."),
         "the question gives the answer away"),
        (Item("Is there an effusion?", "Yes."), "contradicts the findings"),
        (Item("Is there a nodule?", "No."), "contradicts the findings"),
        (Item("What do you see?", "There is no nodule."), "contradicts the findings"),
        (Item("Where is the nodule?", "There is a nodule on the right."), "contradicts the findings"),
    ],
)  # fmt: skip
def test_a_planted_fault_is_found(item, reason):
    truth = Facts(
        rule_set="chest_xray@1",
        findings={"nodule": Finding(polarity="present", side="left"), "effusion": Finding(polarity="absent")},
    )
    assert ItemChecks(facts=truth)(item, []) == reason


@pytest.mark.parametrize(
    "item",
    [
        Item("Is there a nodule?", "Yes, on the left."), Item("Is there an effusion?", "No."),
        Item("Left or right?", "Left."), Item("Where is the nodule?", "On the left."),
        Item("What do you see?", "There is a nodule on the left. No effusion."),
        Item("What is deported?", "Nothing."),
    ],
)  # fmt: skip
def test_a_clean_item_passes(item):
    truth = Facts(
        rule_set="chest_xray@1",
        findings={"nodule": Finding(polarity="present", side="left"), "effusion": Finding(polarity="absent")},
    )
    assert ItemChecks(facts=truth)(item, []) is None


def test_source_words_are_whole_words():
    assert source_word("It was reportedly seen") is None
    assert source_word("Specified.") == "specified"
    assert source_word("anything", ()) is None


def test_leak_and_similarity_are_shares():
    assert leak(Item("Is the nodule large?", "It is small.")) == 0.0
    assert similarity(ONE[0], Item("IS THERE FLUID?", "No - none!")) == 1.0
    assert similarity(ONE[0], TWO[1]) == 0.0


def test_an_answer_about_what_is_not_known_contradicts_nothing():
    assert not contradicts(Item("Is there a nodule?", "Yes."), Facts(rule_set="chest_xray@1"))
