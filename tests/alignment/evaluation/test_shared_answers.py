"""Answers that ranks share out are those of one process, in the same files; only rank 0 reads and writes them."""

import json
import os

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from alignment.cli.app import app
from alignment.distributed.ranks import end_with_the_others
from alignment.evaluation.kept_answers import FILE, KeptAnswers
from alignment.models.prepared import built_texts
from alignment.models.tiny import build_tiny
from alignment.reward_functions.counterparts import write_counterparts
from rewards.llm.reply_cache import AppendLog
from tests.alignment.distributed.test_ranks import both, exit_codes, launcher
from tests.alignment.resuming.test_resume_after_kill import SERVER

TEXTS = ["Is there a nodule?", "Yes", "No", "Left lung"]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    """A tiny model that nothing was taught."""
    folder = tmp_path_factory.mktemp("start") / "tiny"
    return build_tiny(built_texts(str(data / "instruction/sft")), folder, image_size=64)


def by_one(*words):
    """The command in this process."""
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 0, done.output


def files_in(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if _is_content(p)}


def _is_content(path):
    return path.is_file() and path.suffix != ".lock"


def clean_answers(folder):
    lines = (folder / "answers.jsonl").read_text().splitlines()
    return {line["id"]: line["responses"]["clean"] for line in map(json.loads, lines)}


def test_two_ranks_evaluate_as_one_and_only_the_first_writes(data, start, tmp_path):
    words = ["eval", start, data / "prompt/test", "--limit", 10, "--probe", "--out"]
    by_one(*words, tmp_path / "one")
    said, codes = both([*words, tmp_path / "two"], tmp_path, other=[*words, tmp_path / "not here"])
    assert codes == [0, 0], said
    assert not (tmp_path / "not here").exists()
    assert files_in(tmp_path / "two") == files_in(tmp_path / "one")


def test_what_rank_0_has_kept_nobody_asks_again_and_the_rest_is_shared_out(data, start, tmp_path, monkeypatch):
    """Rank 1 has another model, so that its share is seen, and does not see rank 0's disk."""
    words = [data / "prompt/test", "--limit", 10, "--out"]
    with monkeypatch.context() as killed:
        killed.setattr(KeptAnswers, "remove", lambda self: None)
        by_one("eval", start, *words, tmp_path / "one")
    settings, first, *_ = AppendLog(tmp_path / "one" / FILE).unread()
    kept = AppendLog(tmp_path / "two" / FILE)
    kept.append(settings)
    kept.append(first | {"answers": ["kept"] * len(first["answers"])})
    other = build_tiny(TEXTS, tmp_path / "other", image_size=64, seed=9)
    both(["eval", start, *words, tmp_path / "two"], tmp_path, other=["eval", other, *words, tmp_path / "not here"])
    shared, alone = clean_answers(tmp_path / "two"), clean_answers(tmp_path / "one")
    assert list(shared.values()).count("kept") == len(first["answers"])
    of_rank = {shared[name] == alone[name] for name in shared if shared[name] != "kept"}
    assert of_rank == {True, False}
    assert not (tmp_path / "two" / FILE).exists()
    assert not (tmp_path / "not here").exists()


def pooled(data, out, models, env):
    """A process's share of a pool of 14 rows, asked in batches of three."""
    os.environ.update(env)
    write_counterparts(str(data / "prompt/align"), str(out), models, limit=14, max_new_tokens=6, batch_size=3)
    end_with_the_others(0)


def test_two_ranks_write_the_pool_of_one_and_ask_an_endpoint_once(data, start, tmp_path, server):
    """Rank 1 may have another model, so that its share is seen."""
    (tmp_path / "gpt.yaml").write_text(json.dumps({"model": "big", "endpoint": server.url, "concurrency": 1}))
    models = {"own": str(start), "big": str(tmp_path / "gpt.yaml")}
    pooled(data, tmp_path / "one/align", models, {})
    assert len(server.requests) == 14
    one = files_in(tmp_path / "one")
    for case, other in (("two", start), ("shared", build_tiny(TEXTS, tmp_path / "other", image_size=64, seed=9))):
        kept = one["align.counterparts.jsonl"].splitlines(keepends=True)
        (tmp_path / case).mkdir()
        (tmp_path / case / "align.counterparts.jsonl").write_bytes(b"".join(kept[:3]))
        shared, ranks = launcher(2), []
        for k in range(2):
            own = models | ({"own": str(other)} if k else {})
            env = {**shared, "RANK": str(k), "LOCAL_RANK": str(k)}
            ranks.append(SERVER.Process(target=pooled, args=(data, tmp_path / case / "align", own, env)))
        assert exit_codes(ranks) == [0, 0]
    assert files_in(tmp_path / "two") == one
    assert len(server.requests) == 3 * 14
    pools = [pq.read_table(tmp_path / case / "align.parquet")["counterparts"].to_pylist() for case in ("one", "shared")]
    same = [a == b for a, b in zip(*pools, strict=True)]
    assert same == [True] * 6 + [False] * 3 + [True] * 3 + [False] * 2  # kept, then batches of ranks 0, 1, 0 and 1
