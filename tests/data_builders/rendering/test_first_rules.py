"""A first rule set from a table of findings: it has no fault, is read as it is written, and refuses what cannot be."""

import pytest

from data_builders.rendering.first_rules import COLUMNS, first_rules
from rewards.config.input_error import InputError
from rewards.rules.rule_set import read_rule_set

TABLE = """\
finding,words,severity,sides,sizes
Pleural effusion,pleural effusion; fluid,0.7,left;right,
vocal_fold-oedema,œdème,,,small;large
air leak,,,,
"""


def made(tmp_path, text):
    table = tmp_path / "findings.csv"
    table.write_text(text, encoding="utf-8")
    return first_rules(table, name="ours", modality="laryngoscopy")


def rules_of(tmp_path, text):
    file = tmp_path / "ours.yaml"
    file.write_text(made(tmp_path, text), encoding="utf-8")
    return read_rule_set(file)


def test_findings_have_the_words_severities_sides_and_sizes_of_their_line(tmp_path):
    rules = rules_of(tmp_path, TABLE)
    assert [*rules.findings] == ["pleural_effusion", "vocal_fold_oedema", "air_leak"]
    effusion, oedema, leak = rules.findings.values()
    assert (effusion.phrases, effusion.severity) == (["pleural effusion", "fluid"], 0.7)
    assert effusion.sides == ["left", "right"]
    assert (oedema.phrases, oedema.severity, oedema.sizes) == (["œdème"], 0.5, ["small", "large"])
    assert (leak.phrases, leak.severity, leak.sides) == (["air leak"], 0.5, [])
    assert (rules.id, rules.modality) == ("ours@1", "laryngoscopy")


def test_only_what_findings_have_is_asked_about(tmp_path):
    assert rules_of(tmp_path, "finding\nclot\n").wording.ask_side == []
    assert rules_of(tmp_path, TABLE).wording.ask_size


def test_the_head_says_what_to_fill_next(tmp_path):
    assert "# - phrases: every way" in made(tmp_path, "finding\nclot\n")
    assert "made of findings.csv" in made(tmp_path, "finding\nclot\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("finding,words\nnormal,no effusion\n", '"No effusion is seen." is to say that it is present, and is read as'),
        ("finding,words\na,clot\nb,clot\n", "phrase 'clot' belongs to both 'a' and 'b'"),
        ("finding\nClot\nclot\n", "record 2: finding: 'clot' stands there twice"),
        ("finding\nreport\n", "record 1: finding: a table's column 'report' says something else"),
        ("finding,words\nclot,{x}\n", "record 1: words: a brace stands for"),
        ("finding,severity\nclot,high\n", "record 1: severity: got 'high'; expected a number from 0 to 1"),
        ("finding,severity\nclot,nan\n", "record 1: severity: got 'nan'"),
        ("finding,severity\n,1\n", "record 1: finding: got ''; name one"),
        ("finding,severity\nclot\n", "record 1: row 1 (line 2) has 1 cells"),
        ("finding,wrods\nclot,x\n", "unknown column 'wrods'. Did you mean 'words'?"),
        ("words\nclot\n", "no column 'finding'"),
        ("finding\n", f"holds no finding. Write one a line, under the columns {', '.join(COLUMNS)}"),
    ],
)
def test_what_cannot_be_a_finding_is_named(tmp_path, text, says):
    with pytest.raises(InputError) as fault:
        made(tmp_path, text)
    assert says in str(fault.value)
