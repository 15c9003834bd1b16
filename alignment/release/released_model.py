"""The files of a released model: weights (adapter merged), configuration, processor; of each, only known fields.

A configuration carries along whatever else stood in the one it was loaded from: a note, a path. Names of fields are
those of the classes that read the files; a text that these know, or a word of the vocabulary. The chat template and the
vocabulary are the model and stay, but for comments in the former (``vocabulary.py`` looks through both). Left out: what
the weights themselves remember.
"""

import inspect
import json
import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from alignment.release.transformers_words import is_field, is_quoted
from rewards.config.json_lines import read_json

FILES = re.compile(
    r"(config|generation_config|processor_config|preprocessor_config|video_preprocessor_config|tokenizer_config"
    r"|tokenizer|special_tokens_map|added_tokens|vocab|model\.safetensors\.index)\.json"
    r"|merges\.txt|spiece\.model|tokenizer\.model|sentencepiece\.bpe\.model"
    r"|chat_template\.jinja|model(-\d{5}-of-\d{5})?\.safetensors"
)
"""Names of the files that a model consists of; others are not released."""
CONFIG = (
    "architectures",
    "dtype",
    "model_type",
    "transformers_version",
    "initializer_range",
    "pad_token_id",
    "_pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "tie_word_embeddings",
    "use_cache",
    "quantization_config",
)
"""What any configuration may have beside the fields of its class."""
UNNAMED = frozenset(
    {"_name_or_path", "name_or_path", "id2label", "label2id", "task_specific_params", "finetuning_task"}
)
"""Fields of configurations that hold paths and texts of whoever made the model."""
PROCESSOR = ("processor_class", "image_processor_type", "video_processor_type", "feature_extractor_type")
TOKENIZER = (
    "backend", "bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token",
    "image_token", "video_token", "vision_bos_token", "vision_eos_token", "fake_image_token", "global_image_token",
    "boi_token", "eoi_token", "end_of_utterance_token", "additional_special_tokens", "extra_special_tokens",
    "added_tokens_decoder", "model_specific_special_tokens", "model_max_length", "padding_side", "truncation_side",
    "tokenizer_class", "processor_class", "add_prefix_space", "add_bos_token", "add_eos_token",
    "clean_up_tokenization_spaces", "split_special_tokens", "errors", "legacy", "use_default_system_prompt",
    "spaces_between_special_tokens",
)  # fmt: skip
VERSION = re.compile(r"\d{1,3}(\.\d{1,3}){1,3}(\.dev\d{1,3})?", re.ASCII)
LIST_INDEX = re.compile(r"\d{1,6}", re.ASCII)
"""A key that is the number of a token."""


def save_merged(model_folder: Path, out: Path) -> tuple[int, str]:
    """Weights (adapter merged, precision as it was) and processor in ``out``; their parameters, and their class."""
    from peft import PeftModel

    from alignment.models.loading import load_model
    from alignment.models.processors import load_processor

    model = load_model(str(model_folder), dtype="auto")
    whole: Any = model.merge_and_unload() if isinstance(model, PeftModel) else model
    whole.save_pretrained(out)
    processor = load_processor(str(model_folder))
    processor.save_pretrained(out)
    _keep_known(out, whole, processor)
    return sum(parameter.numel() for parameter in whole.parameters()), type(whole).__name__


def _keep_known(folder: Path, model: Any, processor: Any) -> None:
    """Takes out of a saved model what no class reads: files, fields, comments."""
    from transformers import GenerationConfig

    for file in folder.iterdir():
        if file.is_dir():
            shutil.rmtree(file)
        elif not FILES.fullmatch(file.name):
            file.unlink()
    parts = {part for name, _ in model.named_modules() for part in (name, *name.split("."))}
    _rewrite(folder / "config.json", lambda content: _config(content, model.config, parts))
    _rewrite(folder / "generation_config.json", lambda content: kept(content, GenerationConfig().to_dict()))
    for name in ("processor_config", "preprocessor_config", "video_preprocessor_config"):
        _rewrite(folder / f"{name}.json", lambda content: _processor(content, processor))
    words = {*processor.tokenizer.get_vocab()}
    for name in ("tokenizer_config", "special_tokens_map"):
        _rewrite(folder / f"{name}.json", lambda content: kept(content, TOKENIZER, words=words))
    template = folder / "chat_template.jinja"
    if template.is_file():
        template.write_text(without_comments(template.read_text(encoding="utf-8")), encoding="utf-8")


def _rewrite(file: Path, change: Callable[[Any], Any]) -> None:
    if file.is_file():
        content = change(read_json(file, "Copy or train the model anew."))
        file.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _config(content: dict[str, Any], config: Any, words: Collection[str]) -> dict[str, Any]:
    """The fields that the configuration's class knows; in parts of the model, that theirs does."""
    from transformers import PretrainedConfig

    known = {*CONFIG, *type(config)().to_dict(), *inspect.signature(type(config).__init__).parameters} - UNNAMED
    parts = {name for name in content if isinstance(getattr(config, name, None), PretrainedConfig)}
    inner = {name: _config(content[name], getattr(config, name), words) for name in parts & known}
    return kept({name: value for name, value in content.items() if name not in parts}, known, words=words) | inner


def _processor(content: dict[str, Any], processor: Any) -> dict[str, Any]:
    """The fields that the classes of the processor and of its parts know."""
    parts = {name: getattr(processor, name, None) for name in ("image_processor", "video_processor")}
    known = {*PROCESSOR, *inspect.signature(type(processor).__init__).parameters}
    inner = {
        name: kept(content[name], _known_of_part(part))
        for name, part in parts.items()
        if part is not None and isinstance(content.get(name), dict)
    }
    of_parts = {field for part in parts.values() if part is not None for field in _known_of_part(part)}
    return kept({name: value for name, value in content.items() if name not in parts}, known | of_parts) | inner


def _known_of_part(part: Any) -> set[str]:
    valid = getattr(type(part), "valid_kwargs", None)
    named = {*getattr(valid, "__annotations__", ())} | {*inspect.signature(type(part).__init__).parameters}
    return {*PROCESSOR, *type(part)().to_dict(), *named}


def kept(content: dict[str, Any], known: Collection[str], *, words: Collection[str] = ()) -> dict[str, Any]:
    """The known fields, of which numbers, texts that transformers knows, ``words``, and lists and tables of these stay.

    >>> kept({"hidden_size": 8, "hidden_act": "silu", "note": "Jane"}, ["hidden_size", "hidden_act"])
    {'hidden_size': 8, 'hidden_act': 'silu'}
    """
    return {name: _plain(value, words) for name, value in content.items() if name in known and _is_plain(value, words)}


def _is_plain(value: Any, words: Collection[str]) -> bool:
    if isinstance(value, str):
        return value in words or VERSION.fullmatch(value) is not None or is_quoted(value)
    return value is None or isinstance(value, bool | int | float | list | dict)


def _plain(value: Any, words: Collection[str]) -> Any:
    if isinstance(value, list):
        return [_plain(one, words) for one in value if _is_plain(one, words)]
    if isinstance(value, dict):
        found = {name: entry for name, entry in value.items() if LIST_INDEX.fullmatch(str(name)) or is_field(str(name))}
        return {name: _plain(entry, words) for name, entry in found.items() if _is_plain(entry, words)}
    return value


def without_comments(template: str) -> str:
    """A Jinja template whose comments are empty; their marks stay, for they take blanks away.

    >>> without_comments("a {#- of Jane -#} b")
    'a {#--#} b'
    """
    end = template.rfind("#}") + 2  # no comment ends behind it, and each mark there would be searched for its end
    return re.sub(r"(\{#-?).*?(-?#\})", r"\1\2", template[:end], flags=re.DOTALL) + template[end:]
