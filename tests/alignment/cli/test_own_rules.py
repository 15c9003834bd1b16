"""Rule sets of the user's own on the command line: named by path, checked with a CSV, begun from a table."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alignment.cli.app import app
from rewards.rules.rule_set import load_rule_set

LARYNX = Path(__file__).parents[1] / "release" / "aldate_larynx.yaml"
FACTS = {"rule_set": "aldate_larynx@1", "findings": {"swelling": {"polarity": "present"}}}
LABELS = "id,quality,swelling\na,good,yes\nb,poor,no\n"


def prints(*words, stdin=""):
    done = CliRunner().invoke(app, [str(word) for word in words], input=stdin, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def refused(*words, stdin=""):
    done = CliRunner().invoke(app, [str(word) for word in words], input=stdin, catch_exceptions=False)
    assert done.exit_code == 2, done.output
    return done.output


def test_score_and_read_know_the_files_that_they_are_given():
    row = json.dumps({"response": "There is oedema.", "facts": FACTS})
    assert "no rule set named 'aldate_larynx@1'" in refused("score", "finding_f1", stdin=row)
    assert json.loads(prints("score", "finding_f1", "--rules", LARYNX, stdin=row))["score"] == 1.0


def test_read_takes_an_id_whose_file_is_given():
    done = prints("read", "aldate_larynx@1", "--rules", LARYNX, stdin='{"text": "There is oedema."}')
    assert json.loads(done)["facts"]["findings"] == {"swelling": {"polarity": "present"}}


def test_check_rules_reads_the_table_that_labelled_reads(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text(LABELS, encoding="utf-8")
    assert "records: 2" in prints("check-rules", LARYNX, "--data", table)
    table.write_text(LABELS.replace("poor", "bad"), encoding="utf-8")
    assert "1 records: node 'view' has no answer (from quality: 'bad'). Records: b" in refused(
        "check-rules", LARYNX, "--data", table
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LABELS + "c,good\n", "record 3: row 3 (line 4) has 2 cells, the header 3"),
        ("id,quality\n", "holds no record"),
        ("id,id\n", "the column 'id' stands there twice"),
    ],
)
def test_check_rules_names_a_record_that_cannot_be_read(tmp_path, text, says):
    table = tmp_path / "labels.csv"
    table.write_text(text, encoding="utf-8")
    assert says in refused("check-rules", LARYNX, "--data", table)


def test_new_rules_writes_a_file_that_passes_and_never_over_another(tmp_path):
    findings, out = tmp_path / "findings.csv", tmp_path / "ours.yaml"
    findings.write_text("finding,words\nair leak,glottal gap;air leak\nclot,\n", encoding="utf-8")
    shown = prints("new-rules", findings, out, "--modality", "laryngoscopy").splitlines()
    assert shown[1:3] == ["rule_set: ours@1", "findings: 2"]
    assert shown[3].endswith("have but one phrase: clot")
    assert load_rule_set(str(out)).modality == "laryngoscopy"
    assert "findings: 2" in prints("check-rules", out)
    assert "is there already" in refused("new-rules", findings, out)


def test_new_rules_leaves_nothing_of_a_table_that_it_refuses(tmp_path):
    findings = tmp_path / "findings.csv"
    findings.write_text("finding,words\nnormal,no clot\n", encoding="utf-8")
    assert "is to say that it is present" in refused("new-rules", findings, tmp_path / "ours.yaml")
    assert "expected a name that ends in .yaml" in refused("new-rules", findings, tmp_path / "ours.txt")
    assert not (tmp_path / "ours.yaml").exists()
