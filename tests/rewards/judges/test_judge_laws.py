"""Laws of the rules as judge: thinking earns nothing, and no number of denials makes up for a finding told wrongly."""

import asyncio

from hypothesis import assume, example, given
from hypothesis import strategies as st

from rewards.judges.crpo import Crpo
from rewards.judges.judge_score import judge_score
from rewards.judges.round_robin import RoundRobin
from rewards.loading import available, load_reward
from rewards.rules.facts import Facts, Finding

SIDED = ("nodule", "consolidation", "effusion", "pneumothorax")
OTHER = {"left": "right", "right": "left"}
PRESENT = st.builds(
    Finding, polarity=st.just("present"), side=st.sampled_from(["left", "right"]), size=st.sampled_from([None, "small"])
)
ABSENT = st.just(Finding(polarity="absent"))
FACTS = st.builds(
    lambda sided, heart: Facts(rule_set="chest_xray@1", findings={**sided, **heart}),
    st.dictionaries(st.sampled_from(SIDED), PRESENT | ABSENT),
    st.dictionaries(st.just("cardiomegaly"), ABSENT | st.just(Finding(polarity="present"))),
)
SMALL_LEFT_NODULE = Facts(
    rule_set="chest_xray@1",
    findings={
        "nodule": Finding(polarity="present", side="left", size="small"),
        **dict.fromkeys(("consolidation", "effusion", "pneumothorax", "cardiomegaly"), Finding(polarity="absent")),
    },
)
THOUGHTS = st.text() | st.sampled_from(
    ["No nodule. No effusion. No consolidation. No pneumothorax. No cardiomegaly.", "[]", "yes", "[[10,40,30,60]]"]
)
RESPONSES = st.sampled_from(
    ["There is a small nodule on the left.", "No nodule.", "Yes", "12 mm", "[[10,40,30,60]]", "I cannot tell.", ""]
)
COLUMNS = {
    "answer": "yes",
    "boxes": [[10, 40, 30, 60]],
    "box_grid": 100,
    "box_images": [1],
    "facts": Facts(
        rule_set="chest_xray@1",
        findings={"nodule": Finding(polarity="present", side="left"), "effusion": Finding(polarity="absent")},
    ).to_json(),
    "options": ["yes", "no"],
    "task": "report",
    "completion_ids": [1, 2, 3],
    "dialogue": None,
}
ABOUT_FORMAT = ("think_format", "tag_count")
"""Rewards of the form, to which thinking belongs."""


def sentence(name, finding):
    if finding.polarity == "absent":
        return f"No {name}."
    size, side = f"{finding.size} " if finding.size else "", f" on the {finding.side}" if finding.side else ""
    return f"There is {size or 'a '}{name}{side}."


def text_of(findings):
    return " ".join(sentence(name, finding) for name, finding in findings.items())


def wrong_tellings(truth):
    """Each present finding left out, denied or on the other side; and all denied."""
    there = truth.present()
    for name, finding in there.items():
        yield {n: f for n, f in there.items() if n != name}
        yield {**there, name: Finding(polarity="absent")}
        if finding.side:
            yield {**there, name: finding.model_copy(update={"side": OTHER[finding.side]})}
    yield dict.fromkeys(there, Finding(polarity="absent"))


def head_to_head(first, second, facts):
    columns = {"prompt": ["Describe."] * 2, "facts": [facts] * 2}
    return asyncio.run(RoundRobin()([first, second], **columns)).scores


def against_pool(responses, pool, facts):
    columns = {"prompt": ["Describe."] * len(responses), "facts": [facts] * len(responses)}
    answers = [{"model": str(k), "text": text} for k, text in enumerate(pool)]
    return asyncio.run(Crpo()(responses, counterparts=[answers] * len(responses), **columns)).scores


@given(FACTS)
@example(SMALL_LEFT_NODULE)
def test_what_is_there_told_rightly_beats_every_wrong_telling_with_all_denials(truth):
    assume(truth.present())
    facts, honest = truth.to_json(), text_of(truth.present())
    absent = {name: f for name, f in truth.findings.items() if f.polarity == "absent"}
    for telling in wrong_tellings(truth):
        for denials in ({}, absent):
            wrong = text_of({**telling, **denials})
            assert judge_score(honest, facts) > judge_score(wrong, facts), wrong
            won, lost = head_to_head(honest, wrong, facts)
            assert won > 0.5 > lost, wrong
            rates = against_pool([honest, wrong], [wrong, honest, ""], facts)
            assert rates[0] > rates[1], wrong


@given(FACTS)
def test_the_whole_truth_earns_most(truth):
    assume(truth.findings)
    facts, whole = truth.to_json(), text_of(truth.findings)
    assert judge_score(whole, facts) == 1.0
    assert judge_score(text_of(truth.present()), facts) <= 1.0


@given(FACTS, st.sampled_from(SIDED))
def test_what_is_invented_or_called_possible_is_never_made_up_for_by_denials(truth, name):
    others = {n: f for n, f in truth.findings.items() if n != name}
    truth = truth.model_copy(update={"findings": {**others, name: Finding(polarity="absent")}})
    assume(truth.present())
    facts, honest = truth.to_json(), text_of(truth.present())
    for invented in (f"There is a {name} on the left.", f"Possible {name}."):
        assert judge_score(honest, facts) > judge_score(f"{text_of(others)} {invented}", facts)


@given(THOUGHTS, RESPONSES)
def test_no_thought_changes_the_score_of_any_reward(thought, response):
    assume("<" not in thought)
    for name in available():
        if name in ABOUT_FORMAT:
            continue
        reward = load_reward(name)
        columns = {c: COLUMNS[c] for c in (*reward.columns, *reward.optional) if c in COLUMNS}
        score = reward(response, **columns)
        assert reward(f"<think>{thought}</think>{response}", **columns) == score, name
        assert reward(f"{response}<think>{thought}", **columns) == score, name


@given(THOUGHTS, RESPONSES)
def test_no_thought_changes_a_comparison(thought, response):
    assume("<" not in thought)
    facts, rival = COLUMNS["facts"], "There is a nodule on the left. No effusion."
    aloud = f"<think>{thought}</think>{response}"
    assert head_to_head(aloud, rival, facts) == head_to_head(response, rival, facts)
    assert against_pool([aloud], [rival, ""], facts) == against_pool([response], [rival, ""], facts)
