"""The trainer for GRPO in the place of trl's, on two processes of which one gets text and the other images."""

import json
import os

import pytest
import torch
from datasets import Dataset, Image, List
from trl import GRPOConfig

from alignment import SharedPrefixGRPOTrainer
from alignment.models.generation import unsampled_tokens
from alignment.models.processors import load_processor
from data_builders.schema import user_turn
from tests.alignment.distributed.test_ranks import exit_codes, launcher
from tests.alignment.resuming.test_resume_after_kill import SERVER
from tests.alignment.training.test_drop_ins import picture, tiny

__all__ = ["tiny"]


def text_and_images():
    """Rows in turn without an image and with one: of each generation, rank 0 gets the first and rank 1 the second."""
    rows = [
        {"prompt": user_turn("is there a nodule ?", num_images=k % 2), "images": [picture(k)] * (k % 2)}
        for k in range(4)
    ]
    return Dataset.from_list(rows).cast_column("images", List(Image()))


def drop_in(model, folder, settings, env):
    """A process's whole work: a script of a user's, up to the weights that its rank ends with."""
    os.environ.update(env)
    folder.mkdir()
    with (folder / "log").open("w") as log:
        os.dup2(log.fileno(), 2)
    trained_here(model, folder, settings)


def trained_here(model, folder, settings):
    seen = []

    def variety(completions, images, **_):
        seen.append([len(each) for each in images])
        return [len(set(c[0]["content"])) / 10 for c in completions]

    processor = load_processor(model)
    trainer = SharedPrefixGRPOTrainer(
        model,
        variety,
        GRPOConfig(**settings, generation_kwargs={"suppress_tokens": unsampled_tokens(processor)}),
        text_and_images(),
        processing_class=processor,
    )
    torch.save(trainer.model.state_dict(), folder / "start")
    trainer.train()
    logged = [len(images or []) for images in trainer._logs["images"]]
    torch.save(trainer.model.state_dict(), folder / "weights")
    (folder / "seen.json").write_text(json.dumps([seen, logged]))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_text_on_one_rank_and_images_on_the_other_end_with_equal_weights(tiny, tmp_path):
    settings = {
        "output_dir": str(tmp_path / "out"), "report_to": "none", "bf16": False, "use_cpu": True, "max_steps": 2,
        "per_device_train_batch_size": 2, "num_generations": 2, "max_completion_length": 6, "learning_rate": 0.03,
        "optim": "sgd", "save_strategy": "no", "disable_tqdm": True, "shuffle_dataset": False,
        "log_completions": True, "ddp_find_unused_parameters": False,
    }  # fmt: skip
    shared, folders = launcher(2) | {"OMP_NUM_THREADS": "1"}, [tmp_path / f"rank{k}" for k in range(2)]
    of_rank = [{**shared, "RANK": str(k), "LOCAL_RANK": str(k)} for k in range(2)]
    ranks = [SERVER.Process(target=drop_in, args=(tiny, folders[k], settings, of_rank[k])) for k in range(2)]
    codes = exit_codes(ranks)
    assert codes == [0, 0], [(folder / "log").read_text()[-2000:] for folder in folders]
    seen, logged = zip(*(json.loads((folder / "seen.json").read_text()) for folder in folders), strict=True)
    assert seen == ([[0, 0]] * 2, [[1, 1]] * 2)
    assert logged == ([0, 0, 1, 1],) * 2
    first, second = (torch.load(folder / "weights") for folder in folders)
    start = torch.load(folders[0] / "start")
    assert all(first[name].equal(second[name]) for name in first)
    assert any("vis" in name and not first[name].equal(start[name]) for name in first)
