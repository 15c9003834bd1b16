"""Models by name: a Hugging Face VLM, a folder, a run's folder, ``tiny`` or ``smollm2``; what of them is trained.

Left out: code that comes with a model (``foreign_code.py``).
"""

import contextlib
import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from peft import LoraConfig, PeftModel
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
    PreTrainedModel,
)

from alignment.config.foreign_code import SAFE, pretrained, refuse_foreign_code, told_of_files
from alignment.config.recipe import Lora, ModelSection, Recipe, parquet
from alignment.config.trainer_faults import MADE, check_model_name
from alignment.distributed.engine import wait_for
from alignment.distributed.ranks import agreed, of_rank_0
from alignment.distributed.shared_folder import check_same
from alignment.models import kernels
from alignment.models.model_files import check_model_files, told_of_weights
from alignment.models.tower_attention import use_one_call
from rewards.config.input_error import InputError, nearest_file

VISION_PARTS = ("vision", "visual", "image_encoder")
PROJECTOR_PARTS = ("connector", "projector", "merger", "mlp1", "embed_vision")
THREADS = torch.get_num_threads()
SMALL_MODEL = 20_000_000
"""Parameters below which one thread computes faster than two: their matrices are too small to be shared out."""


def model_folder(path: str) -> str:
    """Where the weights lie: a run's ``model`` folder, the folder itself, or the hub name as it is.

    Raises: InputError if ``path`` is a folder without a checkpoint, with a damaged one or with code, or looks like a
    path that does not exist.
    """
    folder = Path(path)
    for place in (folder / "model", folder):
        if (place / "config.json").is_file() or (place / "adapter_config.json").is_file():
            refuse_foreign_code(place)
            check_model_files(place)
            return str(place)
    if folder.is_dir():
        raise InputError(
            f"model.path: {path} holds no checkpoint (neither config.json nor adapter_config.json is there)."
        )
    if path in MADE:
        raise InputError(
            f"model.path: '{path}' is made by `clinalign train` from a recipe, and has no weights before. Name the "
            f"folder of a run that started from it."
        )
    if path.startswith((".", "/", "runs/", "data/")) or path.count("/") > 1:
        raise InputError(
            f"model.path: no folder {path}.{nearest_file(folder)} Train it first, or name a Hugging Face model."
        )
    return path


def prepared_model(recipe: Recipe) -> str:
    """The folder or hub name to load, after ``tiny`` and ``smollm2`` are created under ``output/init``.

    All processes come by here.
    """
    section, init = recipe.model, Path(recipe.output) / "init"
    if section.path not in MADE:
        place = agreed(lambda: model_folder(section.path))
        check_same(f"model.path: {place}", _sizes(place))
        return place
    of_rank_0(lambda: None if (init / "config.json").is_file() else _made(recipe, init))
    agreed(lambda: wait_for(init / "config.json"))
    return str(init)


def _sizes(place: str) -> dict[str, int]:
    """Bytes of the files of a folder's model; nothing for a hub name."""
    files = [file for kind in ("*.safetensors", "*.json", "*.jinja") for file in sorted(Path(place).glob(kind))]
    return {file.name: file.stat().st_size for file in files}


def _made(recipe: Recipe, init: Path) -> None:
    texts = list(built_texts(recipe.data.train))
    with built_whole(init) as folder:
        _build(recipe.model, texts, folder)


@contextlib.contextmanager
def built_whole(folder: Path) -> Generator[Path]:
    """A place to build a folder that then appears in one step; what a killed process left there goes first."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    yield unfinished
    unfinished.replace(folder)


def _build(section: ModelSection, texts: list[str], folder: Path) -> None:
    if section.path == "tiny":
        from alignment.models.tiny import build_tiny

        build_tiny(
            texts,
            folder,
            family=section.family,
            image_size=section.image_size,
            init_std=section.init_std,
            seed=section.seed,
        )
    else:
        from alignment.models.smollm2 import build_smollm2

        build_smollm2(folder, seed=section.seed)


def built_texts(train: str) -> Iterator[str]:
    """Every text of the data set that ``train`` belongs to: what the tiny model's tokenizer is trained on."""
    for file in sorted(parquet(train).parent.parent.glob("*/*.parquet")):
        wanted = [c for c in ("prompt", "completion", "chosen", "rejected") if c in pq.read_schema(file).names]
        for batch in pq.ParquetFile(file).iter_batches(columns=wanted):
            for column in batch.columns:
                for messages in column.to_pylist():
                    yield from (b["text"] for m in messages for b in m["content"] if b["text"])


def load_processor(path: str, *, max_pixels: int | None = None) -> Any:
    """The processor, padding on the left (a setting that is lost on saving), within the pixel budget."""
    folder = model_folder(path)
    processor = pretrained(AutoProcessor, base_of(folder) if not _has_processor(folder) else folder)
    processor.tokenizer.padding_side = "left"
    if max_pixels is not None:
        limit_pixels(processor.image_processor, max_pixels)
    return processor


def limit_pixels(image_processor: Any, max_pixels: int) -> None:
    """The one place where the pixel budget (width x height) enters, in the terms of each family's processor."""
    size = dict(image_processor.size)
    edge = int(max_pixels**0.5)
    if hasattr(image_processor, "merge_size"):  # Qwen-VL: sizes are pixel counts
        size["longest_edge"], size["shortest_edge"] = (
            max_pixels,
            min(size.get("shortest_edge", max_pixels), max_pixels),
        )
    else:
        size = {key: min(int(value), edge) for key, value in size.items()}
    image_processor.size = size


def _has_processor(folder: str) -> bool:
    return not Path(folder).is_dir() or any(
        (Path(folder) / name).is_file() for name in ("processor_config.json", "preprocessor_config.json")
    )


def base_of(folder: str) -> str:
    """Where a model's base lies: for an adapter's folder what it was trained on, else ``folder`` itself."""
    from peft import PeftConfig

    with told_of_files(folder):
        base = str(PeftConfig.from_pretrained(folder).base_model_name_or_path) if _is_adapter(folder) else folder
    refuse_foreign_code(base)
    return base


def _is_adapter(folder: str) -> bool:
    return (Path(folder) / "adapter_config.json").is_file()


def load_model(
    path: str,
    *,
    dtype: str = "float32",
    attention: str = "sdpa",
    revision: str | None = None,
    trainable: bool = False,
) -> PreTrainedModel | PeftModel:
    """The model at ``path``; an adapter folder gives its base with the adapter on it."""
    folder = model_folder(path)
    options: dict[str, Any] = dict(dtype=dtype, attn_implementation=kernels.attention(attention))
    base = base_of(folder)
    with told_of_weights(base):
        model = pretrained(AutoModelForImageTextToText, base, revision=revision, use_safetensors=True, **options)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1 if model.num_parameters() < SMALL_MODEL else THREADS)
    if _is_adapter(folder):
        with told_of_weights(folder), told_of_files(folder):
            return PeftModel.from_pretrained(model, folder, is_trainable=trainable)
    return model


def check_sees(config: Any, path: str) -> None:
    """Raises InputError if this is no model of images and texts: TRL would start it from random weights."""
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise InputError(
            f"model.path: {path} is of the type '{config.model_type}', which reads no images. "
            "Name a vision-language model."
        )


def check_generation(path: str) -> None:
    """Raises InputError if transformers refuses a folder's settings of generation, which trl would load."""
    if (Path(path) / "generation_config.json").is_file():
        with told_of_files(path):
            pretrained(GenerationConfig, path)


def load_for_inference(path: str, *, max_pixels: int | None = None) -> tuple[Any, Any]:
    """Model in eval mode, on this rank's accelerator if there is one, and its processor (within the pixel budget)."""
    check_model_name(path)
    model: Any = load_model(path).eval()
    use_one_call(model)
    return model.to(_own_device()), load_processor(path, max_pixels=max_pixels)


def _own_device() -> str:
    """The card of this rank, which it is given by its number on the node; the CPU where there is none."""
    if not torch.cuda.is_available():
        return "cpu"
    card = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()  # a launcher may show each rank one card
    torch.cuda.set_device(card)
    return f"cuda:{card}"


def freeze(model: torch.nn.Module, parts: list[str]) -> None:
    """Switch off gradients of whole parts of the model.

    Raises: InputError if a part matches no parameter, so that a frozen tower is never only believed.
    """
    frozen = dict.fromkeys(parts, 0)
    for name, parameter in model.named_parameters():
        part = part_of(name)
        if part in frozen and "lora_" not in name and ".score." not in f".{name}":  # a reward model's head is none
            parameter.requires_grad_(False)
            frozen[part] += 1
    empty = [part for part, count in frozen.items() if not count]
    if empty:
        raise InputError(f"model.freeze: {', '.join(empty)} matches no parameter of {type(model).__name__}.")


def part_of(parameter_name: str) -> str:
    """``vision``, ``projector`` or ``language``.

    >>> part_of("model.vision_model.encoder.layers.0.mlp.fc1.weight"), part_of("lm_head.weight")
    ('vision', 'language')
    """
    if any(part in parameter_name for part in PROJECTOR_PARTS):
        return "projector"
    return "vision" if any(part in parameter_name for part in VISION_PARTS) else "language"


def lora_config(lora: Lora | None) -> LoraConfig | None:
    """PEFT's config of a recipe's ``lora`` section."""
    if lora is None:
        return None
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        task_type="CAUSAL_LM",
    )


def model_options(section: ModelSection) -> dict[str, Any]:
    """Keyword arguments with which TRL loads a model from its path."""
    options: dict[str, Any] = dict(dtype=section.dtype, attn_implementation=kernels.attention(section.attention))
    options |= SAFE
    options |= kernels.quantization(section)
    return options | ({"revision": section.revision} if section.revision else {})
