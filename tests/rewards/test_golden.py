import json
import pickle
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.config.input_error import InputError
from rewards.loading import available, load_reward

GOLDEN = Path(__file__).with_name("golden")
TRUTH = (
    '{"rule_set":"chest_xray@1","findings":{"nodule":{"polarity":"present","side":"left","size":"small"},'
    '"effusion":{"polarity":"absent"}}}'
)
DIALOGUE = (
    '{"rule_set":"bone_marrow@1","scenario":"standard","wording":"train","turns":['
    '{"node":"quality","gold":"high","question":"?","answer":"The image is of high quality."},'
    '{"node":"region","gold":"adequate","question":"?","answer":"The region is adequate."},'
    '{"node":"abnormality","gold":"abnormal","question":"?","answer":"The marrow is abnormal."},'
    '{"node":"proliferation","gold":"myeloblasts","question":"?","answer":"Myeloblasts are increased."},'
    '{"node":"diagnosis","gold":"AML","question":"?","answer":"The diagnosis is AML."}]}'
)
COLUMNS = {
    "answer": "yes",
    "boxes": [[0, 0, 10, 10]],
    "box_images": [1],
    "facts": TRUTH,
    "options": ["yes", "no"],
    "task": "report",
    "completion_ids": None,
    "dialogue": DIALOGUE,
}
UNITS = {"box_grid": 100}
PUBLISHED = ("dialogue_published",)
"""Published formulas have the floor that they were published with; their own tests hold it."""
TEXTS = st.one_of(
    st.text(),
    st.sampled_from(["yes", "[[1,2,3,4]]", "nodule", "<answer>", "no effusion"]).map(lambda s: s * 7),
)


def cases():
    for name in available():
        for line in (GOLDEN / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            yield pytest.param(name, json.loads(line), id=f"{name}: {json.loads(line)['why']}")


@pytest.mark.parametrize(("name", "case"), list(cases()))
def test_golden(name, case):
    reward = load_reward(name, **case.get("knobs", {}))
    known = UNITS | {c: case[c] if c in case else COLUMNS[c] for c in reward.optional if c in {*case, *COLUMNS}}
    got = reward(case["response"], **known, **{c: case.get(c, COLUMNS[c]) for c in reward.columns})
    assert got == (None if case["want"] is None else pytest.approx(case["want"], abs=1e-7))


@pytest.mark.parametrize("name", available())
def test_the_contract_holds(name):
    reward = load_reward(name)
    assert ">>>" in (reward.function.__doc__ or "")
    assert reward.bounds[0] < reward.bounds[1]
    copy = pickle.loads(pickle.dumps(reward))
    columns = UNITS | {c: COLUMNS[c] for c in reward.columns}
    assert copy("yes", **columns) == reward("yes", **columns)


@pytest.mark.parametrize("name", available())
@given(response=TEXTS)
def test_any_text_scores_within_bounds_twice_the_same(name, response):
    reward = load_reward(name)
    columns = UNITS | {c: COLUMNS[c] for c in reward.columns}
    got = reward(response, **columns)
    assert got is not None
    assert reward.bounds[0] <= got <= reward.bounds[1]
    assert reward(response, **columns) == got


@pytest.mark.parametrize("name", [name for name in available() if name not in PUBLISHED])
def test_an_empty_reply_earns_the_floor(name):
    reward = load_reward(name)
    if reward.bounds[1] <= 0:
        pytest.skip("a punishment: an empty reply has done nothing to be punished for")
    assert reward("", **UNITS, **{c: COLUMNS[c] for c in reward.columns}) == reward.bounds[0]


def test_box_spam_never_pays():
    reward = load_reward("box_overlap")
    spam = "[" + ",".join(f"[{x},{y},{x + 10},{y + 10}]" for x in range(0, 100, 10) for y in range(0, 100, 10)) + "]"
    assert reward(spam, boxes=[[0, 0, 10, 10], [50, 50, 60, 60]]) <= 0.02
    assert reward("[[0,0,10,10]]", boxes=[[0, 0, 10, 10], [50, 50, 60, 60]]) == 0.5


def test_naming_every_finding_both_ways_earns_less_than_the_truth():
    reward = load_reward("finding_f1")
    stuffed = "There is a nodule. No nodule. There is an effusion. No effusion. " * 20
    assert reward(stuffed, facts=TRUTH) == 0.0


def test_a_reply_of_a_million_characters_is_read_in_linear_time():
    start = time.process_time()
    assert load_reward("box_overlap")("[" * 1_000_000, boxes=[[0, 0, 1, 1]]) == 0.0
    assert load_reward("finding_f1")("no " * 330_000 + "nodule.", facts=TRUTH) == 0.0
    assert time.process_time() - start < 10  # about 1 s on one unloaded core


def test_an_unknown_reward_or_knob_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="Did you mean 'closed_answer'"):
        load_reward("close_answer")
    with pytest.raises(InputError, match="Did you mean 'measure'"):
        load_reward("box_overlap", mesure="iou")
    with pytest.raises(InputError, match="knob 'measure'"):
        load_reward("box_overlap", measure="l2")
