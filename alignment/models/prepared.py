"""The checkpoint that a run starts from, made first where it is ``tiny`` or ``smollm2``."""

import contextlib
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pyarrow.parquet as pq

from alignment.config.checkpoint_folders import MADE, model_folder
from alignment.config.data_entries import parquet
from alignment.config.model_section import ModelSection
from alignment.config.recipe import Recipe
from alignment.distributed.ranks import agreed, of_rank_0
from alignment.distributed.shared_folder import check_same, wait_for
from data_builders.cards import CARD


def prepared_model(recipe: Recipe) -> str:
    """The folder or hub name to load, after ``tiny`` and ``smollm2`` are created under ``output/init``.

    All processes come by here.
    """
    section, init = recipe.model, Path(recipe.output) / "init"
    if section.path not in MADE:
        folder = agreed(lambda: model_folder(section.path))
        check_same(f"model.path: {folder}", _sizes(folder))
        return folder
    of_rank_0(lambda: None if (init / "config.json").is_file() else _made(recipe, init))
    agreed(lambda: wait_for(init / "config.json"))
    return str(init)


def _sizes(folder: str) -> dict[str, int]:
    """Bytes of the files of a folder's model; nothing for a hub name."""
    files = [file for kind in ("*.safetensors", "*.json", "*.jinja") for file in sorted(Path(folder).glob(kind))]
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
    """Every text of the data set that ``train`` belongs to, or of its own file where it is of none that was built.

    The tiny model's tokenizer is trained on it.
    """
    file = parquet(train)
    folder = file.parent.parent
    for rows in sorted(folder.glob("*/*.parquet")) if (folder / CARD).is_file() else [file]:
        wanted = [c for c in ("prompt", "completion", "chosen", "rejected") if c in pq.read_schema(rows).names]
        for batch in pq.ParquetFile(rows).iter_batches(columns=wanted):
            for column in batch.columns:
                yield from _texts(column.to_pylist())


def _texts(messages: object) -> Iterator[str]:
    """The texts of messages, in blocks or plain."""
    if isinstance(messages, str):
        yield from [messages] if messages else []
    elif isinstance(messages, dict):
        yield from _texts(messages.get("content") or messages.get("text"))
    elif isinstance(messages, list):
        for one in messages:
            yield from _texts(one)
