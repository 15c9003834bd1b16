"""What came of a dialogue as counts that add up, and the metrics that are their ratios.

Over all, per scenario and, where some dialogues are in words of training and some in words of tests, per wording.
A_Q, A_C, A_D and H_cc are Dr-LLaVA's (arXiv 2405.19567): the share of questions answered rightly, of dialogues with
every answer right, with the right final answer (of those that ask for it), and whose answers are no valid path.
``rewards.dialogues.dialogue_metrics`` judges one dialogue.
"""

from collections.abc import Iterable, Mapping, Sequence

from rewards.dialogues.dialogue import read_dialogue
from rewards.dialogues.dialogue_metrics import Outcome, outcome

DIALOGUE_RATIOS = {
    "A_Q": ("turns_right", "turns"),
    "A_C": ("dialogues_right", "dialogues"),
    "A_D": ("finals_right", "finals"),
    "H_cc": ("dialogues_off_path", "dialogues"),
    "contradiction_rate": ("dialogues_contradictory", "dialogues"),
    "parse_rate": ("turns_parsed", "turns"),
    "yield_rate": ("claims_yielded", "wrong_claims"),
    "stopped_early": ("dialogues_stopped", "dialogues"),
}
"""Each metric: the counts above and below the line."""
WORDINGS = {"train": "seen words", "test": "unseen words"}
LOWER_IS_BETTER = ("H_cc", "contradiction_rate", "yield_rate", "stopped_early")


def dialogue_counts(responses: Sequence[str], column: str) -> dict[str, float]:
    """The counts of one dialogue, and the same under its scenario and its wording.

    ``turns_right``, ``turns_right[standard]``, ``turns_right[unseen words]``.

    ``responses``: the model's turns. ``column``: the row's ``dialogue``.
    """
    dialogue = read_dialogue(column)
    counts = _counts(outcome(responses, dialogue)) | {"dialogues_stopped": len(responses) < len(dialogue.turns)}
    plain = {name: float(count) for name, count in counts.items()}
    kinds = (dialogue.scenario, WORDINGS[dialogue.wording])
    return plain | {f"{name}[{kind}]": count for kind in kinds for name, count in plain.items()}


def _counts(found: Outcome) -> dict[str, float]:
    final = {} if found.final_right is None else {"finals": 1, "finals_right": found.final_right}
    claims = {"wrong_claims": found.num_wrong_claims, "claims_yielded": found.num_yielded}
    return {
        "dialogues": 1,
        "turns": found.num_turns,
        "turns_right": found.num_right,
        "turns_parsed": found.num_parsed,
        "dialogues_right": found.all_right,
        "dialogues_off_path": not found.valid_path,
        "dialogues_contradictory": found.contradicts,
        **final,
        **(claims if found.num_wrong_claims else {}),
    }


def ratios_by_scenario(counts: Iterable[Mapping[str, float]]) -> dict[str, tuple[str, str]]:
    """Every metric of each scenario that occurs, as ``A_C[standard]``, and of each wording where both occur."""
    found = {key[len("dialogues[") : -1] for of in counts for key in of if key.startswith("dialogues[")}
    wordings = found & set(WORDINGS.values())
    kinds = sorted(found if len(wordings) > 1 else found - wordings)
    return {
        f"{name}[{kind}]": (f"{over}[{kind}]", f"{under}[{kind}]")
        for name, (over, under) in DIALOGUE_RATIOS.items()
        for kind in kinds
    }
