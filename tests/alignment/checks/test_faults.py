"""Every command by every fault of its arguments: one sentence and an exit code, never a traceback.

The commands and their parameters are read from the program, so that a new one is tried without being listed here.
"""

from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import typer.main
import yaml
from typer.testing import CliRunner

from alignment.cli.app import app

COMMANDS = typer.main.get_command(app).commands
HINTS = {c.name or c.callback.__name__.replace("_", "-"): get_type_hints(c.callback) for c in app.registered_commands}
SUFFIXES = {
    "recipe": ".yaml", "spec": ".yaml", "loop": ".yaml", "judge": ".yaml", "rule_set": ".yaml", "rules": ".yaml",
    "data": ".parquet", "pool": ".parquet", "prompts": ".parquet", "source": ".tgz", "out": "",
}  # fmt: skip
DEEP = "[" * 3000
FAULTS = {
    "missing": lambda path: None,
    "folder": lambda path: path.mkdir(),
    "broken link": lambda path: path.symlink_to(path.parent / "gone"),
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"\x00\xff\xfePAR1\x93" * 9),
    "latin-1": lambda path: path.write_bytes("größe: 1\n".encode("latin-1")),
    "utf-16": lambda path: path.write_bytes("a: 1\n".encode("utf-16")),
    "list": lambda path: path.write_text("- 1\n- 2\n"),
    "number": lambda path: path.write_text("17\n"),
    "foreign keys": lambda path: path.write_text("a: 1\n1: x\nnull: y\n"),
    "key twice": lambda path: path.write_text("method: sft\nmethod: dpo\n"),
    "open bracket": lambda path: path.write_text("a: {"),
    "deep": lambda path: path.write_text(f"a: {DEEP}"),
    "tag": lambda path: path.write_text("a: !!python/object:os.system x\n"),
    "no stages": lambda path: path.write_text("stages: 5\nchain: 5\n"),
    "wrong stages": lambda path: path.write_text("output: x\nstages: [5, {name: 1}]\nchain: {stages: [x]}\n"),
    "nulls": lambda path: path.write_text(
        "{method: null, output: null, model: null, data: null, trainer: null, rewards: null, source: null, id: null}"
    ),
    "numbers": lambda path: path.write_text(
        "{method: 1, output: 1, model: 1, data: 1, trainer: 1, rewards: 1, source: 1, splits: 1, rows: 1, id: 1}"
    ),
    "lists": lambda path: path.write_text(
        "{method: [], output: [], model: [], data: [], trainer: [], rewards: [1], source: [], splits: [], findings: []}"
    ),
}
WORDS = {"nothing": "", "null character": "a\0b", "long": "x" * 5000, "dots": "../..", "escape": "a\x1b[31m", "{": "{"}
OVERRIDES = (
    "seed", "=1", "a..b=1", "seed={", "data.train.x=1", "rewards.0.weight=1", "trainer.1=2", "method=null", "x=*a",
    "trainer=[1]", "model=1", "trainer.seed=x", "trainer.{=1", "output=a #1", "data=null", "source=null", "rows.x=1",
    "output=", "trainer.learning_rate=1e-3", "model.lora=5", "trainer.max_steps=[1]",
)  # fmt: skip
LOOP = "recipes/loops/phantom_chest.yaml"
STARTS = {
    ("soak", "out"): "a sound recipe and an empty folder are run",
    ("launch", "head"): "a host, which no file is, and which one node does without",
}
"""Parameters of which some fault is none, and would start a long run."""


def types_of(name, parameter):
    """The plain types of a command's parameter: ``list[str] | None`` gives str."""
    waiting, found = [HINTS[name][parameter.name]], set()
    while waiting:
        hint = waiting.pop()
        waiting += get_args(hint)
        found |= {hint} if isinstance(hint, type) and not get_args(hint) else set()
    return found


def texts(name):
    """The parameters that take a path or a name."""
    return [p for p in COMMANDS[name].params if p.name != "overrides" and types_of(name, p) & {str, Path}]


def numbers(name):
    """The parameters that take a number."""
    return [p for p in COMMANDS[name].params if types_of(name, p) & {int, float}]


def cells(parameters, faults):
    return [
        pytest.param(name, p.name, fault, id=f"{name}-{p.name}-{fault}")
        for name in sorted(COMMANDS)
        for p in parameters(name)
        for fault in faults
        if (name, p.name) not in STARTS
    ]


@pytest.fixture(scope="module")
def sound(data, tmp_path_factory):
    """A value that each parameter takes, by its name."""
    folder = tmp_path_factory.mktemp("sound")
    recipe = {
        "method": "grpo",
        "output": str(folder / "grpo"),
        "model": {"path": "tiny", "image_size": 64},
        "data": {"train": str(data / "prompt/align")},
        "rewards": [{"name": "finding_f1"}],
        "trainer": {"max_steps": 1, "num_generations": 2, "per_device_train_batch_size": 2},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "run").mkdir()
    return {
        "recipe": folder / "recipe.yaml", "spec": "recipes/data/phantom_chest.yaml", "loop": LOOP,
        "reward": "closed_answer", "rule_set": "chest_xray", "rules": "bone_marrow", "data": data / "prompt/test",
        "pool": data / "prompt/test", "shape": "trl", "kind": "dpo", "run": folder / "run",
        "model": f"sft={folder / 'run'}", "patients": 2, "size": 64,
    }  # fmt: skip


def called(name, changed, value, sound, tmp_path, stdin=""):
    """The command with sound values but for one parameter."""
    line, options = [name], []
    for p in COMMANDS[name].params:
        given = value if p.name == changed else sound.get(p.name, tmp_path / "out" if p.required else None)
        if given is None or (p.name != changed and not p.required and p.name not in ("patients", "size")):
            continue
        (options.extend if p.param_type_name == "option" else line.extend)(
            [p.opts[0], str(given)] if p.param_type_name == "option" else [str(given)]
        )
    return CliRunner().invoke(app, [*line[:1], *options, *line[1:]], input=stdin)


def told(done):
    """What a refused command says, on one line."""
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert "Traceback" not in done.output
    return " ".join(done.output.split())


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch, pytestconfig):
    (tmp_path / "recipes").symlink_to(pytestconfig.rootpath / "recipes")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("name", "parameter", "fault"), cells(texts, FAULTS))
def test_a_faulty_file_is_one_sentence_that_names_it(name, parameter, fault, sound, tmp_path):
    path = tmp_path / f"faulty{SUFFIXES.get(parameter, '')}"
    FAULTS[fault](path)
    value = f"x={path}" if (name, parameter) == ("counterparts", "model") else path
    done = called(name, parameter, value, sound, tmp_path)
    said = told(done)
    if parameter != "out":  # a place to write may be new, or an empty folder
        assert done.exit_code in (1, 2), said
        others = [str(value) for value in sound.values() if isinstance(value, Path)]
        assert any(named in said for named in ("faulty", parameter.replace("_", "-"), *others)), said


@pytest.mark.parametrize(("name", "parameter", "fault"), cells(texts, WORDS))
def test_a_word_that_is_none_is_one_sentence(name, parameter, fault, sound, tmp_path):
    done = called(name, parameter, WORDS[fault], sound, tmp_path)
    said = told(done)
    assert done.exit_code == 0 or len(said) > 20, said


@pytest.mark.parametrize(("name", "parameter", "fault"), cells(numbers, ("x", "", "1e400", "nan")))
def test_a_number_that_is_none_is_one_sentence(name, parameter, fault, sound, tmp_path):
    done = called(name, parameter, fault, sound, tmp_path)
    said = told(done)
    assert done.exit_code == 2, said
    assert parameter.replace("_", "-") in said


TAKES_OVERRIDES = sorted(n for n, c in COMMANDS.items() if any(p.name == "overrides" for p in c.params))


@pytest.mark.parametrize("override", OVERRIDES)
@pytest.mark.parametrize("name", TAKES_OVERRIDES)
def test_a_faulty_override_is_one_sentence_that_names_it(name, override, sound, tmp_path):
    done = called(name, "overrides", override, sound, tmp_path)
    said = told(done)
    assert done.exit_code == 2, said
    key = override.partition("=")[0].split(".")[0]
    assert key in said


@pytest.mark.parametrize(
    "pair", ["casefold", "=1", "casefold={", "casefolt=1", "casefold=[1]", "a.b=1", "casefold=null"]
)
def test_a_faulty_knob_is_one_sentence_that_names_it(pair):
    done = CliRunner().invoke(app, ["score", "closed_answer", pair], input="")
    assert done.exit_code == 2
    assert pair.partition("=")[0] in told(done)


def test_the_table_holds_every_command():
    assert {cell.values[0] for cell in cells(lambda name: texts(name) + numbers(name), ("x",))} >= set(COMMANDS) - {
        "cache",
        "rewards",
    }


def test_an_unknown_command_is_told_with_the_nearest():
    done = CliRunner().invoke(app, ["trian"])
    assert done.exit_code == 2
    assert "'train'" in told(done)


def test_faults_go_to_standard_error_beside_json():
    done = CliRunner().invoke(app, ["check", "none.yaml", "--json"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "none.yaml: no such file" in done.stderr
    assert Path("none.yaml").exists() is False


@pytest.mark.parametrize(
    "command",
    [
        "bench dpo --runs 0",
        "bench grpo --answers 1", "bench dpo --prompts 0", "bench dpo --layers 0", "bench dpo --image-tokens -4",
        "bench dpo --answer-tokens 0", "bench dpo --hidden-size 12", "inspect PROMPTS --model tiny --out x.xyz",
        "inspect PROMPTS --model tiny --out x.png/y", "inspect PROMPTS --model tiny --out dir.png", "demo --seeds 0",
        "counterparts PROMPTS OUT --model a=x --limit 0", "counterparts PROMPTS OUT --model a=x --max-new-tokens 0",
        "soak RECIPE --steps 1", "soak RECIPE --kills -1", "launch RECIPE --nodes 0",
    ],
)  # fmt: skip
def test_a_number_or_a_place_that_means_nothing_is_one_sentence(command, data, sound, tmp_path):
    (tmp_path / "dir.png").mkdir()
    places = {"OUT": tmp_path / "out", "PROMPTS": data / "prompt/test", "RECIPE": sound["recipe"]}
    done = CliRunner().invoke(app, [str(places.get(word, word)) for word in command.split()])
    said = told(done)
    assert done.exit_code == 2, said
    assert any(word in said for word in command.split()[-2:])  # the option, or what was given for it
    assert not (tmp_path / "out").exists()
