"""Labelled boxes against facts: a box counts only for the finding that it is named after.

Left out: synonyms beyond the rule set's phrases; a label that the rule set does not know is a false box.
"""

from rewards.boxes.coordinate_space import BoxSpace, Sizes, Units, true_boxes
from rewards.boxes.geometry import best_pairs, iou, table_of
from rewards.boxes.reading import read_boxes
from rewards.config.knobs import Amount
from rewards.reading.box_absence import says_none
from rewards.reading.reading import phrase_pattern
from rewards.rules.facts import Box, Facts
from rewards.rules.rule_set import RuleSet, load_rule_set

BOUNDS = (0.0, 1.0)
TASKS = ("box",)


def finding_boxes(
    response: str,
    facts: str | None,
    target: str | None = None,
    box_grid: int | None = None,
    image_size: Sizes | None = None,
    processed_size: Sizes | None = None,
    *,
    false_box_weight: Amount = 2.0,
    box_space: BoxSpace = "grid",
) -> float | None:
    """Matched IoU within each finding / (true boxes + ``false_box_weight`` x all other boxes), in [0, 1].

    None without facts. Only the boxes of the ``target`` are true where the row asks about one finding. Where none is
    true: 1 for an answer that says so (``box_absence``), 0 for any other.
    Above a weight of 1, boxing one place under several names, or several places under one, is no hedge.

    >>> truth = '{"rule_set":"chest_xray@1","findings":{"nodule":{"polarity":"present","boxes":[[0,0,10,10]]}}}'
    >>> finding_boxes("nodule [[0,0,10,10]]", truth), finding_boxes("effusion [[0,0,10,10]]", truth)
    (1.0, 0.0)
    """
    if not facts:
        return None
    truth = Facts.model_validate_json(facts)
    units = Units(box_space, box_grid, image_size, processed_size)
    rules = load_rule_set(truth.rule_set)
    wanted = [target] if target in rules.findings else list(rules.findings)
    known = {name: true_boxes(f.boxes, units) for name, f in truth.present().items() if f.boxes}
    true = {name: boxes for name, boxes in known.items() if name in wanted}
    if not true:
        return float(says_none(response, target, truth.rule_set))
    answered, num_false = _by_finding(response, rules, units)
    earned, num_paired = 0.0, 0
    for name, boxes in answered.items():
        ious = table_of(iou, boxes, true.get(name, []))
        pairs = best_pairs(ious)
        earned += sum(ious[i][j] for i, j in pairs)
        num_paired += len(pairs)
    num_false += sum(map(len, answered.values())) - num_paired
    return earned / (sum(map(len, true.values())) + false_box_weight * num_false)


def _by_finding(response: str, rules: RuleSet, units: Units) -> tuple[dict[str, list[Box]], int]:
    """The boxes by the finding that their label names, and how many boxes are invalid or name none."""
    reading = read_boxes(response)
    owners = {
        phrase.casefold(): name
        for name, rule in rules.findings.items()
        for phrase in [*rule.phrases, *([rule.plural] if rule.plural else [])]
    }
    by_finding: dict[str, list[Box]] = {}
    unknown = reading.num_invalid
    for found in reading.boxes:
        named = {owners[m.group().casefold()] for m in phrase_pattern(rules).finditer(found.label or "")}
        if len(named) == 1:
            by_finding.setdefault(named.pop(), []).append(units.read(found.box))
        else:
            unknown += 1
    return by_finding, unknown
