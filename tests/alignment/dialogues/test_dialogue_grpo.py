"""GRPO over dialogues on a tiny random model: what is sampled is what is trained on, and only that."""

import copy
import json
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from alignment.checks.read_recipe import read_recipe
from alignment.dialogues.checks import dialogues_that_fit
from alignment.dialogues.rollout import CLINICIAN
from alignment.training.run import run
from alignment.training.trainer import make_trainer
from rewards.config.input_error import InputError
from rewards.dialogues.dialogue import read_dialogue

pytestmark = pytest.mark.filterwarnings("default")
TRAINER = {"max_completion_length": 400, "num_generations": 2, "loss_type": "grpo", "seed": 1, "max_steps": 1}
BETTER = [{"name": "dialogue_consistency"}]


@pytest.fixture
def recipe_of(write_recipe, marrow):
    def recipe(credit="turn", rewards=BETTER, data="prompt/align", trainer=None, **changes):
        dialogue = {"credit": credit, "max_answer_tokens": 5, **changes.pop("dialogue", {})}
        train = {"train": data if data.endswith(".parquet") else str(marrow / data)}
        changes |= {"data": train, "rewards": rewards, "dialogue": dialogue, "trainer": {**TRAINER, **(trainer or {})}}
        return write_recipe("grpo", **changes)

    return recipe


def batch_of(trainer, size=4):
    """The inputs of one step, each row twice, and what TRL makes of them."""
    rows = [dict(trainer.train_dataset[k // 2]) for k in range(size)]
    trainer.model.train()
    torch.manual_seed(0)
    return rows, trainer._generate_and_score_completions(rows)


@pytest.fixture(scope="module")
def stepped(marrow, tmp_path_factory):
    """A trainer that credits turns, the rows of one step, and what TRL makes of them."""
    folder = tmp_path_factory.mktemp("stepped")
    content = {
        "method": "grpo",
        "output": str(folder / "run"),
        "model": {"path": "tiny", "image_size": 64},
        "data": {"train": str(marrow / "prompt/align")},
        "rewards": BETTER,
        "dialogue": {"credit": "turn", "max_answer_tokens": 5},
        "trainer": {**TRAINER, "per_device_train_batch_size": 4, "activation_checkpointing": False},
    }
    path = folder / "grpo.yaml"
    path.write_text(yaml.safe_dump(content))
    trainer = make_trainer(read_recipe(path), folder / "run")
    trainer.recipe_path = path
    return trainer, *batch_of(trainer)


@pytest.fixture
def step(recipe_of, tmp_path):
    def made(**settings):
        trainer = make_trainer(read_recipe(recipe_of(**settings)), tmp_path / "run")
        return trainer, *batch_of(trainer)

    return made


def own_tokens(row, ids):
    return [i for i, turn in zip(ids, row["turn_of_token"], strict=False) if turn != CLINICIAN]


def test_what_was_sampled_is_what_is_trained_on(stepped):
    trainer, rows, output = stepped
    with torch.no_grad():
        ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
        seen = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
        width = output["completion_ids"].shape[1]
        images = {k: output[k] for k in ("pixel_values", "pixel_attention_mask", "num_images") if k in output}
        logps, *_ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, seen, width, **images)
    mask = (output["completion_mask"] * output["tool_mask"]).bool()
    # the log-probability under which each token was drawn is the one that the loss sees at its place
    assert torch.allclose(logps[mask], output["sampling_per_token_logps"][mask], atol=2e-4)
    for row, ids_T, mask_T in zip(rows, output["completion_ids"].tolist(), mask.tolist(), strict=True):
        assert [i for i, kept in zip(ids_T, mask_T, strict=True) if kept] == own_tokens(row, ids_T)
        texts = [trainer._tokenizer.decode(_turn(row, ids_T, k), skip_special_tokens=True).strip() for k in range(5)]
        assert texts[: len(row["model_turns"])] == row["model_turns"]


def _turn(row, ids, turn):
    return [i for i, t in zip(ids, row["turn_of_token"], strict=False) if t == turn]


def test_the_clinicians_tokens_have_no_gradient_and_do_not_enter_the_loss(step, monkeypatch):
    trainer, _, output = step(credit="dialogue", trainer={"beta": 0.1})
    output["advantages"] = torch.tensor([1.0, -1.0, 0.5, -0.5])
    trainer.current_gradient_accumulation_steps = 1  # set by TRL when training begins
    mask = (output["completion_mask"] * output["tool_mask"]).bool()
    torch.manual_seed(1)
    logps = (-torch.rand(mask.shape)).requires_grad_()
    monkeypatch.setattr(
        trainer, "_get_per_token_logps_and_entropies", lambda *_, **__: (logps, torch.ones(mask.shape), None)
    )
    loss = trainer._compute_loss(trainer.model, output)
    loss.backward()
    assert (logps.grad[~mask] == 0).all()
    assert (logps.grad[mask] != 0).all()
    with torch.no_grad():
        logps[~mask] += torch.randn(int((~mask).sum()))
        assert trainer._compute_loss(trainer.model, output) == loss


def test_the_mask_sums_to_the_generated_tokens_and_their_mean_is_what_is_logged(stepped):
    trainer, rows, output = stepped
    mask = output["completion_mask"] * output["tool_mask"]
    generated = [sum(t != CLINICIAN for t in row["turn_of_token"]) for row in rows]
    assert mask.sum(1).tolist() == generated
    assert trainer._metrics["train"]["completions/mean_length"] == [pytest.approx(sum(generated) / len(rows))]
    assert int(output["num_items_in_batch"]) == sum(generated)


def test_every_row_keeps_its_own_dialogue_and_image(stepped):
    trainer, rows, output = stepped
    for place, row in enumerate(rows):
        dialogue = read_dialogue(row["dialogue"])
        assert row["dialogue"] == trainer.train_dataset[place // 2]["dialogue"]
        assert len(row["model_turns"]) == len(dialogue.turns)
        said = trainer._tokenizer.decode(output["completion_ids"][place])
        asked = [said.index(turn.question) for turn in dialogue.turns[1:]]
        assert asked == sorted(asked)
    assert torch.equal(output["pixel_values"][0], output["pixel_values"][1])
    assert not torch.equal(output["pixel_values"][0], output["pixel_values"][2])


def test_each_turns_tokens_have_that_turns_advantage(recipe_of, tmp_path, monkeypatch):
    import alignment.dialogues.grpo as module

    trainer = make_trainer(read_recipe(recipe_of(data="prompt/test")), tmp_path / "run")
    place = next(k for k, c in enumerate(trainer.train_dataset["dialogue"]) if read_dialogue(c).scenario == "standard")
    rows = [dict(trainer.train_dataset[place]) for _ in range(2)]
    dialogue = read_dialogue(rows[0]["dialogue"])
    right = [turn.answer for turn in dialogue.turns]
    said = [right, [*right[:-1], "I cannot say."]]
    real = module.roll_out

    def with_answers(talks, _, processor, **settings):
        def answer(asked):
            found = []
            for talk in asked:
                text = said[next(k for k, t in enumerate(talks) if t is talk)][len(talk.answers)]
                ids = [*processor.tokenizer.encode(text, add_special_tokens=False), processor.tokenizer.eos_token_id]
                found.append((ids, [0.0] * len(ids)))
            return found

        return real(talks, answer, processor, **settings)

    monkeypatch.setattr(module, "roll_out", with_answers)
    trainer.model.train()
    advantages = trainer._generate_and_score_completions(rows)["advantages"]
    last = len(right) - 1
    for row, sign in zip(range(2), (1.0, -1.0), strict=True):
        for token, turn in enumerate(rows[row]["turn_of_token"]):
            # two dialogues alike but for the last answer: the deviation is |d| / sqrt 2, so +-1 / sqrt 2
            wanted = sign / 2**0.5 if turn == last else 0.0
            assert advantages[row, token].item() == pytest.approx(wanted, abs=1e-3)


@pytest.mark.slow
def test_a_dialogue_without_room_is_flagged_has_no_reward_and_moves_nothing(step):
    trainer, rows, output = step(trainer={"max_completion_length": 150}, dialogue={"max_answer_tokens": 60})
    assert any(row["overlong"] for row in rows)
    for row, mask, advantages in zip(
        rows, output["tool_mask"] * output["completion_mask"], output["advantages"], strict=True
    ):
        if row["overlong"]:
            assert mask.sum() == 0
            assert (advantages == 0).all()
    assert trainer._metrics["train"]["dialogue/overlong"] == [sum(r["overlong"] for r in rows) / len(rows)]


@pytest.mark.slow
@pytest.mark.parametrize("credit", ["dialogue", "turn"])
def test_a_run_trains_and_logs_the_components_apart(recipe_of, credit):
    rewards = [*BETTER, {"name": "dialogue_published", "weight": 0.0}]
    folder = run(read_recipe(recipe_of(credit=credit, rewards=rewards, trainer={"max_steps": 2})))
    entry = json.loads((folder / "log.jsonl").read_text().splitlines()[0])
    for key in ("dialogue_consistency/consistency", "dialogue_consistency/no_match", "dialogue_published/correctness"):
        assert key in entry
    assert entry["dialogue/overlong"] == 0.0


def changed(marrow, tmp_path, change, *, times=1):
    """The align rows with one dialogue changed, and its images there so many times, as a Parquet file."""
    table = pq.read_table(marrow / "prompt/align.parquet")
    columns = table["dialogue"].to_pylist()
    place = next(k for k, column in enumerate(columns) if len(read_dialogue(column).turns) == 5)
    columns[place] = change(columns[place])
    table = table.set_column(table.column_names.index("dialogue"), "dialogue", pa.array(columns, pa.string()))
    for name in ("images", "image_size"):
        lists, field = table[name].to_pylist(), table.schema.field(name)
        lists[place] = lists[place] * times
        table = table.set_column(table.column_names.index(name), field, pa.array(lists, field.type))
    folder = tmp_path / "prompt"
    folder.mkdir()
    pq.write_table(table, folder / "align.parquet")
    return str(folder / "align.parquet"), table["id"][place].as_py()


def second_image(column):
    content = json.loads(column)
    content["turns"][2]["images"] = 1
    return json.dumps(content)


def test_an_image_that_first_appears_in_a_later_turn_is_refused_by_name(recipe_of, marrow, tmp_path):
    data, name = changed(marrow, tmp_path, second_image, times=2)
    with pytest.raises(InputError, match=f"row {name}: turn 3 opens with an image"):
        make_trainer(read_recipe(recipe_of(data=data)), tmp_path / "run")


def test_a_missing_image_and_a_missing_dialogue_are_refused_by_name(recipe_of, marrow, tmp_path):
    data, name = changed(marrow, tmp_path, lambda column: column.replace('"images":1', '"images":2'))
    with pytest.raises(InputError, match=f"row {name}: its dialogue opens with 2 images, but it has 1"):
        make_trainer(read_recipe(recipe_of(data=data)), tmp_path / "run")
    (tmp_path / "prompt/align.parquet").unlink()
    (tmp_path / "prompt").rmdir()
    data, name = changed(marrow, tmp_path, lambda _: None)
    with pytest.raises(InputError, match=f"row {name} holds no dialogue"):
        make_trainer(read_recipe(recipe_of(data=data)), tmp_path / "run")


def test_dialogues_that_cannot_fit_are_left_out_and_counted(recipe_of, tmp_path, caplog):
    path = recipe_of(trainer={"max_completion_length": 60})
    trainer = make_trainer(read_recipe(path), tmp_path / "run")
    lengths = {len(read_dialogue(column).turns) for column in trainer.train_dataset["dialogue"]}
    assert lengths
    assert max(lengths) < 5
    assert "dialogues left out: with its true answers longer than trainer.max_completion_length" in caplog.text


def test_dialogues_longer_than_the_models_context_are_left_out_and_counted(stepped, caplog):
    trainer, rows, _ = stepped
    model, script = copy.deepcopy(trainer.model.config), read_dialogue(rows[0]["dialogue"])
    whole = len(trainer.processing_class.tokenizer.encode(" ".join(t.question + t.answer for t in script.turns)))
    model.get_text_config().max_position_embeddings = whole
    recipe = read_recipe(trainer.recipe_path)
    kept = dialogues_that_fit(recipe, SimpleNamespace(config=model), trainer.processing_class, trainer.train_dataset)
    assert len(kept) < len(trainer.train_dataset)
    assert rows[0]["dialogue"] not in kept["dialogue"]
    assert f"longer than the model's context of {whole} tokens" in caplog.text


def test_if_no_dialogue_fits_the_run_is_refused(recipe_of, tmp_path):
    path = recipe_of(trainer={"max_completion_length": 5})
    with pytest.raises(InputError, match="no dialogue is left"):
        make_trainer(read_recipe(path), tmp_path / "run")


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"rewards": [{"name": "length"}]}, "'length' does not judge single turns"),
        ({"trainer": {"use_vllm": True}}, "trainer.use_vllm: dialogues are rolled out with the model itself"),
        ({"trainer": {"max_completion_length": 3}}, "one answer may have 5 tokens, but a whole dialogue only 3"),
        ({"trainer": {"scale_rewards": "batch"}}, "trainer.scale_rewards: batch has no meaning"),
        ({"combination": {"mode": "normalize_then_sum"}}, "rewards are only summed"),
        ({"canaries": {"every": 5}}, "canaries: they attack with single responses, not with dialogues"),
        ({"dialogue": {"credits": 1}}, "dialogue.credits"),
    ],
)
def test_faults_of_a_recipe_are_said_before_anything_is_loaded(recipe_of, settings, fault):
    with pytest.raises(InputError, match=fault):
        read_recipe(recipe_of(**settings))


def test_a_reward_of_dialogues_without_the_section_is_refused(write_recipe, marrow):
    path = write_recipe("grpo", data={"train": str(marrow / "prompt/align")}, rewards=BETTER)
    with pytest.raises(InputError, match="'dialogue_consistency' judges whole dialogues; add a section"):
        read_recipe(path)


def test_the_section_on_data_without_dialogues_is_refused(write_recipe, data):
    with pytest.raises(InputError, match="has no column 'dialogue'"):
        read_recipe(write_recipe("grpo", data={"train": str(data / "preference/align")}, dialogue={}))


def test_the_section_is_for_grpo_only(write_recipe, marrow):
    path = write_recipe("sft", data={"train": str(marrow / "instruction/sft")}, dialogue={})
    with pytest.raises(InputError, match="it is for grpo"):
        read_recipe(path)
