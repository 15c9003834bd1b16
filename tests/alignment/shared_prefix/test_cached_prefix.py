"""The cached form of the shared prefix, chosen though the kernel takes a mask, against the repeated layout."""

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.shared_prefix.forward import score_answers_only
from alignment.shared_prefix.key_value_cache import _answer_places, _prompt_places
from alignment.shared_prefix.layout import packed
from alignment.shared_prefix.support import base_model, resolved
from rewards.config.input_error import InputError
from tests.alignment.models.tiny_families import FAMILIES, Row, build, prompt_inputs, recompute, rows
from tests.alignment.shared_prefix.test_shared_prefix_families import assert_same, prepared, together

pytestmark = pytest.mark.filterwarnings("default")


def cached(family, attention="sdpa"):
    """A model that answers from a cache, and a list that gains the width of every forward of its language model."""
    model = prepared(build(family, attention))
    score_answers_only(model, "cached")
    widths = []

    def seen(_module, _args, output):
        widths.append(tuple(output.last_hidden_state.shape[:2]))

    decoder = getattr(model.base_model, "language_model", None) or model.base_model.text_model
    decoder.register_forward_hook(seen)
    return model, widths


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_and_gradients_equal_the_repeated_layout(family, attention):
    model, _ = cached(family, attention)
    assert_same(family, model, rows())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prompt_is_computed_once_and_the_answers_without_it(family):
    model, widths = cached(family)
    batch = rows()
    with torch.no_grad():
        together(family, model, batch)
    inputs = prompt_inputs(family, model, batch)
    longest = max(len(answer) for row in batch for answer in row.answers)
    assert widths == [tuple(inputs["input_ids"].shape), (sum(len(row.answers) for row in batch), longest)]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3", "smolvlm"])
def test_prompts_longer_than_a_sliding_window_and_an_empty_answer(family):
    model, _ = cached(family)
    batch = [Row([5] * 20, [6] * 17, [[7, 8, 9], [10], [11, 12]]), Row([5], [6], [[13, 14], [15, 16]])]
    assert_same(family, model, batch)
    empty = [Row([5, 6], [7], [[8, 9], [], [10]])]
    with torch.no_grad():
        sums = together(family, model, empty)
        assert sums[1] == 0
        whole = together(family, model, [Row([5, 6], [7], [[8, 9], [10]])])
    torch.testing.assert_close(sums[[0, 2]], whole, atol=1e-5, rtol=0)


def test_no_answer_has_a_token():
    model, _ = cached("llava")
    with torch.no_grad():
        assert together("llava", model, [Row([5], [6], [[], []])]).tolist() == [0, 0]


def test_generation_is_as_before():
    model, _ = cached("qwen2_5_vl")
    inputs = prompt_inputs("qwen2_5_vl", model, rows()[:1])
    plain = prepared(build("qwen2_5_vl"))
    options = {"max_new_tokens": 6, "do_sample": False}
    assert torch.equal(model.generate(**inputs, **options), plain.generate(**inputs, **options))


@settings(deadline=None, max_examples=50)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    answers=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=3), min_size=4, max_size=4),
)
def test_every_token_is_laid_out_once_and_comes_back_in_its_place(lengths, answers):
    width = max(lengths)
    prompt = {
        "input_ids": torch.ones(len(lengths), width, dtype=torch.long),
        "attention_mask": torch.tensor([[1] * n + [0] * (width - n) for n in lengths]),
    }
    texts = [[[3] * n for n in row] for row in answers[: len(lengths)]]
    segments = packed(prompt, texts, pad_token_id=0)["segments"]
    places, mask = _prompt_places(segments)
    assert [row[m].tolist() for row, m in zip(places, mask, strict=True)] == [list(range(n)) for n in lengths]
    assert bool(mask[:, -1].all())
    if not (segments > 0).any():
        return
    rows_A, columns, shown = _answer_places(segments)
    found = [(int(b), int(c)) for b, row, m in zip(rows_A, columns, shown, strict=True) for c in row[m]]
    assert found == [tuple(place) for place in (segments > 0).nonzero().tolist()]
    assert len(rows_A) == sum(n > 0 for row in texts for n in map(len, row))


def flash(family="llava"):
    model = build(family)
    model.config.get_text_config()._attn_implementation = "flash_attention_2"
    return model


@pytest.mark.parametrize("setting", ["auto", "on"])
def test_a_kernel_without_a_mask_gets_the_cached_form(setting):
    assert resolved(setting, flash()) == "cached"


def test_a_kernel_with_a_mask_gets_it_only_when_asked():
    assert resolved("auto", build("llava")) == "packed"
    assert resolved("cached", build("llava")) == "cached"


def test_gradient_checkpointing_falls_back_with_one_line_or_is_refused(caplog):
    with caplog.at_level(logging.WARNING, "alignment.shared_prefix.support"):
        assert resolved("auto", flash(), checkpointing=True) == "repeated"
    assert len(caplog.records) == 1
    assert "flash_attention_2" in caplog.text
    assert "activation_checkpointing: false" in caplog.text
    for setting, model in (("cached", build("llava")), ("on", flash())):
        with pytest.raises(InputError, match="activation_checkpointing: false"):
            resolved(setting, model, checkpointing=True)
    assert resolved("on", build("llava"), checkpointing=True) == "packed"


def test_checkpointing_switched_on_behind_our_back_stops_the_run():
    model, _ = cached("llava")
    recompute(model.train())
    with pytest.raises(AssertionError, match="takes the cache away"):
        together("llava", model, rows()[:1])


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llava", "gemma3"])
def test_flex_attention_takes_the_mask_in_blocks(family):
    """Forward only: torch has no backward of flex attention on the CPU. Transformers refuses flex to Qwen2.5-VL."""
    model = build(family, {"text_config": "flex_attention", "": "sdpa"})
    assert base_model(model).config.get_text_config()._attn_implementation == "flex_attention"
    with torch.no_grad():
        got = together(family, prepared(model), rows())
        want = together(family, prepared(build(family)), rows())
    torch.testing.assert_close(got, want, atol=2e-4, rtol=0)
