"""Heat maps of small random models, made from their configs on the spot."""

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)

from alignment.models.generation import model_inputs
from alignment.models.heat_maps import AttentionHeat, SimilarityHeat, grid_of, image_token, upsampled
from alignment.models.loading import load_for_inference
from alignment.models.tiny import build_tiny
from data_builders.pairs.lesion_noise import noised
from data_builders.pairs.settings import NoiseSettings
from data_builders.schema import user_turn
from data_builders.seeds import seeded
from rewards.config.input_error import InputError

pytestmark = pytest.mark.filterwarnings("default")  # third-party deprecations of transformers
TEXTS = ["Is there a nodule?", "Is there an effusion?", "Yes", "No", "abnormality"]
WORDS = ["[PAD]", "[BOS]", "[EOS]", "[UNK]", "no", "nodule", "effusion", "abnormality"]


def picture(size=(48, 80)):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture(scope="module", params=["idefics3", "qwen3_vl", "llava"])
def vlm(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return load_for_inference(str(build_tiny(TEXTS, folder, family=request.param, image_size=64)))


def test_attention_gives_a_map_of_the_images_size_for_every_family(vlm):
    heat, score = AttentionHeat(*vlm)(picture((64, 64)), "a nodule")
    assert heat.shape == (64, 64)
    assert heat.min() >= 0
    assert 0 < heat.max() <= 1
    assert 0 <= score <= 1


def test_attention_depends_on_the_finding_and_leaves_the_model_as_it_was(vlm):
    before = vlm[0].config._attn_implementation
    one, two = (AttentionHeat(*vlm)(picture((64, 64)), what)[0] for what in ("a nodule", "an effusion"))
    assert not np.allclose(one, two)
    assert vlm[0].config._attn_implementation == before


def test_the_map_is_the_mean_attention_of_the_last_prompt_token(vlm):
    model, processor = vlm
    heat, _ = AttentionHeat(model, processor, layers=1)(picture((64, 64)), "a nodule")
    row = {"images": [picture((64, 64))], "prompt": user_turn("Is there a nodule?")}
    inputs = model_inputs(processor, [row])
    model.set_attn_implementation("eager")
    last = model(**inputs, output_attentions=True).attentions[-1][0]
    model.set_attn_implementation("sdpa")
    places = (inputs["input_ids"][0] == image_token(model)).nonzero().flatten()
    by_hand = torch.stack([torch.stack([head[-1, p] for head in last]).mean() for p in places])
    side = int(len(places) ** 0.5)
    assert np.allclose(heat, upsampled(by_hand.reshape(side, side).detach(), (64, 64)), atol=1e-5)


def test_what_attracts_every_question_is_taken_off(vlm):
    heat, _ = AttentionHeat(*vlm, baseline="a nodule")(picture((64, 64)), "a nodule")
    assert not heat.any()


def test_tokens_of_tiles_lie_on_no_grid():
    with pytest.raises(InputError, match="no square grid"):
        grid_of({}, 10, None)


def tokenizer():
    words = Tokenizer(models.WordLevel({word: k for k, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", eos_token="[EOS]", unk_token="[UNK]")


TEXT_CONFIG = dict(
    vocab_size=len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
    max_position_embeddings=16, bos_token_id=1, eos_token_id=2, pad_token_id=0,
)  # fmt: skip
VISION_CONFIG = dict(
    hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
)


@pytest.fixture(scope="module", params=["clip", "siglip"])
def dual(request):
    torch.manual_seed(0)
    if request.param == "clip":
        config = CLIPConfig(text_config=TEXT_CONFIG, vision_config=VISION_CONFIG, projection_dim=16)
        model = CLIPModel(config)
    else:
        model = SiglipModel(
            SiglipConfig(text_config={**TEXT_CONFIG, "projection_size": 32}, vision_config=VISION_CONFIG)
        )
    images = CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False)
    return model.eval(), CLIPProcessor(images, tokenizer())


def test_similarity_gives_a_map_of_the_images_size_and_a_probability(dual):
    heat, score = SimilarityHeat(*dual)(picture(), "nodule")
    assert heat.shape == (80, 48)
    assert heat.min() >= 0
    assert heat.max() > 0
    assert 0 < score < 1


def test_similarity_depends_on_the_finding_and_on_the_image(dual):
    look = SimilarityHeat(*dual)
    one, two = (look(picture(), what)[0] for what in ("nodule", "effusion"))
    other = look(picture().transpose(Image.Transpose.FLIP_LEFT_RIGHT), "nodule")[0]
    assert not np.allclose(one, two)
    assert not np.allclose(one, other)


def test_the_patch_that_matches_the_words_is_the_hottest(dual):
    """The text is given the very feature of one patch: the map must peak there."""
    from alignment.models.heat_maps import patch_features

    model, processor = dual
    pixels = processor.image_processor(
        images=picture(), size={"height": 32, "width": 32}, do_center_crop=False, return_tensors="pt"
    )
    features = patch_features(model, model.vision_model(**pixels))
    assert torch.allclose(features.norm(dim=-1), torch.ones(16))

    class Planted:
        config, device, vision_model = model.config, model.device, model.vision_model
        visual_projection = getattr(model, "visual_projection", None)

        def __call__(self, **inputs):
            out = model(**inputs)
            out.text_embeds = features[9:10].repeat(2, 1)
            return out

    planted, _ = SimilarityHeat(Planted(), processor)(picture(), "nodule")
    row, column = np.unravel_index(planted.argmax(), planted.shape)
    assert (row // 20, column // 12) == (2, 1)


def test_a_map_of_a_model_can_be_noised_under(dual):
    heat, _ = SimilarityHeat(*dual)(picture(), "nodule")
    result = noised(picture(), heat, NoiseSettings(mask="quantile", level=0.9), seeded("lesion_noise", 1))
    assert result is not None
    assert 0.05 < result.share < 0.2


def test_a_map_is_spread_evenly_over_the_image():
    heat = upsampled(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), (8, 6))
    assert heat.shape == (6, 8)
    assert np.allclose(heat[:, 0], 0.0)
    assert np.allclose(heat[:, -1], 1.0)
    assert (np.diff(heat, axis=1) >= 0).all()
