"""What is learnt from a whole dialogue: the answers and the ends of the model's turns, never the clinician's words."""

import pytest
import torch
from PIL import Image
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from alignment.dialogues.sft import DialogueCollator
from alignment.dialogues.turns import after_answer, answer_tokens
from alignment.models.tiny import build_tiny
from data_builders.schema import assistant_turn, user_turn
from rewards.config.input_error import InputError

QUESTIONS = ["Is the field of high quality?", "Which region is it?", "What is the diagnosis?"]
ANSWERS = ["Yes, it is.", "A clot.", "It is normal."]


def row(num_turns):
    prompt = user_turn(QUESTIONS[0])
    completion = assistant_turn(ANSWERS[0])
    for question, answer in zip(QUESTIONS[1:num_turns], ANSWERS[1:num_turns], strict=True):
        completion += [*user_turn(question, num_images=0), *assistant_turn(answer)]
    return {"images": [Image.new("RGB", (64, 64))], "prompt": prompt, "completion": completion}


@pytest.fixture(scope="module", params=["idefics3", "qwen3_vl", "llava"])
def processor(request, tmp_path_factory):
    from alignment.models.processors import load_processor

    folder = tmp_path_factory.mktemp(request.param)
    return load_processor(str(build_tiny([*QUESTIONS, *ANSWERS], folder, family=request.param, image_size=64)))


def learnt(processor, rows):
    batch = DialogueCollator(processor, completion_only_loss=True)(rows)
    return [processor.tokenizer.decode(labels[labels != -100]) for labels in batch["labels"]]


def test_only_the_models_turns_are_learnt_each_with_its_end(processor):
    assert learnt(processor, [row(3), row(1)]) == [
        "Yes, it is.<|im_end|>\nA clot.<|im_end|>\nIt is normal.<|im_end|>\n",
        "Yes, it is.<|im_end|>\n",
    ]


def test_rows_with_one_answer_are_as_trl_makes_them(processor):
    ours = DialogueCollator(processor, completion_only_loss=True)([row(1), row(1)])
    theirs = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)([row(1), row(1)])
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_what_is_left_out_of_the_loss_still_goes_into_the_model(processor):
    batch = DialogueCollator(processor, completion_only_loss=True)([row(2)])
    assert QUESTIONS[1] in processor.tokenizer.decode(batch["input_ids"][0])


def test_a_cut_row_keeps_its_labels_in_place(processor):
    whole = DialogueCollator(processor, completion_only_loss=True)([row(3)])["labels"]
    cut = DialogueCollator(processor, completion_only_loss=True, max_length=whole.shape[1] - 4)([row(3)])["labels"]
    assert torch.equal(cut, whole[:, :-4])


def test_after_an_answer_come_its_end_the_question_and_the_opening_of_the_next_turn(processor):
    tokens = after_answer(processor, user_turn(QUESTIONS[0]), QUESTIONS[1])["input_ids"]
    opened = f"<|im_end|>\n<|im_start|>user\n{QUESTIONS[1]}<|im_end|>\n<|im_start|>assistant\n"
    assert processor.tokenizer.decode(tokens) == opened


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{% for m in messages[-1:] %}{{ m['role'] }}{% endfor %}", "shows an earlier answer 0 times"),
        ("{% for m in messages %}{{ m['content'][-1]['text'] }} {% endfor %}", "no special token ends"),
    ],
)
def test_a_template_that_hides_answers_or_their_ends_is_refused(processor, monkeypatch, template, fault):
    monkeypatch.setattr(processor, "chat_template", template)
    with pytest.raises(InputError, match=fault):
        after_answer(processor, user_turn(QUESTIONS[0], num_images=0), QUESTIONS[1])


def test_a_template_that_rewrites_earlier_turns_is_refused(processor, monkeypatch):
    template = "{{ messages | length }}{% for m in messages %}{{ m['content'][-1]['text'] }}<|im_end|>{% endfor %}"
    monkeypatch.setattr(processor, "chat_template", template)
    one = row(2)
    with pytest.raises(InputError, match="sft_rows: turns"):
        answer_tokens(processor, one["prompt"], one["completion"])


def row_with_later_images():
    images = [Image.new("RGB", (64, 64), (shade, 0, 0)) for shade in (0, 120, 240)]
    later = [*user_turn(QUESTIONS[1], num_images=2), *assistant_turn(ANSWERS[1])]
    return {**row(1), "images": images, "completion": [*assistant_turn(ANSWERS[0]), *later]}


def test_images_open_later_turns_and_only_answers_are_learnt(processor):
    rows = [row_with_later_images(), row(1)]
    assert learnt(processor, rows) == ["Yes, it is.<|im_end|>\nA clot.<|im_end|>\n", "Yes, it is.<|im_end|>\n"]
    batch = DialogueCollator(processor, completion_only_loss=True)(rows)
    image_id = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    shown = (batch["input_ids"] == image_id).sum(dim=1)
    assert shown[0] == 3 * shown[1] > 0


def test_tokens_by_piece_are_those_of_trl_where_no_image_comes_later(processor):
    from alignment.dialogues.sft import row_tokens

    theirs = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)([row(1)])
    ours = row_tokens(processor, row(1))
    assert {key: theirs[key][0].tolist() for key in ours} == ours


def test_a_model_takes_a_batch_of_rows_with_and_without_later_images(processor):
    from transformers import AutoModelForImageTextToText

    batch = DialogueCollator(processor, completion_only_loss=True)([row_with_later_images(), row(1)])
    model = AutoModelForImageTextToText.from_pretrained(processor.tokenizer.name_or_path, trust_remote_code=False)
    assert model(**batch).loss.isfinite()


def test_a_row_with_later_images_is_not_cut_within_them(processor):
    with pytest.raises(InputError, match=r"Use data\.too_long: drop"):
        DialogueCollator(processor, completion_only_loss=True, max_length=8)([row_with_later_images()])
