"""Nothing leaves the machine, and nothing of a patient stays in the home folder; recorded, with no switch set outside.

A process of its own, without the Makefile's environment (HF_HUB_OFFLINE and HF_HUB_DISABLE_TELEMETRY unset), runs the
commands under Python's audit hook. What it recorded (2026-11-27; trl 1.16, transformers 5.23, huggingface_hub as
pinned by them):

    command                  connections beyond loopback    name look-ups
    build                    none                           none
    check                    none                           none
    train sft                none                           none
    train dpo                none                           none
    train grpo               none                           none
    eval                     none                           none
    inspect                  none                           none
    release                  none                           none
    run (sft, dpo)           none                           none

With ``HF_HUB_DISABLE_TELEMETRY=0`` the recorder sees trl's ping ("huggingface.co"): the second test. Left out: sockets
that a compiled library opens by itself (hf_xet does, for downloads, which begin with a look-up of huggingface_hub's).
"""

import json
import os
import subprocess
import sys

import pytest
import yaml

from tests.alignment.conftest import SPEC, TRAIN, TRAINER

RECORDER = """
import sys, time
seen, now = [], ["start"]
def heard(event, given):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname"):
        place = given[1] if event.startswith(("socket.connect", "socket.send")) else given[0]
        host = place[0] if isinstance(place, tuple) else place
        if event == "socket.getaddrinfo" or isinstance(place, tuple) or event == "socket.gethostbyname":
            seen.append([now[0], event, host.decode() if isinstance(host, bytes) else str(host)])
sys.addaudithook(heard)
"""
COMMANDS = (
    RECORDER
    + """
import json
from alignment.cli.app import app
for name, words in json.loads(sys.argv[1]):
    now[0] = name
    app(words, standalone_mode=False)
time.sleep(1)
json.dump(seen, open(sys.argv[2], "w"))
"""
)
PING = (
    RECORDER
    + """
import os
if "first" in sys.argv: import huggingface_hub.constants
import alignment
from huggingface_hub.utils import send_telemetry
send_telemetry("trl", library_name="trl")
time.sleep(2)
print("seen:", seen)
os._exit(0)
"""
)
LOOPBACK = ("127.0.0.1", "::1", "localhost", "None", "")
SWITCHES = ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK", "TRANSFORMERS_OFFLINE")
ELSEWHERE = ("HF_HOME", "HF_DATASETS_CACHE", "XDG_CACHE_HOME", "CLINALIGN_CACHE")


def bare(**more):
    """The environment without any switch that a careful caller might have set."""
    return {name: v for name, v in os.environ.items() if name not in (*SWITCHES, *ELSEWHERE)} | more


def write(path, content):
    path.write_text(yaml.safe_dump(content))
    return str(path)


def recipe(folder, method):
    return {
        "method": method, "output": str(folder / "runs" / method), "model": {"path": "tiny", "image_size": 64},
        "data": {"train": str(folder / "data" / TRAIN[method]), "limit": 4},
        **({"rewards": [{"name": "box_overlap"}]} if method == "grpo" else {}),
        "trainer": {
            "max_steps": 1, "per_device_train_batch_size": 2, "activation_checkpointing": False, "disable_tqdm": True,
            **TRAINER[method],
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder after every command: ``home``, ``data``, ``runs`` and what was recorded."""
    folder = tmp_path_factory.mktemp("silence")
    (folder / "home").mkdir()
    spec = write(folder / "spec.yaml", {**SPEC, "output": str(folder / "data"), "tasks": {"presence": 1, "box": 1}})
    recipes = {method: write(folder / f"{method}.yaml", recipe(folder, method)) for method in ("sft", "dpo", "grpo")}
    stages = [{"name": "sft", "recipe": "sft.yaml"}, {"name": "dpo", "recipe": "dpo.yaml", "model": "sft"}]
    loop = {
        "spec": spec, "test": "prompt/test", "limit": 4, "release": "dpo",
        "chain": {"output": str(folder / "runs" / "loop"), "data": str(folder / "data"), "stages": stages},
        "compare": [{"before": "sft", "after": "dpo", "metrics": ["mean_iou"]}],
    }  # fmt: skip
    runs, test = folder / "runs", str(folder / "data/prompt/test")
    commands = [
        ("build", ["build", spec]),
        ("check", ["check", recipes["dpo"]]),
        *((f"train {method}", ["train", file]) for method, file in recipes.items()),
        ("eval", ["eval", str(runs / "sft"), test, "--limit", "4"]),
        ("inspect", ["inspect", test, "--model", str(runs / "sft"), "--out", str(folder / "x.png")]),
        ("release", ["release", str(runs / "sft"), str(folder / "released")]),
        ("run", ["run", write(folder / "loop.yaml", loop), "--json"]),
    ]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands), str(folder / "seen.json")],
        env=bare(HOME=str(folder / "home")), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_no_command_connects_or_looks_a_name_up(ran):
    seen = json.loads((ran / "seen.json").read_text())
    assert [entry for entry in seen if entry[2] not in LOOPBACK] == []


@pytest.mark.slow
def test_no_byte_of_a_row_is_left_in_the_home_folder_or_beside_a_run(ran):
    import pyarrow.parquet as pq

    pieces: list[tuple[str, bytes]] = []
    for entry in TRAIN.values():
        row = pq.read_table(ran / f"data/{entry}.parquet").slice(0, 1).to_pylist()[0]
        pieces += [("id", row["id"].encode()), ("picture", row["images"][0]["bytes"][-64:])]
    assert all(len(piece) > 5 for _, piece in pieces)
    left = [file for place in ("home", "runs", "released") for file in (ran / place).rglob("*") if file.is_file()]
    with_a_piece = {
        (name, file.relative_to(ran).as_posix()) for file in left for name, piece in pieces
        if piece in file.read_bytes()
    }  # fmt: skip
    assert not [file for _, file in with_a_piece if file.startswith("home")]
    assert not [file for name, file in with_a_piece if name == "picture"]
    assert not list((ran / "runs").rglob(".rows"))


@pytest.mark.parametrize(
    ("settings", "words", "heard"),
    [({}, [], False), ({}, ["first"], False), ({"HF_HUB_DISABLE_TELEMETRY": "0"}, [], True)],
    ids=["alignment first", "huggingface_hub first", "as the user says"],
)
def test_a_ping_is_sent_only_where_the_user_says_so(settings, words, heard):
    done = subprocess.run(
        [sys.executable, "-c", PING, *words], env=bare(**settings), capture_output=True, text=True, check=True
    )
    assert ("huggingface.co" in done.stdout) is heard, done.stdout + done.stderr
