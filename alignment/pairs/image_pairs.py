"""Pairs that differ in their image, made from report rows whose boxes are known: noised lesions, and look-alikes.

Left out: heat maps from models (see ``heat_maps.py``), which rows without boxes would need.
"""

import random
from dataclasses import dataclass
from typing import Any

from PIL import Image

from alignment.config.recipe import Sampling
from data_builders.imaging.images import pixels, png_bytes
from data_builders.pairs.lesion_heat import GivenBoxes
from data_builders.pairs.lesion_noise import NoiseTally, noised
from data_builders.pairs.llm_rows import relevance_of
from data_builders.rendering.render import report
from data_builders.schema import Message, assistant_turn, message_text
from data_builders.seeds import seeded
from rewards.rules.facts import Facts
from rewards.rules.rule_set import load_rule_set

Row = dict[str, Any]
CANDIDATES = 64
"""How many other rows are looked through for a look-alike."""


@dataclass(frozen=True)
class Degraded:
    """A row's first image with its lesions noised; ``index`` is the row's. ``severity``: of the gravest of them."""

    index: int
    image: Image.Image
    severity: float


def degraded(rows: list[Row], sampling: Sampling, *, grid: int, tally: NoiseTally) -> list[Degraded]:
    """The rows whose lesions can be noised, in their order; the others are counted. ``grid``: units of the boxes."""
    wanted = None if sampling.findings is None else tuple(sampling.findings)
    made: list[Degraded] = []
    for index, row in enumerate(rows):
        facts = Facts.model_validate_json(row["facts"])
        image = pixels(row["images"][0])
        heat, score = GivenBoxes(facts, grid=grid, findings=wanted)(image)
        other = noised(image, heat, sampling.noise, seeded("lesion_noise", sampling.seed, row["id"])) if score else None
        if other is None:
            tally.skipped["no lesion"] += 1
            continue
        tally.shares.append(other.share)
        names = [n for n, f in facts.present().items() if f.boxes and (wanted is None or n in wanted)]
        rules = load_rule_set(facts.rule_set)
        made.append(Degraded(index, other.image, max(rules.findings[name].severity for name in names)))
    return made


def noised_pairs(rows: list[Row], made: list[Degraded]) -> list[Row]:
    """The true report under the image, preferred to the same report under the noised one (MMedPO section 3.1)."""
    return [_noised_pair(rows[one.index], one) for one in made]


def _noised_pair(row: Row, one: Degraded) -> Row:
    answer = true_report(row)
    image = {"bytes": png_bytes(one.image), "path": f"{row['id']}-noised.png"}
    others = {"rejected_images": [image, *row["images"][1:]], "relevance": one.severity, "kind": "lesion_noise"}
    return {"id": f"{row['id']}-noised", "chosen": answer, "rejected": answer, **others}


def true_report(row: Row) -> list[Message]:
    """The report of a row's facts, as an assistant's turn."""
    truth = Facts.model_validate_json(row["facts"])
    return assistant_turn(report(truth, load_rule_set(truth.rule_set)))


def look_alike_pairs(rows: list[Row], sampling: Sampling) -> list[tuple[int, Row]]:
    """For each row a true report, preferred to that of a look-alike, and the same seen from the look-alike.

    SymMPO (arXiv 2506.11712) as rows: each of the two images is shown with both reports, and each row holds the other
    image as its ``mirror_images``. A look-alike is another patient's image whose facts differ, in as few findings as
    any of ``CANDIDATES`` drawn.
    """
    rng = random.Random(f"look_alike/{sampling.seed}")
    facts = [Facts.model_validate_json(row["facts"]).without_boxes() for row in rows]
    pairs: list[tuple[int, Row]] = []
    couples: set[frozenset[int]] = set()
    for here, row in enumerate(rows):
        drawn = [k for k in rng.sample(range(len(rows)), min(CANDIDATES, len(rows))) if _differ(row, rows[k])]
        other = min(drawn, key=lambda k: _distance(facts[here], facts[k]) or len(facts[k].findings) + 1, default=None)
        if other is None or not _distance(facts[here], facts[other]):
            continue
        if frozenset((here, other)) not in couples:
            couples.add(frozenset((here, other)))
            pairs += [(here, _look_alike(row, rows[other])), (other, _look_alike(rows[other], row))]
    return pairs


def _differ(one: Row, other: Row) -> bool:
    return one["patient"] != other["patient"]


def _distance(one: Facts, other: Facts) -> int:
    names = one.findings.keys() | other.findings.keys()
    return sum(one.findings.get(name) != other.findings.get(name) for name in names)


def _look_alike(row: Row, other: Row) -> Row:
    columns = {"chosen": true_report(row), "rejected": true_report(other), "rejected_images": None}
    columns["mirror_images"] = other["images"]
    relevance = relevance_of(Facts.model_validate_json(row["facts"]), message_text(columns["rejected"]))
    return {**columns, "id": f"{row['id']}-not-{other['id']}", "relevance": relevance, "kind": "look_alike"}
