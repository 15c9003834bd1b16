"""Which files of a run's or a soak's folder are its own: only these are replaced, and nothing of a user's among them.

Checkpoints are whatever the trainer writes; elsewhere files are known by their names, or by their kind.
"""

import re

KINDS = r"json|jsonl|safetensors|bin|pt|pth|jinja|model|parquet|distcp"
RUN = (
    r"(recipe\.resolved\.yaml|log\.jsonl|provenance\.json)(\.\d+\.tmp)?|(launch|([^/]+_)?evaluation)\.sbatch|audit\.html"
    r"|relevance-pairs\.jsonl|(preference/|([^/]+_)?evaluation/)?(rule_sets|curricula)/\.?[^/]+\.yaml(\.unfinished)?"
    r"|preference/(card\.json|\.?pairs\.parquet(\.unfinished)?)"
    r"|ledger/(rank\d+\.jsonl|(plan|epoch\d+)\.json)(\.\d+\.tmp)?"
    r"|\.shared-[0-9a-f]{32}|\.rows/.+|\.cache/.+|(.+/)?events\.out\.tfevents\..+|checkpoints/(tmp-)?checkpoint-\d+[^/]*/.+"
    rf"|(checkpoints|(model|init)(\.unfinished)?)/(.+/)?([^/]+\.({KINDS})|README\.md|merges\.txt|vocab\.txt)"
    r"|([^/]+_)?evaluation/(answers(\.unfinished)?\.jsonl(\.lock)?|(evaluation|blindness|operating_points)\.json"
    r"|report\.html|reward_model\.(json|html)|pictures/[0-9a-f]{16}\.png)|\.[^/]*evaluation\.lock"
)
OF_A_RUN = re.compile(RUN)
OF_A_SOAK = re.compile(rf"(whole|broken)\.log|(whole|broken)/({RUN})|\.(whole|broken)\.lock")


def is_of_run(path: str) -> bool:
    """Whether a path in a run's folder is of the run.

    >>> is_of_run("checkpoints/checkpoint-8/optimizer.pt"), is_of_run("notes.txt")
    (True, False)
    """
    return bool(OF_A_RUN.fullmatch(path))


def is_of_soak(path: str) -> bool:
    """Whether a path in a soak's folder is of the soak.

    >>> is_of_soak("whole/log.jsonl"), is_of_soak("mine/log.jsonl")
    (True, False)
    """
    return bool(OF_A_SOAK.fullmatch(path))
