"""Which names of metrics there can be, before any answer is judged: what a loop names is checked against them.

Left out: the names in brackets (findings, scenarios, groups of questions), which only the answers tell.
"""

from alignment.metrics.ratios import FAMILIES, MACROS, RATIOS
from rewards.config.input_error import nearest


def fault_of_metric(name: str) -> str | None:
    """Why there can be no metric of this name, with the nearest one; None if there can.

    >>> fault_of_metric("sensitivity[nodule]"), fault_of_metric("mean_iuo")
    (None, "no metric 'mean_iuo'. Did you mean 'mean_iou'?")
    """
    base, bracket, group = name.partition("[")
    plain = (*RATIOS, *MACROS)
    if base in FAMILIES and group.endswith("]") and group != "]":
        return None
    if base in plain and not bracket:
        return None
    if base in FAMILIES:
        return f"no metric '{name}'. Write {base}[NAME], as an evaluation.json has it."
    if base in plain:
        return f"no metric '{name}': '{base}' is not told by finding or group."
    known = [*FAMILIES] if bracket else [*plain, *FAMILIES]
    hint = nearest(base, known) or f" Known: {', '.join(known)}."
    return f"no metric '{name}'.{hint}"


CONDITIONS = {
    "clean": "the image itself",
    "noise": "noise instead of the image",
    "shuffled": "another patient's image",
    "habit": "no model: commonest answer, mean box",
    "mean_box_true_side": "no model: mean box, true side told",
}
