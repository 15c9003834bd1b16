import io
import os
import tarfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from data_builders.schema import Quarantined
from data_builders.sources.images.open_i import TAGS, Report, open_i
from rewards.config.input_error import InputError
from rewards.rules.rule_set import load_rule_set

NAMED = os.environ.get("CLINALIGN_OPEN_I")
needs_open_i = pytest.mark.skipif(
    not NAMED and find_spec("torchxrayvision") is None,
    reason="the Open-I reports are absent (pip install --no-deps torchxrayvision==1.5.7, or set CLINALIGN_OPEN_I)",
)


def xml(*, findings="Clear lungs.", impression="", tags=("normal",)):
    parts = [("INDICATION", "Cough."), ("FINDINGS", findings), ("IMPRESSION", impression)]
    told = "".join(f'<AbstractText Label="{label}">{words}</AbstractText>' for label, words in parts)
    mesh = "".join(f"<major>{tag}</major>" for tag in tags)
    return f"<eCitation><Abstract>{told}</Abstract><MeSH>{mesh}</MeSH></eCitation>"


def folder(root: Path, reports: dict[int, str]) -> Path:
    for number, content in reports.items():
        (root / f"{number}.xml").write_text(content, encoding="utf-8")
    return root


def test_reports_come_by_number_with_sections_and_tags(tmp_path):
    root = folder(tmp_path, {10: xml(), 9: xml(tags=["Nodule/lung/left", "Scoliosis"])})
    nine, ten = open_i(root)
    assert isinstance(nine, Report)
    assert (nine.id, nine.number, nine.findings) == ("CXR9", 9, {"nodule", "scoliosis"})
    assert isinstance(ten, Report)
    assert ten.text == "INDICATION: Cough.\nFINDINGS: Clear lungs.\nIMPRESSION: "


@pytest.mark.parametrize(
    ("tag", "findings"),
    [
        ("Lung/hyperdistention/mild", {"hyperinflation"}),
        ("Lung/bilateral/hypoinflation", {"low_lung_volumes"}),
        ("Lung/hilum/prominent", set()),
        ("Hydropneumothorax/right", {"effusion", "pneumothorax"}),
        ("Thickening/pleura/apex", {"pleural_thickening"}),
        ("Thickening/bronchi", set()),
        ("normal", set()),
    ],
)
def test_a_tag_stands_for_a_finding_with_its_qualifier(tmp_path, tag, findings):
    (report,) = open_i(folder(tmp_path, {1: xml(tags=[tag])}))
    assert isinstance(report, Report)
    assert report.findings == findings


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("<eCitation>", "not readable as XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><eCitation>&a;</eCitation>', "not readable as XML"),
        (xml(findings=""), "neither findings nor impression"),
        (xml(tags=["No Indexing"]), "left out by the indexers"),
        (xml(tags=[]), "left out by the indexers"),
    ],
)
def test_a_report_that_cannot_be_scored_is_quarantined(tmp_path, content, reason):
    (record,) = open_i(folder(tmp_path, {7: content}))
    assert isinstance(record, Quarantined)
    assert record.id == "CXR7"
    assert reason in record.reason


def test_an_archive_is_read_as_its_folder_is(tmp_path):
    content = xml(tags=["Nodule"]).encode()
    with tarfile.open(tmp_path / "reports.tgz", "w:gz") as archive:
        entry = tarfile.TarInfo("ecgen-radiology/4.xml")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    (report,) = open_i(tmp_path / "reports.tgz")
    assert report.id == "CXR4"


def test_what_is_no_archive_or_holds_no_report_is_one_sentence_with_the_cure(tmp_path):
    (tmp_path / "reports.tgz").write_bytes(b"no archive")
    for source in (tmp_path / "reports.tgz", tmp_path / "absent.tgz", tmp_path):
        with pytest.raises(InputError, match="pip install --no-deps torchxrayvision"):
            list(open_i(source))


def test_without_the_package_the_cure_is_named(monkeypatch):
    monkeypatch.setattr("data_builders.sources.images.open_i.find_spec", lambda name: None)
    with pytest.raises(InputError, match="not installed"):
        list(open_i())


def test_every_tagged_finding_is_one_of_the_rule_set_and_the_other_way_round():
    assert set(TAGS) == set(load_rule_set("chest_report").findings)


@needs_open_i
def test_all_reports_are_there_and_few_are_left_out():
    records = list(open_i(Path(NAMED) if NAMED else None))
    assert len(records) == 3955
    assert sum(isinstance(r, Quarantined) for r in records) < 150
