"""Image features of a frozen tower from the disk: the same numbers, and the tower asked once for an image."""

import json

import pytest
import torch

from alignment.checks.read_recipe import read_recipe
from alignment.models.image_features import cache_image_features, cache_sizes, features_folder
from alignment.models.loading import load_model
from alignment.models.parts import freeze
from alignment.models.prepared import built_texts
from alignment.models.tiny import build_tiny
from alignment.shared_prefix.reference_cache import cache_folder
from alignment.training.run import run
from alignment.training.trainer import make_trainer
from rewards.config.input_error import InputError
from tests.alignment.models.tiny_families import FAMILIES, build, rows
from tests.alignment.shared_prefix.test_shared_prefix_families import gradients, prepared, together

pytestmark = pytest.mark.filterwarnings("default")
FROZEN = {"freeze": ["vision", "projector"]}


def frozen(family):
    """A model of which the language model alone is trained."""
    model = prepared(build(family))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("language_model" in name or "text_model" in name or "lm_head" in name)
    return model


def tower_calls(model):
    calls = []
    tower = next(getattr(model.base_model, n) for n in ("visual", "vision_tower", "vision_model") if hasattr(
        model.base_model, n))  # fmt: skip
    tower.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_log_probabilities_and_gradients_with_and_without(family):
    plain, caching = frozen(family), frozen(family)
    want = together(family, plain, rows())
    cache_image_features(caching)
    calls = tower_calls(caching)
    for _ in range(2):
        got = together(family, caching, rows())
        assert torch.equal(got, want)
    assert len(calls) == 1
    want_grads, got_grads = gradients(plain, want), gradients(caching, got)
    assert want_grads.keys() == got_grads.keys()
    assert all(torch.equal(gradient, got_grads[name]) for name, gradient in want_grads.items())


@pytest.mark.parametrize("family", ["qwen3_vl", "idefics3", "gemma3"])
def test_a_batch_of_known_and_new_images_asks_for_the_new_ones(family):
    model, batch = frozen(family), rows()
    want = [together(family, model, [row]) for row in batch]
    cache_image_features(model)
    calls = tower_calls(model)
    together(family, model, batch[:1])
    torch.testing.assert_close(together(family, model, batch), torch.cat(want), atol=2e-4, rtol=0)
    assert len(calls) == 2


def test_other_weights_and_settings_have_a_folder_of_their_own():
    model = frozen("llava")
    folders = [features_folder(model)]
    model.lm_head.weight.data.mul_(2)
    assert features_folder(model) == folders[0]
    model.base_model.multi_modal_projector.linear_1.weight.data.mul_(1.01)
    folders.append(features_folder(model))
    next(model.base_model.vision_tower.parameters()).data.add_(0.1)
    folders.append(features_folder(model))
    model.config.vision_feature_layer = -2
    folders.append(features_folder(model))
    assert len(set(folders)) == 4


def test_a_trained_projector_is_refused_by_name():
    model = build("llava")
    freeze(model, ["vision"])
    with pytest.raises(InputError, match=r"multi_modal_projector.* freeze: \[vision, projector\]"):
        cache_image_features(model)


def test_a_tower_that_drops_units_is_refused():
    model = frozen("llava")
    model.config.vision_config.attention_dropout = 0.1
    with pytest.raises(InputError, match="at random"):
        cache_image_features(model)


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    """A tiny model."""
    texts = list(built_texts(str(data / "instruction/sft")))
    return build_tiny(texts, tmp_path_factory.mktemp("start") / "tiny", image_size=64)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
def test_a_run_has_the_same_losses_with_and_without(write_recipe, start, tmp_path, method):
    def losses(name, **model):
        trainer = {"max_steps": 3, "seed": 5, **({"beta": 0.1} if method == "grpo" else {})}
        model = {"path": str(start), **FROZEN, **model}
        path = write_recipe(method, model=model, trainer=trainer, output=str(tmp_path / name))
        log = [json.loads(line) for line in (run(read_recipe(path)) / "log.jsonl").read_text().splitlines()]
        return [entry[name] for entry in log if "loss" in entry for name in ("loss", "grad_norm")]

    want = losses("without")
    assert "image_features" not in cache_sizes()
    assert losses("with", cache_image_features=True) == pytest.approx(want, abs=1e-6)
    held = cache_sizes()["image_features"]["files"]
    assert held > 0
    assert losses("again", cache_image_features=True) == pytest.approx(want, abs=1e-6)
    assert cache_sizes()["image_features"]["files"] == held


def test_a_recipe_that_trains_the_tower_is_refused(write_recipe, start, tmp_path):
    recipe = read_recipe(write_recipe("sft", model={"path": str(start), "cache_image_features": True}))
    with pytest.raises(InputError, match="cache_image_features"):
        make_trainer(recipe, tmp_path / "refused")


def test_generation_takes_features_from_the_disk(start, data):
    from datasets import Dataset

    from alignment.config.data_entries import parquet
    from alignment.models.generation import generate
    from alignment.models.processors import load_processor

    model, processor = load_model(str(start)).eval(), load_processor(str(start))
    picked = Dataset.from_parquet(str(parquet(str(data / "prompt/align")))).select(range(3))
    asked = [dict(row) for row in picked]
    plain = generate(model, processor, asked, max_new_tokens=8)
    model.requires_grad_(False)
    cache_image_features(model)
    assert generate(model, processor, asked, max_new_tokens=8) == plain
    calls = tower_calls(model)
    assert generate(model, processor, asked, max_new_tokens=8) == plain
    assert not calls


def test_the_cache_is_shown_and_cleared(monkeypatch, capsys):
    from alignment.cli.app import main

    folder = cache_folder() / "image_features" / "tower"
    folder.mkdir(parents=True)
    (folder / "x.safetensors").write_bytes(bytes(2**20))
    (cache_folder() / "thesis").mkdir()
    monkeypatch.setattr("sys.argv", ["clinalign", "cache", "--clear"])
    with pytest.raises(SystemExit):
        main()
    assert "'files': 1, 'mib': 1.0" in capsys.readouterr().out
    assert cache_sizes() == {}
    assert [p.name for p in cache_folder().iterdir()] == ["thesis"]
