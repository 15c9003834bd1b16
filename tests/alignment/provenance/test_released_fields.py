"""What is released is named field by field: a field that nobody named does not pass, and neither does free text."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from alignment.provenance.data_summary import data_sentence, data_summary
from alignment.provenance.lineage import base_name, steps_of, trained_on
from alignment.provenance.released_fields import DATA, PROVENANCE, RECIPE, evaluation_form, known_words
from alignment.release.vocabulary import foreign_words
from data_builders.digest import sha256
from data_builders.sources.source import sources
from rewards.config.input_error import InputError
from rewards.rules.rule_set import register

JANE = "Jane Qvortrup"
METRIC = {"value": 0.5, "low": None, "high": None, "num_rows": 2, "num_patients": 1}
EVALUATION = {
    "model_sha256": "a" * 64, "data_sha256": "b" * 64, "data_card": None, "num_rows": 2, "num_patients": 1, "seed": 0,
    "max_new_tokens": {"box": 8}, "versions": {"torch": "2.14.1+cpu"}, "box_space": "grid",
    "unjudged": {"report without facts": 1}, "protocol": "clinalign", "trained_on": ["d" * 64],
    "metrics": {"clean": {"mean_iou": METRIC, "sensitivity[nodule]": METRIC, "micro_f1[stage, retina_amd@1]": METRIC}},
}  # fmt: skip


def texts_in(value):
    """Every text of a JSON value, keys and leaves."""
    if isinstance(value, dict):
        return [text for name, own in value.items() for text in (str(name), *texts_in(own))]
    if isinstance(value, list):
        return [text for own in value for text in texts_in(own)]
    return [value] if isinstance(value, str) else []


def with_jane(content, at=()):
    """Every way of putting the name into a JSON value once: as a new field, for a leaf, in place of a key."""
    if isinstance(content, dict):
        yield content | {"note": JANE}
        yield content | {JANE: 1}
        yield content | {JANE: next(iter(content.values()), 1)}
        for name, own in content.items():
            yield content | {name: JANE}
            yield content | {name: [JANE]}
            yield content | {name: {JANE: JANE}}
            yield from (content | {name: changed} for changed in with_jane(own))
    elif isinstance(content, list):
        yield [*content, JANE]
        yield from ([changed] for own in content for changed in with_jane(own))


RECIPE_AS_RUN = {
    "method": "grpo", "output": "runs/x",
    "model": {"path": "tiny", "dtype": "float32", "lora": {"rank": 4, "targets": "all-linear"}, "freeze": ["vision"]},
    "data": {"train": "data/x/prompt/train", "tasks": ["box"], "box_space": "0-1000"},
    "rewards": [{"name": "box_overlap", "weight": 1.0, "iou": 0.5}],
    "trainer": {"learning_rate": 1e-3, "lr_scheduler_type": "cosine", "run_name": "x", "hub_token": "x", "beta": 0.0},
    "weighting": {"use": True, "reduction": "mean"}, "sampling": {"kinds": ["llm"], "llm": {"model": "x", "key": "x"}},
}  # fmt: skip
SUMMARY = {
    "source": "table", "kind": "prompt", "split": "test", "licence": sources()["table"].LICENCE, "rows": {"box": 1},
    "rule_sets": ["chest_xray@1"], "patients": 1, "sha256": "c" * 64,
}  # fmt: skip
PROVENANCE_AS_RUN = {
    "packages": {"torch": "2.14.1"},
    "git_commit": "a" * 40,
    "seed": 1,
    "data_sha256": {"x": "y"},
}


@pytest.mark.parametrize(
    ("form", "content"),
    [
        (evaluation_form(known_words()), EVALUATION | {"data_card": SUMMARY}),
        (DATA, SUMMARY),
        (RECIPE, RECIPE_AS_RUN),
        (PROVENANCE, PROVENANCE_AS_RUN),
    ],
    ids=["evaluation", "data", "recipe", "provenance"],
)
def test_a_name_passes_in_no_place(form, content):
    ways = list(with_jane(content))
    assert len(ways) > 10
    for changed in ways:
        assert "Qvortrup" not in " ".join(texts_in(form(changed)))


def test_what_is_known_passes_as_it_is():
    assert evaluation_form(known_words())(EVALUATION) == {k: v for k, v in EVALUATION.items() if k != "data_card"}
    assert DATA(SUMMARY) == SUMMARY
    told = RECIPE(RECIPE_AS_RUN)
    assert told["trainer"] == {"learning_rate": 1e-3, "lr_scheduler_type": "cosine", "beta": 0.0}
    assert told["rewards"] == [{"name": "box_overlap", "weight": 1.0}]
    assert told["data"] == {"tasks": ["box"], "box_space": "0-1000"}
    assert "output" not in told


def test_a_new_field_does_not_pass():
    form = evaluation_form(known_words())
    assert "protocol_of_2030" not in form(EVALUATION | {"protocol_of_2030": 3})
    assert "ward" not in DATA(SUMMARY | {"ward": 3})
    assert "gated_by" not in RECIPE(RECIPE_AS_RUN | {"gated_by": 3})


def test_reasons_and_tasks_that_are_not_ours_are_counted_without_their_words():
    told = evaluation_form(known_words())(EVALUATION | {"unjudged": {f"no metric for task '{JANE}'": 2, JANE: 1}})
    assert told["unjudged"] == {"other": 3}
    assert DATA(SUMMARY | {"rows": {"box": 1, JANE: 4, "John": 2}, "split": JANE})["rows"] == {"box": 1, "other": 6}


def test_findings_of_a_rule_set_of_ones_own_pass_where_it_is_named(tmp_path):
    from importlib.resources import files

    own = tmp_path / "mine.yaml"
    text = (files("rewards.rule_sets") / "chest_xray.yaml").read_text(encoding="utf-8")
    text = text.replace("nodule:", "zebra_stripe:").replace("[nodule,", "[zebra_stripe,")
    own.write_text(text.replace("name: chest_xray", "name: quagga"), encoding="utf-8")
    content = EVALUATION | {"metrics": {"clean": {"sensitivity[zebra_stripe]": METRIC}}}
    assert evaluation_form(known_words())(content)["metrics"] == {"clean": {}}
    assert evaluation_form(known_words(["quagga@1"]))(content)["metrics"] == {"clean": {}}
    assert evaluation_form(known_words([str(own)]))(content)["metrics"] == content["metrics"]
    assert evaluation_form(known_words(["quagga@1"]))(content)["metrics"] == content["metrics"]  # known by now


def test_ids_and_files_of_rule_sets_of_ones_own_pass_where_they_are_known_and_kept(tmp_path):
    summary, file = SUMMARY | {"rule_sets": ["chest_xray@1", "quagga@1", f"{JANE}@1"]}, "rule_sets/quagga@1.yaml"
    assert DATA(summary)["rule_sets"] == ["chest_xray@1"]
    rules = tmp_path / "mine.yaml"
    rules.write_text(
        "{name: quagga, version: 1, modality: x,"
        " staging: {scales: {s: {levels: [{name: a}, {name: b, any_of: [{c: d}]}]}}}}"
    )
    register(rules)
    assert DATA(summary)["rule_sets"] == ["chest_xray@1", "quagga@1"]
    content = EVALUATION | {"rules": {file: "0" * 64, f"rule_sets/{JANE}@1.yaml": "0" * 64}}
    assert evaluation_form(known_words())(content)["rules"] == {}
    assert evaluation_form(known_words(), [file])(content)["rules"] == {file: "0" * 64}


@given(st.text())
def test_no_text_passes_as_a_figure_or_a_digest(text):
    told = evaluation_form({"nodule"})(EVALUATION | {"num_rows": text, "model_sha256": text, "seed": [text]})
    assert not {"num_rows", "seed"} & told.keys()


def data_of(folder, **changes):
    """A data entry and its card."""
    (folder / "prompt").mkdir(parents=True)
    pq.write_table(pa.table({"id": ["a"]}), folder / "prompt" / "test.parquet")
    card = {
        "sha256": {"prompt/test.parquet": sha256(folder / "prompt" / "test.parquet")},
        "licence": sources()["bccd"].LICENCE,
        "counts": {"prompt": {"test": {"box": 3, "report": 1}}}, "patients": {"test": 2, "sft": 5},
        "quarantined": {"count": 1, "records": [{"id": JANE, "reason": f"{JANE}.png is no image"}]},
        "spec": {"source": {"name": "bccd", "root": f"/home/{JANE}"}, "assign": {JANE: "test"}},
        "not_asked": {f"about {JANE}": 2}, "rule_sets": ["blood_smear@1", JANE], "assign": {JANE: "test"},
    }  # fmt: skip
    (folder / "card.json").write_text(json.dumps(card | changes))
    return folder / "prompt" / "test"


def test_of_a_card_the_counts_are_told(tmp_path):
    data = data_of(tmp_path / JANE)
    digest = sha256(data.with_suffix(".parquet"))
    told = data_summary(data, digest)
    assert told == {
        "source": "bccd", "kind": "prompt", "split": "test", "licence": "BCCD_Dataset, MIT", "patients": 2,
        "rows": {"box": 3, "report": 1}, "quarantined": 1, "not_asked": 2, "refused": 0, "images": None,
        "rule_sets": ["blood_smear@1"], "sha256": digest,
    }  # fmt: skip
    assert data_sentence(told) == (
        "bccd, prompt rows, split test: 4 rows (3 box, 1 report), 2 patients, 1 records of the source left out as "
        f"unusable. Licence: BCCD_Dataset, MIT. Rule sets: blood_smear@1. SHA-256 `{digest}`."
    )


@pytest.mark.parametrize("card", [{"sha256": {"prompt/test.parquet": "0" * 64}}, {"sha256": []}, {"sha256": None}])
def test_a_card_of_other_rows_says_nothing(tmp_path, card):
    data = data_of(tmp_path / "x", **card)
    digest = sha256(data.with_suffix(".parquet"))
    assert data_summary(data, digest) == {"kind": "prompt", "split": "test", "sha256": digest}


def run_of(folder, *, method, start, data):
    folder.mkdir(parents=True)
    (folder / "recipe.resolved.yaml").write_text(yaml.safe_dump({"method": method, "model": {"path": str(start)}}))
    (folder / "provenance.json").write_text(
        json.dumps({"data_sha256": {str(data): sha256(data.with_suffix(".parquet"))}})
    )
    return folder


def test_a_card_tells_all_that_led_to_the_model(tmp_path):
    """SFT from tiny, then pairs of its errors, then DPO on those: three steps, each with its own data."""
    data = data_of(tmp_path / "data")
    sft = run_of(tmp_path / "sft", method="sft", start="tiny", data=data)
    pairs = run_of(tmp_path / "pairs", method="pairs", start=sft, data=data)
    (pairs / "preference").mkdir()
    pq.write_table(pa.table({"id": ["b"]}), pairs / "preference" / "pairs.parquet")
    dpo = run_of(tmp_path / "dpo", method="dpo", start=sft, data=pairs / "preference" / "pairs")
    steps = steps_of(dpo)
    assert [step.published["method"] for step in steps] == ["sft", "pairs", "dpo"]
    assert [step.published["data"][0].get("source") for step in steps] == ["bccd", "bccd", None]
    assert base_name(steps) == "tiny (made by clinalign)"
    files = (data.with_suffix(".parquet"), pairs / "preference" / "pairs.parquet")
    assert trained_on(str(dpo)) == sorted(map(sha256, files))
    assert trained_on(str(sft)) == [sha256(files[0])]
    (sft / "provenance.json").write_text("{")
    assert trained_on(str(dpo)) is None  # not known
    assert trained_on("org/model") is None


def test_a_base_is_named_only_if_the_hub_knows_the_name(tmp_path):
    data = data_of(tmp_path / "data")
    for k, path in enumerate(["qvortrup/jane", f"/home/{JANE}/model", JANE, "runs/gone"]):
        run = run_of(tmp_path / f"run{k}", method="sft", start=path, data=data)
        assert base_name(steps_of(run)) == "a model that is not named"
    (tmp_path / JANE).mkdir()
    (tmp_path / JANE / "model.safetensors").write_bytes(b"weights")
    run = run_of(tmp_path / "local", method="sft", start=tmp_path / JANE, data=data)
    assert base_name(steps_of(run)).startswith("a model without a public name, SHA-256 ")


def test_records_that_are_not_readable_are_told(tmp_path):
    run = run_of(tmp_path / "run", method="sft", start="tiny", data=data_of(tmp_path / "data"))
    (run / "provenance.json").write_text("{")
    with pytest.raises(InputError, match=r"provenance.json is not readable"):
        steps_of(run)


class Vocabulary:
    """As much of a tokenizer as is asked."""

    all_special_tokens = ("<Qvortrup>",)

    def __init__(self, *words):
        self.words = words

    def get_vocab(self):
        return {word: k for k, word in enumerate((*self.words, "<Qvortrup>"))}

    def get_added_vocab(self):
        return {}

    def convert_tokens_to_string(self, tokens):
        return " ".join(tokens)


def test_words_that_nobody_but_a_person_writes_are_found_in_a_vocabulary():
    assert foreign_words(Vocabulary("nodule", "left", "presen", "[12,34]", "Is", "Qvortrup", "Jürgens", "x")) == [
        "Jürgens", "Qvortrup",
    ]  # fmt: skip
    assert foreign_words(Vocabulary("Qvort", "laryngeal"), written=["The laryngeal Web."]) == ["Qvort"]
    assert foreign_words(Vocabulary("Rafailov")) == ["Rafailov"]  # whom a docstring of the code names
