"""The trainers in the place of trl's: the same arguments, rows and numbers, and a sentence for what they cannot do."""

import inspect
import io
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Image, List
from PIL import Image as PilImage
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

from alignment import (
    SharedPrefixGRPOTrainer,
    WeightedDPOTrainer,
    Weighting,
    generate,
    load_for_inference,
    trl_reward,
)
from alignment.models.generation import unsampled_tokens
from alignment.models.processors import load_processor
from alignment.models.tiny import build_tiny
from alignment.reward_functions.own_rewards import as_trl_rewards
from alignment.shared_prefix.image_rows import decoded_once, undecoded
from rewards import load_reward
from rewards.config.input_error import InputError
from tests.alignment.training.moving_grpo import assert_moved_alike, weights_of

pytestmark = pytest.mark.filterwarnings("default")
SAMPLING = {"num_generations": 4, "per_device_train_batch_size": 4, "max_completion_length": 6, "beta": 0.1}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a tiny model."""
    texts = ["is there a nodule ? yes on the left", "no the heart is large"] * 3
    return str(build_tiny(texts, tmp_path_factory.mktemp("start") / "tiny", image_size=64))


@pytest.fixture
def settings(tmp_path):
    """A function that gives the arguments of a short run: plain steps down the gradient."""

    def of(config, **changes):
        return config(**{
            "output_dir": str(tmp_path / "out"), "report_to": "none", "bf16": False, "max_steps": 2,
            "logging_steps": 1, "per_device_train_batch_size": 2, "learning_rate": 0.03, "optim": "sgd",
            "max_grad_norm": 1.0e9, "lr_scheduler_type": "constant", "save_strategy": "no", "disable_tqdm": True,
            **changes,
        })  # fmt: skip

    return of


def picture(seed):
    return PilImage.fromarray(np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype="uint8"))


def message(role, text):
    return [{"role": role, "content": text}]


def pairs(images=None, *, plain=False, **columns):
    """Preference rows in trl's columns: ``image``, ``images`` or neither, messages or plain texts."""
    texts = [("is there a nodule ?", "yes on the left", f"no {'heart ' * k}is large") for k in range(3)]
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    rows = [dict(zip(roles, row, strict=True)) for row in texts]
    if not plain:
        rows = [{name: message(roles[name], text) for name, text in row.items()} for row in rows]
    pictures = [{"image": picture(k)} if images == "image" else {"images": [picture(k)]} for k in range(3)]
    rows = [row | picture for row, picture in zip(rows, pictures, strict=True)] if images else rows
    data = Dataset.from_list(rows)
    for name, values in columns.items():
        data = data.add_column(name, values)
    return data


def prompts(images=None, **columns):
    return pairs(images, **columns).remove_columns(["chosen", "rejected"])


def variety(completions, **_):
    """A reward that even a random model's answers differ in."""
    return [len(set(c[0]["content"])) / 10 for c in completions]


def trained(trainer):
    """The log of the steps, and the weights before and after."""
    before = weights_of(trainer.model)
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry], before, weights_of(trainer.model)


def assert_alike(stock, ours, given, names):
    """Both trainers go the same way, and somewhere. Each is made as it is used: making one sets the random seed."""
    (want, start, moved), (log, _, weights) = trained(stock(**given)), trained(ours(**given))
    assert_moved_alike(weights, moved, start, within=1e-3)
    for name in names:
        assert [e[name] for e in log] == pytest.approx([e[name] for e in want], abs=1e-4, rel=1e-4), name
    assert len(log) == 2
    return log


@pytest.mark.parametrize("ours", [SharedPrefixGRPOTrainer, WeightedDPOTrainer])
def test_the_arguments_are_those_of_trl_in_its_order(ours):
    stock = {SharedPrefixGRPOTrainer: GRPOTrainer, WeightedDPOTrainer: DPOTrainer}[ours]
    want = inspect.signature(stock.__init__).parameters.values()
    have = list(inspect.signature(ours.__init__).parameters.values())
    assert [(p.name, p.default) for p in have][: len(want)] == [(p.name, p.default) for p in want]
    assert all(p.kind is p.KEYWORD_ONLY for p in have[len(want) :])


@pytest.mark.slow
@pytest.mark.parametrize(("images", "plain"), [("image", False), ("images", False), (None, False), (None, True)])
def test_dpo_in_the_place_of_trls_gives_the_same_steps(tiny, settings, images, plain):
    given = {"model": tiny, "args": settings(DPOConfig), "train_dataset": pairs(images, plain=plain)}
    given["processing_class"] = load_processor(tiny)
    log = assert_alike(DPOTrainer, WeightedDPOTrainer, given, ("loss", "grad_norm", "rewards/margins"))
    assert all(entry["tokens/saved"] > 0 for entry in log)


@pytest.mark.slow
@pytest.mark.parametrize("images", ["image", "images", None])
def test_grpo_in_the_place_of_trls_gives_the_same_steps(tiny, settings, images):
    processor = load_processor(tiny)
    own = {"generation_kwargs": {"suppress_tokens": unsampled_tokens(processor)}}
    given = {"model": tiny, "reward_funcs": variety, "train_dataset": prompts(images), "processing_class": processor}
    given["args"] = settings(GRPOConfig, **SAMPLING, **own)
    names = ("loss", "grad_norm", "reward", "kl", "completions/mean_length")
    assert all(entry["tokens/saved"] > 0 for entry in assert_alike(GRPOTrainer, SharedPrefixGRPOTrainer, given, names))


@pytest.mark.slow
def test_a_weight_of_the_rows_scales_their_loss_unless_it_is_not_used(tiny, settings):
    def losses(data, **more):
        given = {"args": settings(DPOConfig, per_device_train_batch_size=3, max_steps=1), "train_dataset": data}
        trainer = WeightedDPOTrainer(tiny, processing_class=load_processor(tiny), **given, **more)
        return trained(trainer)[0][0]["loss"]

    ln2 = 0.6931
    assert losses(pairs("image", weight=[0.0, 0.5, 2.5])) == pytest.approx(ln2, abs=1e-4)  # their mean is 1
    assert losses(pairs("image", weight=[0.0, 0.0, 1.5])) == pytest.approx(ln2 / 2, abs=1e-4)
    unused = Weighting(use=False)
    assert losses(pairs("image", weight=[0.0, 0.0, 1.5]), weighting=unused) == pytest.approx(ln2, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("images", ["image", None])
def test_references_computed_before_are_kept_under_the_output_folder(tiny, settings, tmp_path, monkeypatch, images):
    monkeypatch.delenv("CLINALIGN_CACHE", raising=False)
    want = trained(WeightedDPOTrainer(tiny, args=settings(DPOConfig), train_dataset=pairs(images)))[0]
    early = settings(DPOConfig, precompute_ref_log_probs=True, eval_strategy="steps", eval_steps=1)
    trainer = WeightedDPOTrainer(tiny, args=early, train_dataset=pairs(images), eval_dataset=pairs(images))
    assert [e["loss"] for e in trained(trainer)[0]] == pytest.approx([e["loss"] for e in want], abs=1e-4)
    assert len(list((tmp_path / "out/.cache/reference_logps").iterdir())) == 1
    assert trainer.state.log_history[0]["loss"] > trainer.state.log_history[1]["eval_loss"] > 0
    assert early.precompute_ref_log_probs  # the caller's are as they were
    alone = settings(DPOConfig, precompute_ref_log_probs=True)
    alone = WeightedDPOTrainer(tiny, args=alone, train_dataset=pairs(images))
    assert alone.ref_model is None  # nothing else asks it


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_dataset": "renamed"}, "no column 'rejected', which preference rows need. Did you mean 'reject'?"),
        ({"train_dataset": "unasked"}, "no column 'prompt', which preference rows with images need"),
        ({"shared_prefix": "yes"}, "shared_prefix: one of auto, on, cached, off is expected, got 'yes'"),
        ({"args": {"loss_type": ["ipo"]}}, r"loss_type: weighted DPO knows \['sigmoid'\], got \['ipo'\]"),
        ({"args": {"f_divergence_type": "js_divergence"}}, "f_divergence_type: weighted DPO knows 'reverse_kl'"),
        ({"args": {"use_weighting": True}}, "use_weighting: weighted DPO knows False, got True"),
        ({"data_collator": "stock"}, "data_collator: DataCollatorForVisionPreference makes other batches"),
        ({"compute_metrics": print}, "compute_metrics: no logits are kept"),
    ],
)
def test_dpo_says_what_it_cannot_do(tiny, settings, changes, message):
    processor, data = load_processor(tiny), pairs("image")
    sets = {"renamed": data.rename_column("rejected", "reject"), "unasked": data.remove_columns("prompt")}
    given = {
        "args": settings(DPOConfig, **changes.get("args", {})),
        "train_dataset": sets.get(changes.get("train_dataset"), data),
        "shared_prefix": changes.get("shared_prefix", "auto"),
        "data_collator": DataCollatorForVisionPreference(processor) if "data_collator" in changes else None,
        "compute_metrics": changes.get("compute_metrics"),
    }
    with pytest.raises(InputError, match=message):
        WeightedDPOTrainer(tiny, processing_class=processor, **given)


@pytest.mark.parametrize("weight", [None, -1.0, float("nan"), "much"])
def test_a_weight_that_is_none_is_named(tiny, settings, weight):
    weights = ["1", weight, "1"] if isinstance(weight, str) else [1.0, weight, 1.0]
    data = pairs("image", weight=weights, id=["a", "b", "c"])
    trainer = WeightedDPOTrainer(tiny, args=settings(DPOConfig), train_dataset=data)
    with pytest.raises(InputError, match=r"weight: row '[ab]' has .*; every row needs a number of 0 or more"):
        trainer.data_collator([data[0], data[1]])


def test_a_single_image_under_the_name_of_several_is_named(tiny, settings):
    data = pairs("image").rename_column("image", "images")
    trainer = WeightedDPOTrainer(tiny, args=settings(DPOConfig), train_dataset=data)
    with pytest.raises(InputError, match="a row has a PngImageFile, not a list of images; call a column"):
        trainer.data_collator([data[0]])


def test_rewards_of_ours_are_taken_by_name_and_others_left_to_trl():
    data = prompts(answer=["yes", "no", "no"])

    def own(response):
        return float(len(response))

    ours = as_trl_rewards(["closed_answer", load_reward("length", min_words=2), variety, "org/a_model", own], data)
    answered = [message("assistant", f"<answer>{word}</answer>") for word in ("yes", "yes", "no way")]
    assert ours[0](completions=answered, answer=["yes", "no", "no"], completion_ids=[[1]] * 3) == [1.0, 0.0, 0.0]
    assert ours[1].__name__ == "length"
    assert ours[2:4] == [variety, "org/a_model"]
    assert ours[4](prompts=["?"], completions=["abc"], completion_ids=[[1]]) == [3.0]
    with pytest.raises(InputError, match=r"no reward named 'close_answer'. Did you mean 'closed_answer'"):
        as_trl_rewards("close_answer", data)
    with pytest.raises(InputError, match="reward_funcs: functions, models or names are expected, got 3"):
        as_trl_rewards([3], data)
    with pytest.raises(
        InputError, match=r"no column 'answer', which the reward 'closed_answer' reads. Did you mean 'ans"
    ):
        as_trl_rewards(["closed_answer"], data.rename_column("answer", "answers"))


def test_prompts_and_columns_that_are_not_there_are_named(tiny, settings):
    with pytest.raises(InputError, match=r"no column 'prompt', which prompt rows need. It has question"):
        SharedPrefixGRPOTrainer(
            tiny, variety, settings(GRPOConfig, **SAMPLING), prompts().rename_column("prompt", "question")
        )
    with pytest.raises(InputError, match="reward 'closed_answer' reads the column 'answer', but the rows have: image"):
        trl_reward("closed_answer")(completions=["yes"], image=[None])


def test_a_function_of_the_users_is_paid_row_by_row_and_shares_no_name_with_ours():
    def length(response, answer, *, most=2):
        return float(len(response.split()) <= most) if answer else None

    reward, logged = trl_reward(length, most=1), {}
    values = reward(completions=["one", "one two", "x"], answer=["a", "b", ""], log_metric=logged.__setitem__)
    assert values == [1.0, 0.0, None]
    assert logged == {}  # ours of this name has parts, which this one has not
    assert trl_reward(length, tasks=["box"])(completions=["one"], answer=["a"], task=["open"]) == [None]
    with pytest.raises(InputError, match="'length' is loaded already; give load_reward its most"):
        trl_reward(load_reward("length"), most=1)
    with pytest.raises(InputError, match="a reward's name or a function is expected, got 3"):
        trl_reward(3)
    with pytest.raises(InputError, match=r"'length' has no knob 'mots'. Did you mean 'most'. Knobs: most"):
        trl_reward(length, mots=1)
    with pytest.raises(InputError, match="'variety' is in TRL's own form; hand it to the trainer as it is"):
        trl_reward(variety)


def test_answers_are_given_to_rows_in_trls_columns(tiny):
    model, processor = load_for_inference(Path(tiny))
    blocks = [{"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "a nodule ?"}]}]
    rows = [{"images": [picture(1)], "prompt": blocks}, {"image": picture(1), "prompt": message("user", "a nodule ?")}]
    ours, theirs = generate(model, processor, rows, max_new_tokens=4)
    assert ours == theirs
    assert len(ours) == 1


def test_a_picture_that_lies_on_its_side_is_turned_as_datasets_turns_it():
    lying, exif = io.BytesIO(), PilImage.Exif()
    exif[0x0112] = 6
    PilImage.new("L", (8, 4)).save(lying, "JPEG", exif=exif)
    row = {"image": {"bytes": lying.getvalue(), "path": None}}
    taken = decoded_once([row, {"images": [row["image"]]}])
    assert taken[0]["image"].size == taken[1]["images"][0].size == (4, 8)


def test_only_plain_columns_of_images_are_left_undecoded():
    assert undecoded(prompts("images")).features["images"] == List(Image(decode=False))
    assert undecoded(prompts("image")).features["image"] == Image(decode=False)
    grey = prompts("image").cast_column("image", Image(mode="L"))
    assert undecoded(grey).features["image"] == Image(mode="L")
    changed = prompts("image").with_transform(lambda rows: rows)
    assert undecoded(changed) is changed
