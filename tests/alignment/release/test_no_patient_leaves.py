"""No patient in a release: names planted wherever free text can stand, and every byte of what is released searched."""

import base64
import json
import re
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from alignment.checks.read_recipe import read_recipe
from alignment.config.box_units import written_space
from alignment.evaluation.evaluate import evaluate
from alignment.models.loading import load_for_inference
from alignment.models.tiny import build_tiny
from alignment.provenance.weights_digest import model_sha256
from alignment.release.release import release, verify
from alignment.training.run import run
from data_builders.build.build import build
from data_builders.build.build_spec import read_spec
from data_builders.digest import sha256

NAMES = (
    "Jürgen Groß",
    "ADEYEMI^Ngozi",
    "Zażółć-Gęśla",
    "李小龙",
    "mrn 19540312-77",
    "o'Qvortrup;drop",
    "Wxyz\u200bnull",
)
FOLDER, COMMENT, FILE, STUDY, HOST, ROW, REASON = NAMES
TRAINER = {
    "max_steps": 1, "per_device_train_batch_size": 2, "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True,
    "activation_checkpointing": False, "learning_rate": 1.0e-3, "dataloader_pin_memory": False,
}  # fmt: skip


def spellings(name):
    """How a name could stand in a file: in several encodings, escaped for JSON, YAML and URLs, in base64."""
    raw = [name.encode(code) for code in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le")]
    escaped = [json.dumps(name)[1:-1].encode(), ascii(name)[1:-1].encode(), yaml.safe_dump(name).strip().encode()]
    url = "".join(c if c.isalnum() and c.isascii() else "".join(f"%{b:02X}" for b in c.encode()) for c in name)
    return {*raw, *escaped, url.encode(), *(part for shift in range(3) for part in _base64(raw[0], shift))}


def _base64(raw, shift):
    """The characters of base64 that any text with these bytes holds, if they begin ``shift`` bytes into a triple."""
    inner = raw[(3 - shift) % 3 :]
    inner = inner[: len(inner) // 3 * 3]
    return [base64.b64encode(inner)] if len(inner) >= 6 else []


def planted_in(folder, names):
    """Where in the files of a folder, their names, and what they hold compressed, one of the names stands."""
    wanted = {name: spellings(name) | {part.encode() for part in re.findall(r"\w{5,}", name)} for name in names}
    found = []
    for path in folder.rglob("*"):
        told = path.relative_to(folder).as_posix().encode() + b"\n" + (path.read_bytes() if path.is_file() else b"")
        for start in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", told):
            try:
                told += zlib.decompressobj().decompress(told[start.start() :], 1 << 20)
            except zlib.error:
                continue
        found += [(path.name, name) for name, ways in wanted.items() if any(way in told for way in ways)]
    return found


@pytest.fixture
def built(tmp_path):
    """A clinic's table under folders, files, ids and notes that bear names; two of its records cannot be used."""
    root = tmp_path / FOLDER / FILE
    root.mkdir(parents=True)
    pixels = np.random.default_rng(0)
    lines = ["id,patient,study,image,nodule,nodule.side,effusion"]
    for k in range(12):
        name = f"{FILE} {k}.png"
        Image.fromarray(pixels.integers(0, 255, (32, 32), dtype=np.uint8)).save(root / name)
        lines.append(f"{ROW} {k},{FOLDER} {k},{STUDY} {k},{name},{'present' if k % 2 else 'absent'},,present")
    lines += [f"{ROW} a,{FOLDER} a,{STUDY},{REASON}.png,present,,present", f"{ROW} b,{FOLDER} b,,x.png,{REASON},,"]
    (root / f"{STUDY}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    spec = {
        "source": {"name": "table", "root": str(root), "table": f"{STUDY}.csv", "rule_set": "chest_xray"},
        "output": str(tmp_path / FOLDER / HOST / "data"), "seed": 3, "splits": {"train": 0.5, "test": 0.5},
        "assign": {f"{FOLDER} {k}": "train" if k < 6 else "test" for k in range(12)},
        "rows": {"instruction": ["train"], "prompt": ["test"]}, "tasks": {"presence": 2, "report": 1},
        "max_quarantined": 0.5,
    }  # fmt: skip
    file = tmp_path / f"{COMMENT}.yaml"
    file.write_text(f"# {COMMENT}\n" + yaml.safe_dump(spec, allow_unicode=True), encoding="utf-8")
    return build(read_spec(file, []))


def write_names(built, base):
    """Names in what the rows ask and say and in where they come from, in every text of the card, and in the base model.

    The facts stay as they are: a rule set reads them. The card stays that of the rows, by their SHA-256.
    """
    card = json.loads((built / "card.json").read_text(encoding="utf-8"))
    for entry in card["sha256"]:
        table = pq.read_table(built / entry)
        rows = table.to_pylist()
        for row in rows:
            if row.get("completion"):
                row["completion"][0]["content"][0]["text"] += f" Seen by {COMMENT}."
            row["prompt"][0]["content"][-1]["text"] += f" Of {HOST}, says {ROW}."
            row |= {"provenance": json.dumps({"by": FOLDER, "evidence": f"{REASON}: dictated by {STUDY}"})}
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), built / entry)
        card["sha256"][entry] = sha256(built / entry)
    card |= {"licence": f"CC BY 4.0, given by {HOST}", "note": COMMENT, "rule_sets": [*card["rule_sets"], ROW]}
    card["not_asked"][f"about {FOLDER}"] = card["refused"][f"{STUDY} said so"] = 1
    card["paraphrases"] |= {COMMENT: 1}
    (built / "card.json").write_text(json.dumps(card), encoding="utf-8")
    content = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(content | {"id2label": {"0": ROW}, "note": HOST}), encoding="utf-8")


@pytest.fixture
def trained(built, tmp_path, monkeypatch):
    """A tiny model trained and evaluated on it, its own files annotated with names."""
    texts = ["Is there a nodule? Yes. No. There is no effusion on the left side of the chest."]
    base = build_tiny(texts, tmp_path / HOST / "base", image_size=32, hidden_size=32, vision_hidden_size=32)
    write_names(built, base)
    monkeypatch.setenv("USER", HOST)
    monkeypatch.setenv("LOGNAME", HOST)
    content = {
        "method": "sft", "output": str(tmp_path / HOST / COMMENT), "model": {"path": str(base)},
        "data": {"train": str(built / "instruction/train")}, "trainer": {**TRAINER, "run_name": f"of {FOLDER}"},
    }  # fmt: skip
    file = tmp_path / f"{COMMENT} recipe.yaml"
    file.write_text(f"# {COMMENT}\n" + yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    folder = run(read_recipe(file))
    model, processor = load_for_inference(str(folder))
    evaluate(
        model, processor, built / "prompt/test", out=folder / "evaluation", model_name=str(folder),
        weights_sha256=model_sha256(str(folder)), box_space=written_space(str(folder)), num_resamples=5,
    )  # fmt: skip
    return folder


def annotate(folder):
    """Names in every JSON file of a model, in new fields and in known ones that hold texts, and beside it."""
    for name in ("config.json", "generation_config.json", "tokenizer_config.json", "processor_config.json"):
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        content |= {"note": COMMENT, "name_or_path": f"/home/{HOST}", "_name_or_path": HOST, ROW: 1}
        for key, part in content.items():
            if isinstance(part, dict) and key != "id2label":  # whose keys transformers reads as numbers
                part |= {"note": FOLDER, FILE: 3}
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(f"{{#- by {COMMENT} -#}}{template}{{# {HOST} #}}", encoding="utf-8")
    (folder / "README.md").write_text(f"trained on {FOLDER}", encoding="utf-8")
    (folder / f"{FOLDER}.txt").write_text("x", encoding="utf-8")


def annotate_records(run):
    """Names in what a run and its evaluation say of themselves: notes, the machine, the log."""
    for file in (run / "provenance.json", run / "evaluation" / "evaluation.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        content |= {"note": COMMENT, "host": HOST, "notes": [FOLDER], "command": f"train {FILE}", "git_commit": STUDY}
        file.write_text(json.dumps(content), encoding="utf-8")
    with (run / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps({"loss": 1.0, "row": ROW}) + "\n")
    (run / "evaluation" / "pictures" / f"{FOLDER}.png").write_bytes(b"")


@pytest.mark.slow
def test_no_planted_name_is_in_any_byte_of_a_release(trained, tmp_path):
    assert {name for _, name in planted_in(tmp_path, NAMES)} == set(NAMES)  # all of them are found where they were put
    annotate(trained / "model")
    annotate_records(trained)
    out = release(trained, tmp_path / "out")
    assert planted_in(out, NAMES) == []
    assert str(tmp_path).encode() not in b"".join(path.read_bytes() for path in out.iterdir())
    assert verify(out) >= 6
    assert not {path.suffix for path in out.iterdir()} & {".html", ".png", ".jsonl", ".parquet", ".bin", ".yaml"}
    told = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert told["metrics"]["clean"]["balanced_accuracy"]["num_rows"] == 12
    assert told["data"] == "table, prompt rows, split test"
    [trained_on] = tmp_path.rglob("instruction/train.parquet")
    assert (told["protocol"], told["trained_on"]) == ("clinalign", [sha256(trained_on)])
    assert (told["data_card"]["patients"], told["data_card"]["quarantined"]) == (6, 2)
    card = (out / "README.md").read_text(encoding="utf-8")
    trained_on, tested_on = card.split("## Trained on")[1].split("## Tested on")
    assert "- `sft`: table, instruction rows, split train: 18 rows (12 presence, 6 report), 6 patients" in trained_on
    assert "table, prompt rows, split test: 18 rows" in tested_on.split("## Recipe")[0]
    load_for_inference(str(out))
