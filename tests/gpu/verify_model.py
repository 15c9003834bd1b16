"""Qwen2.5-VL-7B of random weights, made where it computes; its tokenizer and processor, made on the spot; and rows.

``recipes/architectures`` has the config alone. The tokenizer knows some hundred tokens: the embeddings keep their full
size, and the config's ids of image tokens become the tokenizer's.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "recipes/architectures/Qwen2.5-VL-7B-Instruct/config.json"
PIXELS = 28
"""Edge of one image token: a patch of 14 pixels, 2 x 2 of which are merged."""
QUESTION = "Where is the lesion, and how large is it? Answer in one sentence."
LANGUAGE_LINEAR = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


@dataclass(frozen=True)
class Scale:
    """What is measured on: the real size on a GPU, or a toy of the same family on a CPU."""

    device: str
    dtype: torch.dtype
    tiny: bool
    rank: int = 64
    answers: int = 8
    prompts: int = 4

    @property
    def precision(self) -> str:
        """The recipe's word for it."""
        return str(self.dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Shape:
    """Image tokens (as a grid), answer tokens, prompts of an update."""

    grid: tuple[int, int]
    answer: int
    prompts: int

    @property
    def image(self) -> int:
        """Image tokens of a prompt."""
        return self.grid[0] * self.grid[1]

    @property
    def name(self) -> str:
        """As in the table."""
        return f"{self.image}+{self.answer} x{self.prompts}"


def scale(*, tiny: bool) -> Scale:
    """The real one where there is a GPU, unless the toy is asked for."""
    if torch.cuda.is_available():
        real = Scale("cuda", torch.bfloat16, tiny)
        return replace(real, rank=4, answers=3, prompts=2) if tiny else real
    return Scale("cpu", torch.float32, True, rank=4, answers=3, prompts=2)


def shapes(size: Scale) -> list[Shape]:
    """The four of the table, the one worth most first."""
    if size.tiny:
        return [Shape((2, 3), 5, 2), Shape((3, 4), 7, 1)]
    small, large = (16, 16), (26, 50)
    return [Shape(large, 30, 2), Shape(small, 30, 4), Shape(large, 128, 2), Shape(small, 128, 4)]


def tokenizer() -> Any:
    """A small one, with the special tokens of Qwen-VL."""
    from alignment.bench.side_by_side import WORDS
    from alignment.models.tiny import train_tokenizer

    return train_tokenizer([" ".join(WORDS), QUESTION], family="qwen3_vl", vocab_size=512)


def make_processor(largest: Shape) -> Any:
    """Qwen2.5-VL's processor around that tokenizer; every image of at most ``largest`` keeps its size."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    from alignment.models.tiny import CHAT_TEMPLATE, IMAGE_BLOCK

    edges = {"shortest_edge": PIXELS**2, "longest_edge": 4 * largest.image * PIXELS**2}
    parts: dict[str, Any] = dict(patch_size=14, merge_size=2, temporal_patch_size=2)
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=edges, **parts),
        tokenizer=tokenizer(),
        video_processor=Qwen2VLVideoProcessor(**parts),
        chat_template=CHAT_TEMPLATE.replace("{IMAGE}", IMAGE_BLOCK["qwen3_vl"]),
    )


def config_folder(size: Scale, words: Any, folder: Path) -> Path:
    """A folder with the model's config.json: the published sizes, or the toy's, with the tokenizer's ids."""
    content = json.loads(CONFIG.read_text(encoding="utf-8"))
    text, vision = content["text_config"], content["vision_config"]
    if size.tiny:
        text |= dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
        text |= dict(intermediate_size=96, vocab_size=len(words) + 7, max_position_embeddings=2048)
        text["rope_parameters"] |= {"mrope_section": [2, 3, 3]}
        vision |= dict(depth=2, hidden_size=32, num_heads=2, intermediate_size=48, out_hidden_size=64)
        vision |= dict(fullatt_block_indexes=[1], window_size=56)  # 4 x 4 patches: several in an image
    ids = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    ids |= {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    content |= {name: words.convert_tokens_to_ids(token) for name, token in ids.items()}
    text |= dict(pad_token_id=words.pad_token_id, bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def make_model(size: Scale, folder: Path, *, seed: int = 0) -> Any:
    """Random weights (std 0.02), drawn on the device in its precision: nothing is read from a disk."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(folder)
    torch.manual_seed(seed)
    with torch.device(size.device):
        model = AutoModelForImageTextToText.from_config(config, dtype=size.dtype, attn_implementation="sdpa")
    faults = [n for n, p in model.named_parameters() if p.device.type != size.device or not torch.isfinite(p).all()]
    assert not faults, f"not on the device, or not finite: {faults[:3]}"
    return model


def row(k: int, shape: Shape, processor: Any) -> dict[str, Any]:
    """A prompt with an image of noise, and two answers."""
    from PIL import Image

    rng = np.random.default_rng(k)
    height, width = (PIXELS * edge for edge in shape.grid)
    image = Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))
    question = [{"type": "image", "text": None}, {"type": "text", "text": QUESTION}]
    answers = [_answer(rng, shape.answer, processor) for _ in range(2)]
    return {
        "id": str(k),
        "images": [image],
        "prompt": [{"role": "user", "content": question}],
        "completion": answers[0],
        "chosen": answers[0],
        "rejected": answers[1],
    }


def _answer(rng: np.random.Generator, tokens: int, processor: Any) -> list[dict[str, Any]]:
    from alignment.bench.side_by_side import WORDS

    ids = processor.tokenizer(" ".join(rng.choice(WORDS, size=tokens)))["input_ids"][: max(1, tokens - 2)]
    return [{"role": "assistant", "content": [{"type": "text", "text": processor.tokenizer.decode(ids)}]}]


def sampled(shape: Shape, answers: int, vocabulary: int, seed: int = 0) -> list[list[list[int]]]:
    """For each prompt so many answers of exactly the shape's length, of tokens that mean nothing."""
    rng = np.random.default_rng(seed)
    return rng.integers(40, vocabulary - 1, (shape.prompts, answers, shape.answer)).tolist()


def prompts_of(processor: Any, rows: list[dict[str, Any]], side: str = "right") -> dict[str, torch.Tensor]:
    """What the processor gives for the prompts alone."""
    texts = [processor.apply_chat_template(r["prompt"], add_generation_prompt=True, tokenize=False) for r in rows]
    images = [r["images"] for r in rows]
    settings: dict[str, Any] = dict(padding=True, padding_side=side, return_tensors="pt", add_special_tokens=False)
    return dict(processor(text=texts, images=images, **settings))


def synchronize() -> None:
    """Waits for the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
