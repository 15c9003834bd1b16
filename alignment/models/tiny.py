"""A small vision-language model of a real family, made from its config on the spot: no hub, no download.

Idefics3 is the default; Qwen3-VL and LLaVA by name. The tokenizer is trained on the text of the built data.
Left out: pretrained weights. ``smollm2`` (in ``smollm2.py``) puts the same eyes on a real language model.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForImageTextToText,
    CLIPImageProcessor,
    Idefics3Config,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlavaConfig,
    LlavaProcessor,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

Family = Literal["idefics3", "qwen3_vl", "llava"]

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}{IMAGE}{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
IMAGE_BLOCK = {
    "idefics3": "<image>",
    "qwen3_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "llava": "<image>",
}
EXTRA_TOKENS: dict[str, dict[str, str]] = {
    "idefics3": {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    },
    "qwen3_vl": {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
    },
    "llava": {"image_token": "<image>"},
}
NUMBERS = " ".join(f"[{n},{n}]" for n in range(101))


def train_tokenizer(texts: Iterable[str], *, family: Family, vocab_size: int = 1024) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of these texts, in which each whole number from 0 to 100 is one token."""
    extra = EXTRA_TOKENS[family]
    special = ["<pad>", "<bos>", "<eos>", "<unk>", "<|im_start|>", "<|im_end|>", *extra.values()]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=special,
        show_progress=False,
    )
    bpe.train_from_iterator([*texts, "user assistant\n", *[NUMBERS] * 2000], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<|im_end|>",
        unk_token="<unk>",
        padding_side="left",
        extra_special_tokens=extra,
    )


def build_tiny(
    texts: Iterable[str],
    folder: Path,
    *,
    family: Family = "idefics3",
    image_size: int = 128,
    hidden_size: int = 64,
    vision_hidden_size: int = 32,
    num_layers: int = 2,
    init_std: float = 0.1,
    seed: int = 0,
) -> Path:
    """A folder with the tiny model and its processor, which ``AutoProcessor`` and ``AutoModel...`` load offline.

    ``image_size`` in pixels; a patch is 16 pixels and 2 x 2 patches make one image token, so 128 pixels give
    16 image tokens (Idefics3, Qwen3-VL) or 64 (LLaVA). ``init_std`` 0.1 learns much faster than the usual 0.02.
    """
    tokenizer = train_tokenizer(texts, family=family)
    sizes = dict(hidden=hidden_size, vision=vision_hidden_size, layers=num_layers, image=image_size)
    config, processor = _PARTS[family](tokenizer, sizes)
    for part in (config, config.get_text_config(), config.vision_config):
        part.initializer_range = init_std
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32, trust_remote_code=False)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _text_config(tokenizer: Any, sizes: dict[str, int], **more: Any) -> dict[str, Any]:
    heads = max(2, sizes["hidden"] // 16)
    return dict(
        vocab_size=len(tokenizer),
        hidden_size=sizes["hidden"],
        intermediate_size=2 * sizes["hidden"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=2048,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
        **more,
    )


def _vision_config(sizes: dict[str, int], **more: Any) -> dict[str, Any]:
    return dict(
        hidden_size=sizes["vision"],
        intermediate_size=2 * sizes["vision"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=2,
        patch_size=16,
        **more,
    )


def _template(family: Family) -> str:
    return CHAT_TEMPLATE.replace("{IMAGE}", IMAGE_BLOCK[family])


def _idefics3(tokenizer: Any, sizes: dict[str, int]) -> tuple[PretrainedConfig, ProcessorMixin]:
    edge = {"longest_edge": sizes["image"]}
    parts: dict[str, Any] = dict(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
        vision_config=_vision_config(sizes, image_size=sizes["image"]),
        text_config=_text_config(tokenizer, sizes, model_type="llama"),
    )
    config = Idefics3Config(**parts)
    images = Idefics3ImageProcessor(size=edge, max_image_size=edge, do_image_splitting=False)
    tokens = (sizes["image"] // 32) ** 2
    processor = Idefics3Processor(images, tokenizer, image_seq_len=tokens, chat_template=_template("idefics3"))
    return config, processor


def _qwen3_vl(tokenizer: Any, sizes: dict[str, int]) -> tuple[PretrainedConfig, ProcessorMixin]:
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in EXTRA_TOKENS["qwen3_vl"].items()}
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    config = Qwen3VLConfig(
        image_token_id=ids["image_token"],
        video_token_id=ids["video_token"],
        vision_start_token_id=ids["vision_bos_token"],
        vision_end_token_id=ids["vision_eos_token"],
        tie_word_embeddings=False,
        vision_config=dict(
            hidden_size=sizes["vision"],
            intermediate_size=2 * sizes["vision"],
            depth=sizes["layers"],
            num_heads=2,
            patch_size=16,
            spatial_merge_size=2,
            temporal_patch_size=2,
            out_hidden_size=sizes["hidden"],
            num_position_embeddings=64,
            deepstack_visual_indexes=[0],
        ),
        text_config=_text_config(tokenizer, sizes, head_dim=16, rope_parameters=rope),
    )
    edges = {"shortest_edge": 64 * 64, "longest_edge": sizes["image"] ** 2}
    shape: dict[str, Any] = dict(patch_size=16, merge_size=2, temporal_patch_size=2)
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=edges, **shape),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**shape),
        chat_template=_template("qwen3_vl"),
    )
    return config, processor


def _llava(tokenizer: Any, sizes: dict[str, int]) -> tuple[PretrainedConfig, ProcessorMixin]:
    config = LlavaConfig(
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=False,
        vision_config=_vision_config(sizes, image_size=sizes["image"], model_type="clip_vision_model"),
        text_config=_text_config(tokenizer, sizes, model_type="llama"),
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )
    edge = {"height": sizes["image"], "width": sizes["image"]}
    images = CLIPImageProcessor(size={"shortest_edge": sizes["image"]}, crop_size=edge)
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_template("llava"),
    )
    return config, processor


_PARTS = {"idefics3": _idefics3, "qwen3_vl": _qwen3_vl, "llava": _llava}
