"""Does the model look? The truth's log-probability and the accuracy under images that show less and less of it.

Five images for each row with a known lesion: the clean one; its lesions noised; as many pixels noised elsewhere
(background); another patient's (shuffled); and one grey (blank). A model that looks loses most where the lesion is
gone, and little where only the background is. All five are asked of the same rows, so that every drop is paired.
Left out: rows without a box (nothing to noise; they are counted), and attention, which is no proof of use.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image

from alignment.data.prompt_rows import Row
from alignment.distributed.ranks import over_ranks
from alignment.evaluation.answers import generate_answers
from alignment.evaluation.controls import blinded
from alignment.evaluation.kept_answers import KeptAnswers
from alignment.metrics.intervals import Metric, differences, summarise
from alignment.metrics.outcomes import Outcome, question_finding, score_answers
from alignment.models.generation import model_inputs
from data_builders.imaging.images import pixels
from data_builders.pairs.lesion_heat import GivenBoxes
from data_builders.pairs.lesion_noise import elsewhere, mask_of, noised_under
from data_builders.pairs.settings import NoiseSettings
from data_builders.seeds import seeded
from rewards.boxes.coordinate_space import Units
from rewards.config.input_error import InputError
from rewards.rules.facts import Facts
from rewards.rules.rule_set import load_rule_set

Condition = Literal["clean", "background_noised", "lesion_noised", "shuffled", "blank"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
USUAL_NOISE = NoiseSettings(step=999)
NEEDED: tuple[tuple[str, Callable[[Row], bool]], ...] = (
    ("an image", lambda row: bool(row["images"])),
    ("an answer to compare with", lambda row: bool(row["answer"])),
    ("facts of a known rule set", lambda row: bool(row["rule_set"])),
    ("box_grid or image_size, the units of boxes", lambda row: Units.of(row).extent() is not None),
    ("boxes of their findings", lambda row: any(found.boxes for found in _facts(row).findings.values())),
)
"""What a row must have to be probed, in words."""


@dataclass(frozen=True)
class Blindness:
    """Figures of the probe. ``metrics`` by condition, ``drops``: each condition less the clean image, paired.

    ``truth_logp`` is the mean log-probability of a token of the true answer, in nats.
    """

    num_rows: int
    without_lesion: int
    noised_share: float
    metrics: dict[str, dict[str, Metric]]
    drops: dict[str, dict[str, Metric]]

    def write(self, folder: Path) -> Path:
        """``blindness.json`` in the folder."""
        path = folder / "blindness.json"
        path.write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return path


def blindness(
    model: Any,
    processor: Any,
    rows: Sequence[Row],
    *,
    noise: NoiseSettings = USUAL_NOISE,
    batch_size: int = 32,
    num_resamples: int = 1000,
    seed: int = 0,
    kept: KeptAnswers | None = None,
) -> Blindness:
    """The probe on prompt rows.

    ``kept``: where answers are kept as they come, and taken from.

    Raises: InputError if no row shows a lesion with a box in known units.
    """
    masks = [_mask(row, noise=noise) for row in rows]
    seen = [(row, mask) for row, mask in zip(rows, masks, strict=True) if mask is not None]
    if not seen:
        raise InputError(_why_none(rows))
    conditions = {name: shown(seen, name, noise=noise, seed=seed) for name in CONDITIONS}
    outcomes = {
        name: _outcomes(
            model, processor, questions, batch_size=batch_size, kept=kept.under(f"probe: {name}") if kept else None
        )
        for name, questions in conditions.items()
    }
    options = {"num_resamples": num_resamples, "seed": seed}
    return Blindness(
        num_rows=len(seen),
        without_lesion=len(rows) - len(seen),
        noised_share=float(np.mean([mask.mean() for _, mask in seen])),
        metrics={name: summarise(found, **options) for name, found in outcomes.items()},
        drops={
            name: differences(outcomes["clean"], found, **options)
            for name, found in outcomes.items()
            if name != "clean"
        },
    )


def check_probed(rows: Sequence[Row], *, noise: NoiseSettings = USUAL_NOISE) -> None:
    """Raises InputError, before anything is asked, if no row can be probed."""
    if all(_mask(row, noise=noise) is None for row in rows):
        raise InputError(_why_none(rows))


def _why_none(rows: Sequence[Row]) -> str:
    """The first thing that none of the rows has."""
    left, lacking = list(rows), "a question about a finding that is there and has a box"
    for words, has in NEEDED:
        left = [row for row in left if has(row)]
        if not left:
            lacking = words
            break
    return (
        f"blindness: none of {len(rows)} rows can be probed for whether the model looks: they lack {lacking}. "
        "Evaluate rows that have it, or leave the probe out."
    )


def _facts(row: Row) -> Facts:
    return Facts.model_validate_json(row["facts"])


def _mask(row: Row, *, noise: NoiseSettings) -> np.ndarray | None:
    """The pixels of the finding that the row asks for (of every finding for a report); None if none is boxed."""
    if not row["images"] or not row["answer"] or not row["rule_set"] or Units.of(row).extent() is None:
        return None
    facts = _facts(row)
    finding = question_finding(row, load_rule_set(row["rule_set"]))
    heat, score = GivenBoxes(facts, grid=row["box_grid"])(pixels(row["images"][0]), finding)
    mask = mask_of(heat, noise) if score else None
    return mask if mask is not None and mask.any() else None


def shown(
    seen: Sequence[tuple[Row, np.ndarray]], condition: Condition, *, noise: NoiseSettings, seed: int
) -> list[Row]:
    """The rows under one condition; seeded, so that every model is shown the same images."""
    if condition == "clean":
        return [row for row, _ in seen]
    if condition == "shuffled":
        return list(blinded([row for row, _ in seen], "shuffled", seed=seed))
    rows = []
    for row, mask in seen:
        rng = seeded("lesion_noise", seed, row["id"], condition)
        rows.append({**row, "images": [_image(pixels(row["images"][0]), mask, condition, noise, rng)]})
    return rows


def _image(
    image: Image.Image, mask: np.ndarray, condition: Condition, noise: NoiseSettings, rng: np.random.Generator
) -> Image.Image:
    if condition == "blank":
        grey = np.asarray(image.convert("L")).mean()
        return Image.new("RGB", image.size, (round(grey),) * 3)
    where = mask if condition == "lesion_noised" else elsewhere(mask, rng)
    return noised_under(image, where, noise, rng).image


def _outcomes(
    model: Any, processor: Any, rows: list[Row], *, batch_size: int, kept: KeptAnswers | None
) -> list[Outcome]:
    """The judged answers, with the log-probability of the truth among their counts."""
    answers = generate_answers(model, processor, rows, batch_size=batch_size, kept=kept)
    judged = score_answers(rows, answers)
    logps = truth_logps(model, processor, rows, batch_size=batch_size, kept=kept)
    return [
        replace(outcome, counts={**outcome.counts, "truth_logp": logp, "truth_tokens": float(num_tokens)})
        for outcome, (logp, num_tokens) in zip(judged, logps, strict=True)
    ]


@torch.inference_mode()
def truth_logps(
    model: Any, processor: Any, rows: Sequence[Row], *, batch_size: int = 32, kept: KeptAnswers | None = None
) -> list[tuple[float, int]]:
    """For each row the summed log-probability of its ``answer`` and of the end of the turn, and how many tokens.

    Ranks share out the batches, and each is given all.

    Raises: InputError naming a row whose answer is not tokenised the same behind its prompt.
    """
    was_training = model.training
    model.eval()
    batches = [range(start, min(start + batch_size, len(rows))) for start in range(0, len(rows), batch_size)]
    known = {indices: kept.of("truth", indices) if kept else None for indices in batches}
    missing = [indices for indices, batch_logps in known.items() if batch_logps is None]
    for indices, batch_logps in over_ranks(
        missing, lambda indices: _batch_logps(model, processor, [rows[k] for k in indices])
    ):
        known[indices] = batch_logps
        if kept:
            kept.keep("truth", indices, batch_logps)
    model.train(was_training)
    return [(logp, num_tokens) for batch_logps in known.values() for logp, num_tokens in batch_logps or ()]


def _batch_logps(model: Any, processor: Any, rows: Sequence[Row]) -> list[tuple[float, int]]:
    end = processor.tokenizer.eos_token
    answers = [f"{row['answer']}{end}" for row in rows]
    images = [[pixels(image).convert("RGB") for image in row["images"]] for row in rows]
    prompts = [{"prompt": row["prompt"], "images": pictures} for row, pictures in zip(rows, images, strict=True)]
    inputs = model_inputs(processor, prompts, answers=answers).to(model.device)
    logits = model(**inputs, use_cache=False).logits[:, :-1].float()
    logps = logits.log_softmax(dim=-1).gather(2, inputs["input_ids"][:, 1:, None])[..., 0]
    found: list[tuple[float, int]] = []
    for row, answer, ids, row_logps in zip(rows, answers, inputs["input_ids"], logps, strict=True):
        tokens = processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
        if ids[-len(tokens) :].tolist() != tokens:
            raise InputError(f"row {row['id']}: its answer is tokenised otherwise behind the prompt; rewrite it.")
        found.append((float(row_logps[-len(tokens) :].sum()), len(tokens)))
    return found
