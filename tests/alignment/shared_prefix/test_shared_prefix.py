"""Layout, mask and positions of the shared prefix, by hand and by property; what it refuses."""

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PrefixTuningConfig, get_peft_model

from alignment.shared_prefix.forward import model_inputs
from alignment.shared_prefix.layout import by_answer, packed, tokens_computed
from alignment.shared_prefix.masks import attention_mask, position_ids
from alignment.shared_prefix.support import refusal, resolved
from rewards.config.input_error import InputError
from tests.alignment.models.tiny_families import build

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def model():
    return build("llava")


def prompts(*rows):
    width = max(map(len, rows))
    return {
        "input_ids": torch.tensor([r + [0] * (width - len(r)) for r in rows]),
        "attention_mask": torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows]),
    }


def example():
    return packed(prompts([3, 4], [5, 6, 7]), [[[11, 12], [13]], [[14, 15]]], pad_token_id=0)


def test_answers_stand_behind_their_prompt_and_padding_behind_them():
    batch = example()
    assert batch["input_ids"].tolist() == [[3, 4, 11, 12, 13], [5, 6, 7, 14, 15]]
    assert batch["segments"].tolist() == [[0, 0, 1, 1, 2], [0, 0, 0, 1, 1]]
    assert batch["answer_lengths"].tolist() == [2, 1, 2]


def test_every_first_token_is_predicted_by_the_last_position_of_the_prompt():
    batch = example()
    assert batch["answer_positions"].tolist() == [1, 2, 1, 7, 8]
    assert batch["answer_labels"].tolist() == [11, 12, 13, 14, 15]


def test_every_answer_goes_on_from_the_prompts_last_position(model):
    assert position_ids(model, example()).tolist() == [[0, 1, 2, 3, 2], [0, 1, 2, 3, 4]]


def test_the_mask_by_hand(model):
    seen = attention_mask(model, example())[0, 0].int().tolist()
    assert seen == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]


answer_lists = st.lists(
    st.lists(st.lists(st.integers(3, 60), max_size=4), min_size=1, max_size=4), min_size=1, max_size=3
)


@settings(deadline=None, max_examples=40)
@given(answers=answer_lists, data=st.data())
def test_no_token_sees_another_answer_the_future_or_padding(model, answers, data):
    lengths = [data.draw(st.integers(1, 5)) for _ in answers]
    batch = packed(prompts(*[[2] * n for n in lengths]), answers, pad_token_id=0)
    mask, segments = attention_mask(model, batch)[:, 0], batch["segments"]
    for b, segment in enumerate(segments):
        for q in range(len(segment)):
            for k in range(len(segment)):
                same = segment[k] == 0 or segment[k] == segment[q]
                allowed = k <= q and segment[k] >= 0 and bool(same)
                assert bool(mask[b, q, k]) == (allowed or q == k)


@settings(deadline=None, max_examples=40)
@given(answers=answer_lists)
def test_every_answer_token_is_scored_once_and_in_order(answers):
    batch = packed(prompts(*[[2, 2]] * len(answers)), answers, pad_token_id=0)
    flat = [token for row in answers for answer in row for token in answer]
    assert batch["answer_labels"].tolist() == flat
    assert len(batch["answer_positions"]) == len(flat) == int(batch["answer_lengths"].sum())
    assert int((batch["segments"] > 0).sum()) == len(flat)


def test_one_answer_a_row_needs_no_mask_of_ours(model):
    inputs = model_inputs(model, packed(prompts([3], [4, 5]), [[[6, 7]], [[8]]], pad_token_id=0))
    assert "position_ids" not in inputs
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 1]]


def test_tokens_saved_are_the_copies_of_the_prompt():
    assert tokens_computed(example()) == (10, 2)


def test_answers_are_cut_to_max_length():
    batch = packed(prompts([3, 4]), [[[5, 6, 7], [8]]], pad_token_id=0, max_length=4)
    assert batch["input_ids"].tolist() == [[3, 4, 5, 6, 8]]


def test_a_prompt_longer_than_max_length_is_refused():
    with pytest.raises(InputError, match="shorter than a prompt"):
        packed(prompts([3, 4, 5]), [[[5]]], pad_token_id=0, max_length=2)


def test_a_family_not_proven_is_refused_by_name(model):
    model = build("llava")
    model.config.model_type = "paligemma"
    assert "paligemma" in str(refusal(model))
    with pytest.raises(InputError, match="paligemma"):
        resolved("on", model)


def test_auto_falls_back_with_one_line_that_says_why(model, caplog):
    model = build("llava")
    model.config.model_type = "paligemma"
    with caplog.at_level(logging.WARNING, "alignment.shared_prefix.support"):
        assert resolved("auto", model) == "repeated"
    assert len(caplog.records) == 1
    assert "paligemma" in caplog.text


def test_a_prompt_learning_adapter_is_refused(model):
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    config.num_layers, config.num_attention_heads, config.token_dim = 2, 4, 32
    assert "prompt-learning" in str(refusal(get_peft_model(build("llava"), config)))


def test_off_is_off(model):
    assert resolved("off", model) == "repeated"
    assert resolved("on", model) == "packed"


def test_values_of_single_tokens_as_a_table():
    table, mask = by_answer(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2, 0, 1]))
    assert table.tolist() == [[1, 2], [0, 0], [3, 0]]
    assert mask.tolist() == [[True, True], [False, False], [True, False]]
