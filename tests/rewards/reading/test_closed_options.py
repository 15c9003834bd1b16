import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.reading.closed_options import ABSENT, PRESENT, chosen, in_order, level_options
from rewards.rules.guidelines import together
from rewards.rules.stages import Level, Scale

STAGES = level_options(together(("retina_amd@1",))[0].scales["stage"])
REFERRAL = level_options(together(("retina_amd@1", "retina_referral@2"))[0].scales["referral"])
DRUSEN = level_options(Scale(levels=[Level(name=ABSENT), Level(name=PRESENT)]))


@pytest.mark.parametrize(
    ("words", "stage"),
    [
        ("inactive late wet AMD", "inactive late wet AMD"),
        ("active late wet", "active late wet AMD"),
        ("late wet AMD, active", "active late wet AMD"),
        ("not early or intermediate; it is late dry", "late dry AMD"),
    ],
)
def test_stages_that_the_published_parser_read_wrongly(words, stage):
    """RetinaVLM's parser found these invalid (word order) or read the first option of its list (negation)."""
    assert chosen(words, STAGES).option == stage


@pytest.mark.parametrize(
    "words",
    [
        "within the next two weeks, not for routine referral",
        "should not wait; next two weeks",
        "next 2 weeks",
    ],
)
def test_urgent_answers_that_the_published_parser_read_as_no_referral_or_not_at_all(words):
    assert chosen(words, REFERRAL).option == "urgent referral"


def test_a_bare_not_is_no_referral_decision():
    assert chosen("not", REFERRAL).option is None


@pytest.mark.parametrize("name", STAGES.answers)
def test_every_name_is_read_as_itself(name):
    assert chosen(name, STAGES).option == name
    assert chosen(f"The stage is {name.upper()}.", STAGES).option == name


@given(st.permutations(["active", "late", "wet", "AMD"]), st.sampled_from([" ", ", ", " - "]), st.booleans())
def test_the_words_of_an_option_may_stand_in_any_order(words, gap, inactive):
    said = gap.join(words).replace("active", "inactive" if inactive else "active")
    assert chosen(said, STAGES).option == ("inactive late wet AMD" if inactive else "active late wet AMD")


@given(st.sampled_from(list(STAGES.answers)), st.sampled_from(list(STAGES.answers)))
def test_the_last_conclusion_decides_over_what_is_discussed_before(first, last):
    said = f"There are signs of {first}. In conclusion, {last}."
    assert chosen(said, STAGES).option == last


@given(st.lists(st.sampled_from(list(STAGES.answers)), min_size=2, max_size=4, unique=True))
def test_options_side_by_side_are_ambiguous_not_the_first_of_the_list(names):
    choice = chosen(" or ".join(names) + ".", STAGES)
    assert (choice.option, choice.reason) == (None, "ambiguous")


@given(st.sampled_from(list(STAGES.answers)), st.sampled_from(list(STAGES.answers)))
def test_a_denied_option_is_never_chosen(denied, meant):
    choice = chosen(f"It is not {denied}; it is {meant}.", STAGES)
    assert choice.option == (meant if meant != denied else None)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("", "empty"),
        ("The retina is nice.", "unparsed"),
        ("This is not early AMD.", "denied"),
        ("Possibly early AMD.", "hedged"),
        ("I cannot determine the stage.", "refused"),
        ("Early AMD and late dry AMD.", "ambiguous"),
        ("late wet AMD", "unparsed"),
    ],
)
def test_what_is_no_choice_is_invalid_with_its_reason(words, reason):
    choice = chosen(words, STAGES)
    assert (choice.option, choice.reason) == (None, reason)


def test_only_the_tagged_answer_counts():
    assert chosen("<think>early AMD?</think><answer>late dry AMD</answer>", STAGES).option == "late dry AMD"


def test_a_conclusion_that_names_nothing_leaves_the_whole_text_to_be_read():
    assert chosen("This is early AMD. In summary, there are few signs.", STAGES).option == "early AMD"


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("Yes", PRESENT),
        ("visible", PRESENT),
        ("No.", ABSENT),
        ("not  seen", ABSENT),
        ("negative", ABSENT),
        ("Perhaps.", None),
    ],
)
def test_a_scale_of_presence_is_answered_in_a_word_or_two(words, option):
    assert chosen(words, DRUSEN).option == option


@pytest.mark.parametrize(
    ("words", "level"),
    [
        ("Routine referral to a specialist.", "routine referral"),
        ("No referral is needed.", "no referral"),
        ("Refer urgently, within 2 weeks.", "urgent referral"),
        ("The patient needs no urgent referral but a routine referral.", "routine referral"),
        ("Urgent or routine referral.", None),
    ],
)
def test_referral_is_read_with_negation_and_synonyms(words, level):
    assert chosen(words, REFERRAL).option == level


def test_words_of_two_options_are_left_as_they_stand():
    assert in_order("early AMD, late dry", STAGES) == "early AMD, late dry"


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text):
    choice = chosen(text, STAGES)
    assert (choice.option is None) == bool(choice.reason)
    assert choice.option is None or choice.option in STAGES.answers


def test_a_long_answer_is_read_in_time_that_grows_with_its_length():
    def seconds(times):
        start = time.process_time()
        assert chosen("late wet AMD, active, " * times, STAGES).option == "active late wet AMD"
        return time.process_time() - start

    seconds(100)
    assert seconds(8_000) < 30 * max(seconds(1_000), 0.005)
