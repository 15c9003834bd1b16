"""What MMedPO's trainer does with a batch: text and image pairs together, the terms beyond the paper, the reference."""

import math

import pytest
import torch
import yaml
from datasets import Dataset

from alignment.checks.read_recipe import read_recipe
from alignment.config.data_entries import parquet
from alignment.shared_prefix.forward import answer_outputs
from alignment.training.dpo_terms import changed_tokens, token_kl
from alignment.training.losses import weighted_dpo_loss
from alignment.training.run import run
from alignment.training.trainer import make_trainer
from rewards.config.input_error import InputError

pytestmark = pytest.mark.filterwarnings("default")  # third-party deprecations of trl and accelerate
LN2 = math.log(2)


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    from alignment.models.prepared import built_texts
    from alignment.models.tiny import build_tiny

    texts = built_texts(str(data / "instruction/sft"))
    return build_tiny(texts, tmp_path_factory.mktemp("start") / "tiny", image_size=64)


def written(data, path, folder, **changes):
    """A small DPO recipe on the model at ``path``."""
    content = {
        "method": "dpo", "output": str(folder / "dpo"), "model": {"path": str(path)},
        "data": {"train": str(data / "preference/align")},
        "trainer": {
            "max_steps": 2, "per_device_train_batch_size": 4, "gradient_checkpointing": False, "save_strategy": "no",
            "learning_rate": 1.0e-3, "beta": 0.1, "disable_tqdm": True, "precompute_ref_log_probs": False,
        },
    }  # fmt: skip
    (folder / "dpo.yaml").write_text(yaml.safe_dump({**content, **changes}))
    return read_recipe(folder / "dpo.yaml")


@pytest.fixture(scope="module")
def trainer(data, start, tmp_path_factory):
    """A trainer whose policy has moved a little away from its reference."""
    folder = tmp_path_factory.mktemp("run")
    made = make_trainer(written(data, start, folder), folder)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    made.model.eval()
    return made


@pytest.fixture(scope="module")
def rows(data):
    rows = [dict(row) for row in Dataset.from_parquet(str(data / "preference/align.parquet")).select(range(4))]
    image = {**rows[2], "rejected": rows[2]["chosen"], "weight": 0.5}
    image["rejected_images"] = [row.transpose(0) for row in rows[2]["images"]]
    return [rows[0], image, {**rows[1], "weight": 0.0}, {**rows[3], "weight": 1.5}]


def loss_of(trainer, rows, **weighting):
    """The loss of these rows in one batch, under changes of the recipe's ``weighting``."""
    before, collator = trainer.weighting, trainer.data_collator.collator
    trainer.weighting = before.model_copy(update=weighting)
    collator.mark_changed, collator.mirror = trainer.weighting.counts_tokens, trainer.weighting.mirrors
    try:
        return trainer._compute_loss(trainer.model, collator([dict(row) for row in rows]), False)
    finally:
        trainer.weighting, collator.mark_changed, collator.mirror = before, False, False


def tokens_of(trainer, row):
    """Token ids and log-probabilities of the chosen and the rejected answer, under policy and reference."""
    batch = trainer.data_collator([dict(row)])
    fields = {k: v for k, v in batch.items() if k not in ("weight", "chosen", "rejected")}
    with torch.no_grad():
        policy = answer_outputs(trainer.model, fields).log_probs[0]
    lengths = batch["answer_lengths"].tolist()
    ids = [part.tolist() for part in batch["answer_labels"].split(lengths)]
    ratios = (policy - trainer.reference_token_logps(fields)).split(lengths)
    return ids, [part.tolist() for part in ratios], [part.tolist() for part in policy.split(lengths)]


def test_a_batch_of_text_and_image_pairs_is_the_mean_of_its_rows_in_any_order(trainer, rows):
    alone = [loss_of(trainer, [row]).item() for row in rows]
    assert loss_of(trainer, rows).item() == pytest.approx(sum(alone) / 4, abs=1e-5)
    assert loss_of(trainer, rows[::-1]).item() == pytest.approx(sum(alone) / 4, abs=1e-5)
    assert alone[2] == 0.0


def test_the_margin_of_an_image_pair_is_that_of_its_images_and_swapping_them_flips_it(trainer, rows):
    there = rows[1]
    back = {**there, "images": there["rejected_images"], "rejected_images": there["images"]}
    one, two = (loss_of(trainer, [row], use=False).item() for row in (there, back))
    assert one != pytest.approx(LN2, abs=1e-5)
    assert math.exp(-one) + math.exp(-two) == pytest.approx(1.0, abs=1e-5)  # sigmoid(d) + sigmoid(-d)


def test_equal_answers_under_one_image_have_no_gradient(trainer, rows):
    same = {**rows[0], "rejected": rows[0]["chosen"]}
    trainer.model.zero_grad()
    loss = loss_of(trainer, [same])
    loss.backward()
    assert loss.item() == pytest.approx(rows[0]["weight"] * LN2, abs=1e-6)
    assert max(float(p.grad.abs().max()) for p in trainer.model.parameters() if p.grad is not None) < 1e-6
    trainer.model.zero_grad()


def test_twice_the_weight_is_twice_the_gradient(trainer, rows):
    norms = []
    for weight in (1.0, 2.0):
        trainer.model.zero_grad()
        loss_of(trainer, [{**rows[0], "weight": weight}]).backward()
        norms.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]))
    trainer.model.zero_grad()
    assert torch.allclose(norms[1], 2 * norms[0], atol=1e-6)


def test_the_plain_loss_is_mmedpos_worked_out_from_log_probabilities(trainer, rows):
    picked = [rows[0], rows[2], rows[3]]
    margins = [
        0.1 * (sum(chosen) - sum(rejected)) for _, (chosen, rejected), _ in (tokens_of(trainer, r) for r in picked)
    ]
    want = sum(row["weight"] * math.log1p(math.exp(-d)) for row, d in zip(picked, margins, strict=True)) / 3
    assert min(abs(d) for d in margins) > 1e-3
    assert loss_of(trainer, picked).item() == pytest.approx(want, abs=1e-5)


def test_the_anchor_adds_the_loss_of_the_chosen_reward(trainer, rows):
    _, ratios, _ = tokens_of(trainer, rows[0])
    weight, reward = rows[0]["weight"], 0.1 * sum(ratios[0])
    want = weight * math.log1p(math.exp(-reward + 0.5))
    added = loss_of(trainer, rows[:1], anchor_coefficient=0.7, anchor_delta=0.5) - loss_of(trainer, rows[:1])
    assert added.item() == pytest.approx(0.7 * want, abs=1e-5)


@pytest.mark.parametrize("average", [False, True])
def test_tokens_that_differ_count_as_often_as_the_recipe_says(trainer, rows, average):
    ids, ratios, _ = tokens_of(trainer, rows[0])
    counted = [[5.0 if changed else 1.0 for changed in changed_tokens(ids[k], ids[1 - k])] for k in (0, 1)]
    sums = [sum(c * r for c, r in zip(counted[k], ratios[k], strict=True)) for k in (0, 1)]
    if average:
        sums = [total / sum(own) for total, own in zip(sums, counted, strict=True)]
    want = weighted_dpo_loss(torch.tensor([0.1 * (sums[0] - sums[1])])).item() * rows[0]["weight"]
    got = loss_of(trainer, rows[:1], changed_weight=5.0, length_average=average).item()
    assert any(5.0 in own for own in counted)
    assert got == pytest.approx(want, abs=1e-5)


def test_spans_change_nothing_in_an_image_pair_whose_answers_are_one(trainer, rows):
    assert loss_of(trainer, [rows[1]], changed_weight=5.0).item() == pytest.approx(
        loss_of(trainer, [rows[1]]).item(), abs=1e-5
    )


def test_the_token_level_is_the_kl_worked_out_from_whole_distributions(trainer, rows):
    batch = trainer.data_collator([dict(rows[0])])
    lengths = batch["answer_lengths"].tolist()
    with torch.no_grad():
        logits = [_all_logits(model, batch) for model in (trainer.model, trainer.ref_model)]
    kl = [float(part.sum()) for part in token_kl(*logits).split(lengths)]
    _, ratios, _ = tokens_of(trainer, rows[0])
    margin = 0.1 * (sum(ratios[0]) - sum(ratios[1])) - 0.1 * 2.0 * (kl[1] - kl[0])
    want = rows[0]["weight"] * math.log1p(math.exp(-margin))
    assert min(kl) > 0
    assert loss_of(trainer, rows[:1], token_kl_coefficient=2.0).item() == pytest.approx(want, abs=1e-4)


def _all_logits(model, batch):
    """The logits of every position by the model's own head, then those that predict an answer token."""
    from alignment.shared_prefix.forward import model_inputs

    fields = {k: v for k, v in batch.items() if k not in ("weight", "chosen", "rejected")}
    logits = model(**model_inputs(model, fields), use_cache=False).logits
    return logits.reshape(-1, logits.shape[-1])[batch["answer_positions"]]


def test_a_truncated_answer_is_cut_by_the_same_rule_on_both_sides_and_flagged(trainer, rows):
    from alignment.training.preference_batches import PreferenceCollator

    whole = trainer.data_collator(rows[:1])
    prompt = int((whole["segments"] == 0).sum())
    collator = PreferenceCollator(trainer.data_collator.processor, max_length=prompt + 5)
    cut = collator(rows[:1])
    assert cut["answer_lengths"].tolist() == [5, 5]
    assert cut["truncated"].tolist() == [True, True]
    roomy = PreferenceCollator(trainer.data_collator.processor, max_length=10_000)(rows[:1])
    assert roomy["truncated"].tolist() == [False, False]
    trainer._compute_loss(trainer.model, cut, False)
    assert trainer._metrics["eval"]["truncated"][-1] == 1.0


def test_an_empty_answer_is_refused(trainer, rows):
    empty = {**rows[0], "rejected": [{"role": "assistant", "content": [{"type": "text", "text": " "}]}]}
    with pytest.raises(InputError, match="rejected: a row's answer is empty"):
        trainer.data_collator([empty])


@pytest.mark.parametrize("weight", [None, float("nan"), -0.5, float("inf")])
def test_a_weight_that_is_none_is_refused_before_any_model_is_loaded(data, start, tmp_path, weight):
    import pyarrow.parquet as pq

    rows = pq.read_table(data / "preference" / "align.parquet")
    content = rows.to_pylist()
    content[1]["weight"] = weight
    (tmp_path / "odd" / "preference").mkdir(parents=True)
    file = tmp_path / "odd" / "preference" / "align.parquet"
    pq.write_table(type(rows).from_pylist(content, schema=rows.schema), file)
    with pytest.raises(InputError, match=r"row (1 of .* has weight .*\(1 such\)|p00001\S*: 'weight': got)"):
        written(tmp_path / "odd", start, tmp_path)


def test_token_kl_and_a_reference_computed_beforehand_exclude_each_other(data, start, tmp_path):
    recipe = written(data, start, tmp_path, weighting={"token_kl_coefficient": 0.1})
    asked = recipe.model_copy(update={"trainer": {**recipe.trainer, "precompute_ref_log_probs": True}})
    with pytest.raises(InputError, match="needs the reference itself"):
        make_trainer(asked, tmp_path)


@pytest.fixture
def look_alike(rows):
    """A row whose rejected answer is true of another image."""
    return {**rows[0], "mirror_images": rows[3]["images"]}


def margins(trainer, row):
    """beta x (log-ratio of the chosen - of the rejected) under the row's image, and mirrored under its look-alike's."""
    there = {**row, "images": row["mirror_images"]}
    found = []
    for one, sign in ((row, 1), (there, -1)):
        _, (chosen, rejected), _ = tokens_of(trainer, one)
        found.append(sign * 0.1 * (sum(chosen) - sum(rejected)))
    return found


def loss_at(margin):
    return math.log1p(math.exp(-margin))


def test_the_symmetric_term_is_both_losses_and_the_squared_difference_of_their_margins(trainer, rows, look_alike):
    here, there = margins(trainer, look_alike)
    assert abs(here - there) > 1e-3
    want = look_alike["weight"] * (0.5 * (loss_at(here) + loss_at(there)) + 3.0 * (here - there) ** 2)
    batch = [rows[2], look_alike, rows[3]]  # only one of three has a look-alike
    added = loss_of(trainer, batch, symmetric_coefficient=0.5, consistency=3.0) - loss_of(trainer, batch)
    assert added.item() == pytest.approx(want / 3, abs=1e-5)


def test_without_weights_the_symmetric_term_has_none_either(trainer, look_alike):
    here, there = margins(trainer, look_alike)
    off = loss_of(trainer, [look_alike], use=False)
    assert off.item() == pytest.approx(loss_at(here), abs=1e-5)
    on = loss_of(trainer, [look_alike], use=False, consistency=2.0)
    assert (on - off).item() == pytest.approx(2.0 * (here - there) ** 2, abs=1e-5)


def test_look_alikes_are_mmedpo_where_the_symmetric_coefficients_are_zero(trainer, rows, look_alike):
    off = {"symmetric_coefficient": 0.0, "consistency": 0.0}
    assert loss_of(trainer, [look_alike, *rows[1:]], **off).item() == loss_of(trainer, rows).item()


def test_rows_without_look_alikes_have_no_symmetric_term(trainer, rows):
    plain = loss_of(trainer, rows).item()
    assert loss_of(trainer, rows, symmetric_coefficient=0.5, consistency=1.0).item() == pytest.approx(plain, abs=1e-6)


def test_spans_and_truncation_are_marked_beside_look_alikes(trainer, rows, look_alike):
    from alignment.training.preference_batches import PreferenceCollator

    processor = trainer.data_collator.processor
    collator = PreferenceCollator(processor, max_length=10_000, mark_changed=True, mirror=True)
    batch = collator([look_alike, rows[3]])
    assert batch["mirrored"].tolist() == [0]
    assert len(batch["answer_lengths"]) == 6
    assert batch["truncated"].tolist() == [False] * 4
    assert len(batch["changed"]) == int(batch["answer_lengths"].sum())


def test_the_symmetric_term_asks_for_look_alikes_before_any_model_is_loaded(data, start, tmp_path):
    with pytest.raises(InputError, match="dpo reads mirror_images, but"):
        written(data, start, tmp_path, weighting={"consistency": 1.0e-4})


def test_a_run_with_the_symmetric_term_trains_on_pairs_of_look_alikes(data, start, tmp_path):
    from alignment.config.recipe import Sampling
    from alignment.pairs.write_pairs import write_pairs

    recipe = written(data, start, tmp_path)
    sampling = Sampling(kinds=["look_alike"])
    told = recipe.data.model_copy(update={"train": str(data / "prompt/align")})
    pairs = recipe.model_copy(update={"method": "pairs", "data": told, "sampling": sampling})
    made = recipe.data.model_copy(update={"train": str(write_pairs(pairs))})
    both = recipe.weighting.model_copy(update={"symmetric_coefficient": 0.5, "consistency": 1.0e-4})
    trainer = make_trainer(recipe.model_copy(update={"data": made, "weighting": both}), tmp_path)
    assert trainer.train().training_loss > 0
    assert "mirror_images" in trainer.train_dataset.column_names


def test_the_symmetric_term_keeps_the_reference_from_being_computed_beforehand(trainer):
    from alignment.training.dpo import _precomputes

    before = trainer.weighting
    trainer.weighting = before.model_copy(update={"consistency": 1.0})
    try:
        assert not _precomputes(trainer, None)
    finally:
        trainer.weighting = before


@pytest.mark.slow
def test_the_reference_is_the_model_that_training_started_from_also_from_an_adapter(data, start, tmp_path):
    """SFT leaves an adapter; DPO goes on from it. The reference is SFT's model, not its base, and does not move."""
    content = {
        "method": "sft", "output": str(tmp_path / "sft"), "model": {"path": str(start), "lora": {"rank": 2}},
        "data": {"train": str(data / "instruction/sft")},
        "trainer": {
            "max_steps": 3, "learning_rate": 0.05, "per_device_train_batch_size": 4, "gradient_checkpointing": False,
            "save_strategy": "no", "disable_tqdm": True,
        },
    }  # fmt: skip
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump(content))
    sft = run(read_recipe(tmp_path / "sft.yaml"))
    made = make_trainer(written(data, sft, tmp_path), tmp_path / "dpo")
    rows = [dict(row) for row in Dataset.from_parquet(str(parquet(str(data / "preference/align")))).select(range(2))]
    batch = made.data_collator(rows)
    fields = {k: v for k, v in batch.items() if k not in ("weight", "chosen", "rejected")}
    made.model.eval()
    with torch.no_grad():
        policy = answer_outputs(made.model, fields).log_probs[0]
        with made.model.disable_adapter():
            base = answer_outputs(made.model, fields).log_probs[0]
    before = made.reference_token_logps(fields)
    assert torch.allclose(before, policy, atol=1e-5)
    assert not torch.allclose(before, base, atol=1e-3)
    made.train()
    made.model.eval()
    with torch.no_grad():
        moved = answer_outputs(made.model, fields).log_probs[0]
    assert not torch.allclose(moved, policy, atol=1e-4)
    assert torch.equal(made.reference_token_logps(fields), before)
