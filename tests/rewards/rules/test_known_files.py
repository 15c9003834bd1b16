"""Rule sets in files of the user's own: known by path, then by id; two of one id are an error; kept in folders."""

import shutil
from importlib import resources

import pytest

from rewards.config.input_error import InputError
from rewards.rules import known_files
from rewards.rules.guidelines import together
from rewards.rules.kept_files import check_kept, files_of, keep, known_in
from rewards.rules.known_files import read_file
from rewards.rules.rule_set import load_rule_set, register

TEXT = """\
name: aldate_larynx
version: {version}
modality: laryngoscopy
findings:
  swelling: {{phrases: [swelling], severity: {severity}}}
wording:
  present: ["There is {{what}}."]
  absent: ["No {{name}}."]
  uncertain: ["Possible {{name}}."]
  ask_presence: ["Any {{name}}?"]
  ask_report: ["Describe the larynx."]
"""


def written(path, *, version=1, severity=0.5):
    path.parent.mkdir(exist_ok=True)
    path.write_text(TEXT.format(version=version, severity=severity), encoding="utf-8")
    return path


def test_a_file_is_known_by_its_id_and_its_bare_name_once_it_was_named(tmp_path):
    with pytest.raises(InputError, match=r"no rule set named 'aldate_larynx@1'.*rule_sets: \[FILE\].*--rules FILE"):
        load_rule_set("aldate_larynx@1")
    rules = load_rule_set(str(written(tmp_path / "a.yaml")))
    assert load_rule_set("aldate_larynx@1") is load_rule_set("aldate_larynx") is rules


def test_the_same_content_twice_is_one_rule_set_and_two_contents_of_one_id_are_an_error(tmp_path):
    one, same, other = (tmp_path / f"{name}.yaml" for name in ("one", "same", "other"))
    register(written(one))
    register(written(same))
    with pytest.raises(InputError, match=rf"aldate_larynx@1 is in two files that differ, {one} and {other}\. Name"):
        register(written(other, severity=0.6))
    assert load_rule_set("aldate_larynx@1").findings["swelling"].severity == 0.5


def test_a_file_that_changes_under_its_id_is_not_read_anew_in_silence(tmp_path):
    file = written(tmp_path / "a.yaml")
    register(file)
    with pytest.raises(InputError, match=r"a\.yaml: has changed since it was read as aldate_larynx@1"):
        load_rule_set(str(written(file, severity=0.6)))


def test_versions_stand_side_by_side_and_a_bare_name_must_say_which(tmp_path):
    for version in (1, 2):
        register(written(tmp_path / f"{version}.yaml", version=version))
    assert load_rule_set("aldate_larynx@2").version == 2
    with pytest.raises(InputError, match=r"several versions; name one of aldate_larynx@1, aldate_larynx@2"):
        load_rule_set("aldate_larynx")


def test_a_shipped_id_stays_the_shipped_file(tmp_path):
    copy = tmp_path / "marrow.yaml"
    shutil.copy(str(resources.files("rewards.rule_sets") / "bone_marrow.yaml"), copy)
    assert register(copy).id == "bone_marrow@1"
    assert files_of(["bone_marrow@1"]) == {}  # it travels with clinalign
    copy.write_text(copy.read_text(encoding="utf-8") + "\n# ours\n", encoding="utf-8")
    with pytest.raises(InputError, match=rf"bone_marrow@1 is in two files that differ, .*bone_marrow.yaml and {copy}"):
        register(copy)
    copy.write_text(copy.read_text(encoding="utf-8").replace("version: 1", "version: 2"), encoding="utf-8")
    register(copy)
    assert (load_rule_set("bone_marrow@2").version, load_rule_set("bone_marrow").version) == (2, 1)


def test_a_missing_file_is_looked_for_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "voice.yaml")
    with pytest.raises(InputError, match=rf"voise.yaml: no such file. Did you mean 'voice.yaml'\? .* {tmp_path}\."):
        load_rule_set("voise.yaml")


@pytest.mark.parametrize("name", ["../larynx", "a/b", ".hidden", "two words", ""])
def test_a_name_is_one_that_a_file_can_have(tmp_path, name):
    file = tmp_path / "a.yaml"
    file.write_text(TEXT.format(version=1, severity=0.5).replace("aldate_larynx", f"'{name}'"), encoding="utf-8")
    with pytest.raises(InputError, match=r"line 1: name: "):
        register(file)


def test_a_guideline_in_a_file_works_with_others_by_its_id(tmp_path):
    file = tmp_path / "policy.yaml"
    text = "{name: ours, version: 3, modality: x, staging: {scales: {urgent: {levels: [{name: later},"
    file.write_text(text + " {name: soon, any_of: [{fluid: present}]}]}}}}", encoding="utf-8")
    register(file)
    assert together(("retina_referral@2", "ours@3"))[1]["urgent"] == "ours@3"


def test_a_folder_keeps_files_and_makes_them_known_again(tmp_path, monkeypatch):
    register(written(tmp_path / "a.yaml"))
    listed = keep(tmp_path / "set", files_of(["aldate_larynx@1", "chest_xray@1"]))
    kept = tmp_path / "set" / "rule_sets" / "aldate_larynx@1.yaml"
    assert kept.read_bytes() == (tmp_path / "a.yaml").read_bytes()
    assert listed == {"rule_sets/aldate_larynx@1.yaml": read_file(kept).sha256}
    (tmp_path / "a.yaml").unlink()
    monkeypatch.setattr(known_files, "_known", {})
    known_in(tmp_path / "set", listed, cure="Build anew.")
    assert load_rule_set("aldate_larynx@1").modality == "laryngoscopy"


def test_a_kept_file_that_is_gone_or_another_is_refused(tmp_path):
    register(written(tmp_path / "a.yaml"))
    listed = keep(tmp_path, files_of(["aldate_larynx@1"]))
    kept = tmp_path / "rule_sets" / "aldate_larynx@1.yaml"
    written(kept, severity=0.9)
    with pytest.raises(InputError, match=r"has changed since it was kept there .* Build anew\."):
        known_in(tmp_path, listed, cure="Build anew.")
    with pytest.raises(InputError, match=r"differs from .*a\.yaml, .* Give the changed one another version"):
        check_kept(tmp_path, files_of(["aldate_larynx@1"]))
    kept.unlink()
    with pytest.raises(InputError, match=r"is missing, and rows name what is ruled there"):
        known_in(tmp_path, listed, cure="Build anew.")
    with pytest.raises(InputError, match=r"by the name 'rule_sets/\.\./\.\./secret\.yaml'"):
        known_in(tmp_path, {"rule_sets/../../secret.yaml": "0"}, cure="Build anew.")
