"""The section ``model`` of a recipe."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from rewards.config.strict_model import StrictModel

Module = Literal["vision", "projector", "language"]


class Lora(StrictModel):
    """Low-rank adapters (Hu et al. 2021) on the language model's linear layers."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    targets: list[str] | str = "all-linear"


def _switch(value: object) -> object:
    """``on`` and ``off``, which YAML 1.1 reads as true and false."""
    return ("on" if value else "off") if isinstance(value, bool) else value


class ModelSection(StrictModel):
    """Which model, and what of it is trained.

    ``path``: a Hugging Face name, a folder, a run's folder, ``tiny`` or ``smollm2``. ``max_pixels`` is the one pixel
    budget (width x height) of the image processor; None keeps the processor's own. ``shared_prefix``: a prompt with
    several answers goes through the model once (``auto``: where that is exact, else a line in the log says why not;
    ``cached``: by way of a key-value cache, which kernels without a mask get anyway). ``cache_image_features``: what
    a frozen vision tower and projector make of an image is kept on disk (see ``clinalign cache``).
    ``attention: auto`` is flash attention on a GPU that has it, else sdpa; ``liger`` is used on a GPU only;
    ``quantization`` of the frozen weights (QLoRA). ``learning_rates`` of parts, where they differ from the trainer's;
    ``tower_checkpointing``: whether the vision tower recomputes its activations (None: as the trainer says);
    ``tower_attention``: a windowed tower's windows in one call (``auto``: on a GPU) or one by one (``windows``).
    """

    path: str
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2", "flex_attention"] = "sdpa"
    liger: bool = False
    quantization: Literal["4bit"] | None = None
    learning_rates: dict[Module, Annotated[float, Field(ge=0)]] = Field(default={})
    tower_checkpointing: bool | None = None
    tower_attention: Literal["auto", "one_call", "windows"] = "auto"
    max_pixels: int | None = Field(default=None, ge=28 * 28)
    freeze: list[Module] = Field(default=[])
    lora: Lora | None = None
    shared_prefix: Annotated[Literal["auto", "on", "cached", "off"], BeforeValidator(_switch)] = "auto"
    cache_image_features: bool = False
    family: Literal["idefics3", "qwen3_vl", "llava"] = "idefics3"
    image_size: int = Field(default=128, ge=32, multiple_of=32)
    init_std: float = Field(default=0.1, gt=0)
    seed: int = 0
