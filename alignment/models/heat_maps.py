"""Heat maps from models: a VLM's own attention, and patch-text similarity of a CLIP-like model.

Both keep the interface of ``data_builders.pairs.lesion_heat``: ``(image, finding) -> (heat, score)``. They look for the
finding that is asked for, where MMedPO asks MedKLIP for "disease" whatever the question. Left out: images that a
processor cuts into tiles, whose attention lies on several grids.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from alignment.models.generation import model_inputs
from data_builders.schema import user_turn
from rewards.config.input_error import InputError

ANY_FINDING = "abnormality"
"""What is asked for where no finding is named."""


@dataclass(frozen=True)
class AttentionHeat:
    """Where a VLM looks as it begins to answer a question about the finding.

    The heat is the attention of the last prompt token to each image token, over all heads and the last ``layers``
    layers (None: all), after the attention to the same question about nothing (``baseline``) is taken off, which
    removes what attracts every question. The score is P(yes) / (P(yes) + P(no)) of the answer's first token.
    """

    model: Any
    processor: Any
    question: str = "Is there {what}?"
    yes: str = "Yes"
    no: str = "No"
    layers: int | None = None
    baseline: str | None = None

    def __call__(self, image: Image.Image, finding: str | None) -> tuple[NDArray[np.float32], float]:
        """The heat (height, width) of the image's size, not negative, and the score in [0, 1].

        Raises: InputError if the model's image tokens lie on no one grid.
        """
        heat, score = self._look(image, finding or ANY_FINDING)
        if self.baseline is not None:
            heat = (heat - self._look(image, self.baseline)[0]).clip(min=0)
        return upsampled(heat, image.size), score

    @torch.inference_mode()
    def _look(self, image: Image.Image, finding: str) -> tuple[torch.Tensor, float]:
        prompt = user_turn(self.question.format(what=finding))
        row = {"images": [image.convert("RGB")], "prompt": prompt}
        inputs = model_inputs(self.processor, [row]).to(self.model.device)
        # Private in transformers 5.23: `set_attn_implementation` has no getter beside it; goes once it has one.
        before = self.model.config._attn_implementation
        self.model.set_attn_implementation("eager")  # the others do not give their attention away
        try:
            out = self.model(**inputs, output_attentions=True, use_cache=False)
        finally:
            self.model.set_attn_implementation(before)
        attention = torch.stack(out.attentions[-self.layers if self.layers else None :]).float()
        on_image = attention.mean(dim=(0, 2))[0, -1, inputs["input_ids"][0] == image_token(self.model)]
        heat = on_image.reshape(grid_of(inputs, len(on_image), self.processor))
        return heat, self._confidence(out.logits[0, -1].float())

    def _confidence(self, logits: torch.Tensor) -> float:
        yes, no = (self.processor.tokenizer.encode(word, add_special_tokens=False)[0] for word in (self.yes, self.no))
        return float(torch.softmax(logits[[yes, no]], dim=0)[0])


def image_token(model: Any) -> int:
    """The id of the placeholder that stands for a piece of an image.

    Raises: InputError if the model's config names none.
    """
    for name in ("image_token_id", "image_token_index"):
        token = getattr(model.config, name, None)
        if token is not None:
            return int(token)
    raise InputError(f"{type(model).__name__}: its config names no image token, so its attention cannot be mapped.")


def grid_of(inputs: Any, num_tokens: int, processor: Any) -> tuple[int, int]:
    """Rows and columns of the image tokens.

    Raises: InputError if they lie on no one grid (an image that was cut into tiles).
    """
    if "image_grid_thw" in inputs:
        merge = processor.image_processor.merge_size
        _, rows, columns = (int(v) for v in inputs["image_grid_thw"][0])
        return rows // merge, columns // merge
    side = round(num_tokens**0.5)
    if side * side != num_tokens or not num_tokens:
        raise InputError(f"{num_tokens} image tokens lie on no square grid; turn off image splitting in the processor.")
    return side, side


@dataclass(frozen=True)
class SimilarityHeat:
    """Where a CLIP-like model (CLIP, SigLIP and their medical kin) finds the words of a finding.

    The heat is the cosine similarity of each patch to the text, less the smallest. The score is the probability of
    the finding's text against ``absent``, as the model scores whole images.
    """

    model: Any
    processor: Any
    present: str = "{what}"
    absent: str = "no {what}"

    @torch.inference_mode()
    def __call__(self, image: Image.Image, finding: str | None) -> tuple[NDArray[np.float32], float]:
        """The heat (height, width) of the image's size, not negative, and the score in [0, 1]."""
        what = finding or ANY_FINDING
        edge = self.model.config.vision_config.image_size
        pixels = self.processor.image_processor(
            images=image.convert("RGB"), size={"height": edge, "width": edge}, do_center_crop=False, return_tensors="pt"
        )["pixel_values"]
        texts = [self.present.format(what=what), self.absent.format(what=what)]
        tokens = self.processor.tokenizer(texts, padding=True, return_tensors="pt")
        out = self.model(**tokens.to(self.model.device), pixel_values=pixels.to(self.model.device))
        heat = patch_features(self.model, out.vision_model_output) @ _unit(out.text_embeds[0].float())
        side = edge // self.model.config.vision_config.patch_size
        score = torch.softmax(out.logits_per_image[0].float(), dim=0)[0]
        return upsampled((heat - heat.min()).reshape(side, side), image.size), float(score)


def patch_features(model: Any, vision: Any) -> torch.Tensor:
    """The unit-length feature of each patch (patches, dim) in the space of the text.

    CLIP projects only its class token; its patches are sent the same way (Zhou et al. 2022, MaskCLIP).
    """
    states = vision.last_hidden_state[0]
    projection: Callable[[torch.Tensor], torch.Tensor] | None = getattr(model, "visual_projection", None)
    if projection is None:
        return _unit(states.float())
    return _unit(projection(model.vision_model.post_layernorm(states[1:])).float())


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)


def upsampled(heat: torch.Tensor, size: tuple[int, int]) -> NDArray[np.float32]:
    """A coarse map (rows, columns) at an image's size (width, height), bilinear."""
    fine = torch.nn.functional.interpolate(
        heat[None, None].float(), size=(size[1], size[0]), mode="bilinear", align_corners=False
    )
    return fine[0, 0].clamp(min=0).cpu().numpy()
