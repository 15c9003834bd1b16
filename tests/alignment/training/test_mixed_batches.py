"""A batch of text on one process beside a batch of images on another: same parameters, same losses, nobody waits."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset

from alignment.shared_prefix.support import PROVEN
from alignment.training.mixed_batches import dummy_image, run_vision_always
from tests.alignment.distributed.test_deepspeed import ROOT, assert_trained_alike, launched, start
from tests.alignment.models.tiny_families import PIXELS, build, prompt_inputs, rows
from tests.alignment.training.moving_grpo import PAID, SGD, assert_moved_alike, weights_of

__all__ = ["start"]
ROWS = 8


def trained_parameters(model, inputs):
    """The names of parameters that get a gradient from a forward of these inputs, and the logits."""
    model.zero_grad(set_to_none=True)
    logits = model(**inputs, use_cache=False).logits
    logits.sum().backward()
    return {name for name, p in model.named_parameters() if p.grad is not None}, logits.detach()


@pytest.mark.parametrize("family", PROVEN)
def test_text_alone_gives_every_parameter_a_gradient_that_images_give_one(family):
    if family not in PIXELS:
        pytest.skip("no bare tensors for this family")
    model = build(family).train()
    batch = rows()
    images, text = (prompt_inputs(family, model, part) for part in (batch[:1], batch[2:3]))
    with_images, _ = trained_parameters(model, images)
    before, plain = trained_parameters(model, text)
    assert before < with_images
    run_vision_always(model, PIXELS[family](batch[:1]))
    after, same = trained_parameters(model, text)
    assert after == with_images
    assert torch.equal(same, plain)
    vision = [p.grad for name, p in model.named_parameters() if name in with_images - before]
    assert all(not grad.any() for grad in vision)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["idefics3", "qwen3_vl", "llava"])
def test_the_dummy_image_fits_the_family_of_the_processor(family, data, tmp_path):
    from alignment.models.loading import load_model
    from alignment.models.prepared import built_texts
    from alignment.models.processors import load_processor
    from alignment.models.tiny import build_tiny

    folder = str(
        build_tiny(built_texts(str(data / "instruction/sft")), tmp_path / family, family=family, image_size=64)
    )
    model, processor = load_model(folder).train(), load_processor(folder)
    run_vision_always(model, dummy_image(processor))
    ids = processor(text=["no image here"], return_tensors="pt")
    names, _ = trained_parameters(model, dict(ids))
    assert any("vis" in name for name in names)


def test_generation_of_text_is_left_as_it_was():
    model = build("qwen2_5_vl")
    run_vision_always(model, PIXELS["qwen2_5_vl"](rows()[:1]))
    calls = []
    model.base_model.visual.register_forward_hook(lambda *_: calls.append(1))
    inputs = prompt_inputs("qwen2_5_vl", model, rows()[2:3])
    model.generate(**inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    assert calls == []


def half_text(source, target, pattern):
    """Rows of ``source``; where ``pattern`` says ``t``, without their image. One letter a row, in turn."""
    table = Dataset.from_parquet(str(source)).select(range(len(pattern)))
    content = pq.read_table(source).slice(0, len(pattern)).to_pylist()
    for row, letter in zip(content, pattern, strict=True):
        if letter == "t":
            row["images"] = row["image_size"] = []
            for message in row["prompt"]:
                message["content"] = [part for part in message["content"] if part["type"] != "image"]
    schema = pq.read_schema(source)
    assert len(table) == len(content)
    target.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(content, schema=schema), target)
    return str(target)


SOURCES = {"sft": "instruction/sft", "dpo": "preference/align", "grpo": "prompt/align"}


def mixed_run(write_recipe, data, start, tmp_path, name, method, **trainer):
    """A recipe whose process 0 gets batches of text and process 1 batches of images, in the order of the file.

    A process trains on two rows at a time, in GRPO on two answers to one.
    """
    rows_file = tmp_path / name / "data" / "mixed.parquet"
    pattern = "ti" * (ROWS // 2) if method == "grpo" else "ttii" * (ROWS // 4)
    train = half_text(data / f"{SOURCES[method]}.parquet", rows_file, pattern)
    order = {"shuffle_dataset": False} if method == "grpo" else {"train_sampling_strategy": "sequential"}
    own = {**SGD, "num_generations": 2} if method == "grpo" else {"seed": 5, "lr_scheduler_type": "constant"}
    settings = {**own, **order, **trainer, "max_steps": 2}
    changes = {"data": {"train": train, "largest_first": False}, **({"rewards": PAID} if method == "grpo" else {})}
    folder = str(tmp_path / name / "out")
    return write_recipe(method, model={"path": str(start)}, trainer=settings, output=folder, **changes)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
def test_text_on_one_rank_and_images_on_the_other_train_like_one_process(
    write_recipe, data, start, tmp_path, method, stage
):
    settings = str(ROOT / f"recipes/deepspeed/zero{stage}.json")
    both = mixed_run(
        write_recipe, data, start, tmp_path, "both", method, per_device_train_batch_size=2, deepspeed=settings
    )
    ranks = launched(both, tmp_path / "seen2", 2, "forced")
    assert [seen["zero_stage"] for seen in ranks] == [stage] * 2
    assert len(ranks[0]["losses"]) == 2
    assert [seen["with_images"] for seen in ranks] == [[False, False], [True, True]]
    one = mixed_run(write_recipe, data, start, tmp_path, "one", method, per_device_train_batch_size=4)
    (alone,) = launched(one, tmp_path / "seen1", 1, "forced")
    assert_trained_alike(ranks[0], alone)
    if method == "grpo":
        folders = tmp_path / "seen2/model", tmp_path / "seen1/model", start
        assert_moved_alike(*map(weights_of, folders), within=1e-3)
