"""Random models of every family, built from config, and prompts for them as bare tensors (no processor)."""

from dataclasses import dataclass, field

import torch
import transformers as tf

VOCAB, IMAGE, VIDEO, PAD, HIDDEN = 96, 90, 91, 0, 32
EDGE, PATCH = 32, 8
TEXT = {
    "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": PAD,
    "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False, "initializer_range": 0.2,
}  # fmt: skip
VISION = {
    "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "patch_size": PATCH, "image_size": EDGE, "initializer_range": 0.2,
}  # fmt: skip
ROPE = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
QWEN_IDS = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": 92, "vision_end_token_id": 93}
QWEN_VISION = {"num_heads": 2, "patch_size": PATCH, "spatial_merge_size": 2, "temporal_patch_size": 2, "depth": 2}


def config_of(family):
    """A small config; the two text layers of Gemma 3 are one sliding, one full."""
    llama = {**TEXT, "model_type": "llama"}
    clip = {**VISION, "model_type": "clip_vision_model"}
    siglip = {**VISION, "model_type": "siglip_vision_model"}
    tied = {"tie_word_embeddings": False}
    pinpoints = [[EDGE, 2 * EDGE], [2 * EDGE, EDGE]]
    configs = {
        "llava": lambda: tf.LlavaConfig(
            vision_config=clip, text_config=llama, image_token_index=IMAGE, vision_feature_layer=-1, **tied
        ),
        "llava_next": lambda: tf.LlavaNextConfig(
            vision_config=clip, text_config=llama, image_token_index=IMAGE, vision_feature_layer=-1,
            image_grid_pinpoints=pinpoints, **tied,
        ),
        "llava_onevision": lambda: tf.LlavaOnevisionConfig(
            vision_config=siglip, text_config=llama, image_token_index=IMAGE, video_token_index=VIDEO,
            image_grid_pinpoints=pinpoints, **tied,
        ),
        "idefics3": lambda: tf.Idefics3Config(
            vision_config=VISION, text_config=llama, image_token_id=IMAGE, scale_factor=2, pad_token_id=PAD, **tied
        ),
        "smolvlm": lambda: tf.SmolVLMConfig(
            vision_config=VISION, text_config=llama, image_token_id=IMAGE, scale_factor=2, pad_token_id=PAD, **tied
        ),
        "internvl": lambda: tf.InternVLConfig(
            vision_config={**VISION, "image_size": [EDGE, EDGE], "patch_size": [PATCH, PATCH]},
            text_config=llama, image_token_id=IMAGE, downsample_ratio=0.5, **tied,
        ),
        "gemma3": lambda: tf.Gemma3Config(
            vision_config=siglip,
            text_config={
                **TEXT, "head_dim": 8, "sliding_window": 12, "layer_types": ["sliding_attention", "full_attention"],
            },
            image_token_id=IMAGE, mm_tokens_per_image=4, **tied,
        ),
        "qwen2_vl": lambda: tf.Qwen2VLConfig(
            vision_config={**QWEN_VISION, "embed_dim": 24, "hidden_size": HIDDEN},
            text_config={**TEXT, "rope_parameters": ROPE}, **QWEN_IDS, **tied,
        ),
        "qwen2_5_vl": lambda: tf.Qwen2_5_VLConfig(
            vision_config={
                **QWEN_VISION, "hidden_size": 24, "intermediate_size": 48, "out_hidden_size": HIDDEN,
                "window_size": 32, "fullatt_block_indexes": [1],
            },
            text_config={**TEXT, "rope_parameters": ROPE}, **QWEN_IDS, **tied,
        ),
        "qwen3_vl": lambda: tf.Qwen3VLConfig(
            vision_config={
                **QWEN_VISION, "hidden_size": 24, "intermediate_size": 48, "out_hidden_size": HIDDEN,
                "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
            },
            text_config={**TEXT, "head_dim": 8, "rope_parameters": ROPE}, **QWEN_IDS, **tied,
        ),
    }  # fmt: skip
    return configs[family]()


FAMILIES = (
    "llava", "llava_next", "llava_onevision", "idefics3", "smolvlm", "internvl", "gemma3",
    "qwen2_vl", "qwen2_5_vl", "qwen3_vl",
)  # fmt: skip


def build(family, attention="sdpa", seed=0):
    """A random model in eval mode, float32."""
    torch.manual_seed(seed)
    config = config_of(family)
    for part in (config, config.get_text_config(), config.vision_config):
        part.initializer_range = 0.2
    model = tf.AutoModelForImageTextToText.from_config(config, dtype=torch.float32, attn_implementation=attention)
    for name, parameter in model.named_parameters():  # zero by default: images would change nothing
        if "mm_input_projection_weight" in name or "image_newline" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def recompute(model):
    """Switches activation checkpointing on, by the name that the installed transformers has for it."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


@dataclass
class Row:
    """A prompt (text before, images, text after) and its answers, as token ids."""

    before: list[int]
    after: list[int]
    answers: list[list[int]]
    images: list[torch.Tensor] = field(default_factory=list)


def rows(seed=1):
    """Rows with 1, 2 and no images, of different lengths, with 3, 2, 1 and 2 answers."""
    torch.manual_seed(seed)

    def ids(n):
        return torch.randint(3, 80, (n,)).tolist()

    def image():
        return torch.randn(3, EDGE, EDGE)

    return [
        Row(ids(3), ids(4), [ids(5), ids(2), ids(7)], [image()]),
        Row(ids(1), ids(9), [ids(4), ids(4)], [image(), image()]),
        Row(ids(6), ids(2), [ids(3)]),
        Row(ids(2), ids(2), [ids(1), ids(6)], [image()]),
    ]


def prompt_inputs(family, model, batch):
    """What a processor of this family would give for the prompts of these rows, padded on the right."""
    pixels = {} if not any(r.images for r in batch) else PIXELS[family](batch)
    counts = iter(_tokens_of_each_image(family, model, pixels, sum(len(r.images) for r in batch)))
    sequences = []
    for r in batch:
        middle = [token for _ in r.images for token in (*[IMAGE] * next(counts), 5)]
        sequences.append([*r.before, *middle, *r.after])
    width = max(map(len, sequences))
    ids = torch.tensor([s + [PAD] * (width - len(s)) for s in sequences])
    mask = torch.tensor([[1] * len(s) + [0] * (width - len(s)) for s in sequences])
    kinds = {"gemma3": "token_type_ids"} | dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), "mm_token_type_ids")
    types = {kinds[family]: (ids == IMAGE).long()} if family in kinds else {}
    return {"input_ids": ids, "attention_mask": mask, **types, **pixels}


def _flat(batch):
    return {"pixel_values": torch.stack([i for r in batch for i in r.images])}


def _tiles(batch):
    """An overview and two tiles for each image, as the any-resolution processors cut them."""
    images = _flat(batch)["pixel_values"]
    sizes = torch.tensor([[EDGE, 2 * EDGE]] * len(images))
    return {"pixel_values": torch.stack([images, images.flip(2), images.flip(3)], dim=1), "image_sizes": sizes}


def _by_row(batch):
    """Idefics3: images of a row side by side, rows filled up with zeros."""
    out = torch.zeros(len(batch), max(len(r.images) for r in batch), 3, EDGE, EDGE)
    for b, r in enumerate(batch):
        for n, image in enumerate(r.images):
            out[b, n] = image
    return {"pixel_values": out}


def _patches(batch):
    """Qwen: each image as a list of patches (their order does not matter here) and its grid."""
    images = [i for r in batch for i in r.images]
    side = EDGE // PATCH
    flat = [i.repeat(2, 1, 1).reshape(2 * 3, side, PATCH, side, PATCH).permute(1, 3, 0, 2, 4) for i in images]
    values = torch.cat([f.reshape(side * side, -1) for f in flat])
    return {"pixel_values": values, "image_grid_thw": torch.tensor([[1, side, side]] * len(images))}


PIXELS = dict.fromkeys(("llava", "internvl", "gemma3"), _flat) | {
    "llava_next": _tiles, "llava_onevision": _tiles, "idefics3": _by_row, "smolvlm": _by_row,
    "qwen2_vl": _patches, "qwen2_5_vl": _patches, "qwen3_vl": _patches,
}  # fmt: skip


@torch.no_grad()
def _tokens_of_each_image(family, model, pixels, count):
    if not count:
        return []
    if family in ("llava_next", "llava_onevision"):
        features = model.base_model.get_image_features(**pixels, return_dict=True).pooler_output
        return [len(f) for f in features]
    return [{"llava": 16, "gemma3": 4}.get(family, 4)] * count
