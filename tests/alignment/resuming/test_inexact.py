"""What is kept of other ranks' checkpoints, and what is told of the rest. Whole runs: ``test_inexact_resume.py``."""

import json
import os
from types import SimpleNamespace

import pytest
import torch

from alignment.resuming.finite import FiniteTraining
from alignment.resuming.inexact import (
    ANSWERS,
    FOLDER,
    INEXACT,
    SLICES,
    InexactResume,
    draw_anew,
    inexact_resume,
    joined_state,
    note_resumes,
    put_together,
)
from alignment.resuming.kept_state import write_state
from alignment.resuming.ledger import Stretch
from alignment.resuming.resumable import Resumable
from rewards.config.input_error import InputError


def trainer_of(ranks, **arguments):
    args = SimpleNamespace(world_size=ranks, train_batch_size=2, **arguments)
    return SimpleNamespace(args=args, num_iterations=2, order=None, batch_tokens=None, train_dataset=range(18))


def test_the_loss_since_the_last_line_of_the_log_is_the_mean_over_the_ranks_that_had_it(tmp_path):
    checkpoint = tmp_path / "checkpoint-5"
    checkpoint.mkdir()
    for rank, loss in enumerate([1.0, 4.0]):
        state = {"loss": torch.tensor(loss), "last_logged": 3, "step": 10, "buffer": [torch.ones(2)]}
        write_state(checkpoint / f"state_of_rank{rank}.safetensors", state)
    state = joined_state(checkpoint, 2, turns=4, device="cpu:0")
    assert float(state["loss"]) == (1.0 + 4.0) / 2  # what the log shows is the mean over the ranks of now
    assert (state["last_logged"], state["step"], state["buffer"]) == (3, 5 * 4, None)


@pytest.mark.parametrize(("step", "told"), [(4, False), (5, True)])
def test_answers_are_lost_within_a_generation_batch_only(tmp_path, step, told):
    trainer = trainer_of(1, steps_per_generation=2, gradient_accumulation_steps=1)  # of 2 x 2 turns
    resume = inexact_resume(trainer, tmp_path / f"checkpoint-{step}", 2)
    assert (ANSWERS in resume.not_kept) == told
    assert f"checkpoint-{step} was written by 2 processes, and this run has 1" in str(resume)


def test_rows_that_fill_up_an_epoch_are_told_where_their_number_changes(tmp_path):
    checkpoint = tmp_path / "checkpoint-4"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text('{"train_batch_size": 2}')
    told = "rows seen twice to fill up an epoch's last batch (2 before, 0 now)"  # 18 rows by fours, and by twos
    assert told in inexact_resume(trainer_of(1), checkpoint, 2).not_kept
    (checkpoint / "trainer_state.json").write_text('{"train_batch_size": 1}')
    assert not any("fill up" in lost for lost in inexact_resume(trainer_of(1), checkpoint, 2).not_kept)


def test_provenance_keeps_the_places_that_the_run_has_gone_through(tmp_path):
    file = tmp_path / "provenance.json"
    file.write_text(json.dumps({"seed": 3}))
    note_resumes(tmp_path, [], None)
    assert json.loads(file.read_text()) == {"seed": 3}
    first, second = (InexactResume(f"checkpoint-{s}", s, 2, 1, []) for s in (4, 8))
    note_resumes(tmp_path, [Stretch(4, 2)], first)
    note_resumes(tmp_path, [Stretch(4, 2), Stretch(8, 1)], second)
    assert [place["step"] for place in json.loads(file.read_text())[INEXACT]] == [4, 8]
    note_resumes(tmp_path, [Stretch(4, 2)], first)  # went on from 4 once more: 8 was undone
    assert [place["step"] for place in json.loads(file.read_text())[INEXACT]] == [4]
    note_resumes(tmp_path, [], None)  # and from its start
    assert json.loads(file.read_text())[INEXACT] == []


class Trainer(Resumable):
    """A trainer of which only the random states are asked for."""

    def __init__(self, before, checkpoint):
        self.ranks_before, self.resumed_from = before, checkpoint
        self.args = SimpleNamespace(seed=5, process_index=0)


def test_a_run_on_other_ranks_draws_anew_and_takes_no_state_of_theirs(tmp_path, monkeypatch):
    monkeypatch.setattr(FiniteTraining, "_load_rng_state", lambda _, file: torch.manual_seed(77), raising=False)
    drawn = {}
    for before in (None, 2):
        Trainer(before, tmp_path / "checkpoint-4")._load_rng_state("checkpoint-4")
        drawn[before] = float(torch.rand(1))
    torch.manual_seed(77)
    assert drawn[None] == float(torch.rand(1))
    draw_anew(5, 4, 0)
    assert drawn[2] == float(torch.rand(1))


def test_random_states_differ_by_rank_and_step_and_are_the_same_again():
    def drawn(*key):
        draw_anew(*key)
        return float(torch.rand(1))

    keys = [(5, 4, 0), (5, 4, 1), (5, 8, 0), (6, 4, 0)]
    assert len({drawn(*key) for key in keys}) == 4
    assert [drawn(*key) for key in keys] == [drawn(*key) for key in keys]


class Bomb:
    """Whoever unpickles it leaves a folder ``marker``."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint in DeepSpeed's form, in whose universal folder another has left something."""
    folder = tmp_path / "checkpoint-4"
    (folder / "global_step4").mkdir(parents=True)
    (folder / "latest").write_text("global_step4")
    (folder / FOLDER / "zero").mkdir(parents=True)
    (folder / FOLDER / "zero/optimizer_state.pt").write_bytes(b"of an attacker")
    return folder


def test_a_pickle_of_another_is_not_run_where_shards_are_put_together(checkpoint, tmp_path):
    marker = tmp_path / "it_ran"
    torch.save({"optimizer_state_dict": Bomb(marker)}, checkpoint / "global_step4/zero_pp_rank_0_optim_states.pt")
    with pytest.raises(InputError, match=r"checkpoint-4: a pickle in it is no plain data \(it names posix\.mkdir\)"):
        put_together(checkpoint)
    assert not marker.exists()
    assert not (checkpoint / FOLDER / "zero/optimizer_state.pt").exists()


def test_an_optimizer_that_is_not_adam_is_told(checkpoint, monkeypatch):
    def without_moments(_):
        raise KeyError("exp_avg")

    monkeypatch.setattr("deepspeed.checkpoint.ds_to_universal.main", without_moments)
    with pytest.raises(InputError, match=r"holds the moments of Adam only, .* \(trainer\.optim\) keeps others"):
        put_together(checkpoint)
    assert not (checkpoint / FOLDER).exists()


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside", "layer/weight", "a..b", ""])
@pytest.mark.parametrize("where", ["param_shapes", "slices"])
def test_a_parameter_whose_name_would_leave_the_folder_is_refused(checkpoint, monkeypatch, name, where):
    """DeepSpeed joins the name to a folder and makes it."""
    monkeypatch.setattr("deepspeed.checkpoint.ds_to_universal.main", lambda _: pytest.fail("was put together"))
    groups = [{"model.layers.0.weight": 1}, {name: 2}]
    content = {"optimizer_state_dict": {SLICES: groups}} if where == "slices" else {"param_shapes": groups}
    torch.save(content, checkpoint / "global_step4/zero_pp_rank_0_mp_rank_00_model_states.pt")
    with pytest.raises(InputError, match="which is no name of one"):
        put_together(checkpoint)
    assert not (checkpoint / FOLDER).exists()
