"""Dialogues taken turn by turn: boundaries as the template puts them, ids as sampled, no cutting. No model needed."""

import pytest

from alignment.dialogues.rollout import CLINICIAN, Conversation, roll_out
from alignment.dialogues.turns import rendered
from alignment.models.processors import load_processor
from alignment.models.tiny import build_tiny
from data_builders.schema import assistant_turn, user_turn
from rewards.dialogues.dialogue import Context, Dialogue, Turn

ECG = [
    ("st_elevation", "level", "Is ST elevated?", "There is no ST elevation."),
    ("st_depression", "seen", "Any ST depression?", "ST depression is present."),
    ("troponin", "order", "Order troponin?", "Yes, order troponin."),
    ("diagnosis", "nstemi", "What is it?", "This is an NSTEMI."),
]
LAB = Context(when={"troponin": "order"}, text="Troponin is 2.1 ng/ml.")


def script(num_turns=4):
    turns = [Turn(node=n, gold=g, question=q, answer=a, told=(LAB,) if n == "diagnosis" else ()) for n, g, q, a in ECG]
    return Dialogue(rule_set="ecg_mi@1", scenario="standard", wording="train", turns=tuple(turns[-num_turns:]))


@pytest.fixture(scope="module", params=["idefics3", "qwen3_vl", "llava"])
def processor(request, tmp_path_factory):
    texts = [text for *_, question, answer in ECG for text in (question, answer)] + [LAB.text]
    return load_processor(str(build_tiny(texts, tmp_path_factory.mktemp("p"), family=request.param, image_size=64)))


def conversation(processor, dialogue):
    prompt = user_turn(dialogue.turns[0].question, num_images=0)
    text = rendered(processor, prompt, ask=True)
    return Conversation(prompt, dialogue, processor.tokenizer.encode(text, add_special_tokens=False))


def answering(processor, texts, *, ends=True):
    """Says ``texts`` in order, with or without the token that ends a turn, and keeps the ids that it said."""
    said = []

    def answer(talks):
        replies = []
        for talk in talks:
            ids = processor.tokenizer.encode(texts[len(talk.answers)], add_special_tokens=False)
            ids += [processor.tokenizer.eos_token_id] if ends else []
            replies.append((ids, [-0.5] * len(ids)))
        said.append([ids for ids, _ in replies])
        return replies

    answer.said = said
    return answer


def rolled(processor, dialogue, texts, *, ends=True, max_tokens=10_000, **settings):
    talk, answer = conversation(processor, dialogue), answering(processor, texts, ends=ends)
    settings = {"max_answer_tokens": 40, **settings}
    roll_out([talk], answer, processor, max_tokens=lambda _: max_tokens, **settings)
    return talk, [ids for (ids,) in answer.said]


ANSWERS = [answer for *_, answer in ECG]


@pytest.mark.parametrize("ends", [True, False])
def test_the_whole_is_what_the_template_would_put_whether_or_not_the_model_ended_its_turns(processor, ends):
    talk, _ = rolled(processor, script(), ANSWERS, ends=ends)
    messages = []
    for _, _, question, answer in ECG:
        told = f"{LAB.text} {question}" if question == "What is it?" else question
        messages += [*user_turn(told, num_images=0), *assistant_turn(answer)]
    wanted = rendered(processor, messages).removesuffix("\n")
    assert processor.tokenizer.decode(talk.token_ids) == (wanted if ends else wanted.removesuffix("<|im_end|>"))


def test_ids_are_kept_as_they_were_sampled_even_where_the_text_would_be_tokenised_otherwise(processor):
    letters = [processor.tokenizer.encode(letter, add_special_tokens=False)[0] for letter in "level"]
    assert letters != processor.tokenizer.encode("level", add_special_tokens=False)
    talk = conversation(processor, script(2))
    roll_out([talk], lambda _: [(letters, [-1.0] * 5)], processor, max_answer_tokens=9, max_tokens=lambda _: 999)
    assert [i for i, turn in zip(talk.completion_ids, talk.turn_of_token, strict=True) if turn == 0] == letters
    assert talk.answers == ["level", "level"]


def test_the_mask_holds_the_sampled_tokens_and_no_other(processor):
    talk, said = rolled(processor, script(), ANSWERS)
    assert sum(talk.loss_mask) == sum(map(len, said))
    for turn, ids in enumerate(said):
        assert [i for i, t in zip(talk.completion_ids, talk.turn_of_token, strict=True) if t == turn] == ids
    own = [p for p, t in zip(talk.logprobs, talk.turn_of_token, strict=True) if t != CLINICIAN]
    assert len(talk.logprobs) == len(talk.completion_ids)
    assert own == [-0.5] * len(own)


def test_what_the_clinician_tells_follows_from_what_the_model_said(processor):
    ordered, _ = rolled(processor, script(), ANSWERS)
    silent, _ = rolled(processor, script(), [*ANSWERS[:2], "Do not order it.", ANSWERS[3]])
    assert LAB.text in processor.tokenizer.decode(ordered.completion_ids)
    assert LAB.text not in processor.tokenizer.decode(silent.completion_ids)


def test_a_dialogue_without_room_is_flagged_and_masked_never_cut(processor):
    whole, said = rolled(processor, script(), ANSWERS)
    short, _ = rolled(
        processor, script(), ANSWERS, max_tokens=len(whole.completion_ids) - 1, max_answer_tokens=len(said[-1])
    )
    assert short.overlong
    assert short.answers == ANSWERS[:3]
    assert short.completion_ids == whole.completion_ids[: len(short.completion_ids)]
    assert short.completion_ids[-len(said[2]) :] == said[2]
    assert sum(short.loss_mask) == 0


def test_dialogues_of_several_lengths_keep_their_order_and_their_own_answers(processor):
    talks = [conversation(processor, script(n)) for n in (1, 4, 2)]
    names = {id(talk): name for talk, name in zip(talks, "abc", strict=True)}

    def answer(asked):
        texts = [f"level {names[id(talk)]}{len(talk.answers)}" for talk in asked]
        return [(processor.tokenizer.encode(t, add_special_tokens=False), [0.0] * 99) for t in texts]

    roll_out(talks, answer, processor, max_answer_tokens=9, max_tokens=lambda _: 9999)
    assert [talk.answers for talk in talks] == [
        ["level a0"],
        ["level b0", "level b1", "level b2", "level b3"],
        ["level c0", "level c1"],
    ]


def test_a_round_in_which_all_is_said_still_calls_the_model_and_drops_what_it_says(processor):
    talk, answer = conversation(processor, script(1)), answering(processor, ANSWERS[:1] * 3)
    calls = []

    def counted(talks):
        calls.append(len(talks))
        return answer(talks) if not talk.answers else [([1], [0.0])]

    roll_out([talk], counted, processor, max_answer_tokens=40, max_tokens=lambda _: 999, num_rounds=3)
    assert calls == [1, 1, 1]
    assert talk.answers == ANSWERS[:1]


def test_images_that_open_later_turns_are_shown_then_and_are_tokens_as_in_training(processor):
    import torch
    from PIL import Image
    from transformers import AutoModelForImageTextToText

    from alignment.dialogues.rollout import inputs_so_far, opened
    from alignment.dialogues.sft import row_tokens

    whole = script(3)
    counts = (1, 0, 2)
    turns = tuple(t.model_copy(update={"images": n, "told": ()}) for t, n in zip(whole.turns, counts, strict=True))
    dialogue = whole.model_copy(update={"turns": turns})
    images = [Image.new("RGB", (64, 64), (shade, 0, 0)) for shade in (0, 120, 240)]
    prompt = user_turn(turns[0].question)
    short = dialogue.model_copy(update={"turns": turns[:1]})
    alone = {"images": images[:1], "prompt": prompt, "dialogue": short.to_json()}
    rows = [{"images": images, "prompt": prompt, "dialogue": dialogue.to_json()}, alone]
    model = AutoModelForImageTextToText.from_pretrained(processor.tokenizer.name_or_path, trust_remote_code=False)
    answer = answering(processor, [turn.answer for turn in turns])
    seen = []

    def looking(talks):
        with torch.no_grad():
            assert model(**inputs_so_far(processor, talks)).logits.isfinite().all()
        seen.append([len(talk.images) for talk in talks])
        return answer(talks)

    talk, other = talks = opened(processor, rows)
    roll_out(talks, looking, processor, max_answer_tokens=40, max_tokens=lambda _: 10_000)
    assert seen == [[1, 1], [1], [3]]
    assert other.images == images[:1]
    said = [*assistant_turn(turns[0].answer)]
    for turn in turns[1:]:
        said += [*user_turn(turn.question, num_images=turn.images), *assistant_turn(turn.answer)]
    trained = row_tokens(processor, {"images": images, "prompt": prompt, "completion": said})
    length = len(talk.token_ids)
    assert trained["input_ids"][:length] == talk.token_ids
    for key, values in talk.per_token.items():
        assert trained[key][:length] == values
