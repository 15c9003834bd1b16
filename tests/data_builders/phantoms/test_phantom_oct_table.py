import csv

import pytest

from data_builders.phantoms.oct_table import report_of, stage_and_referral, table_row, write_tables
from data_builders.sources.drawn.phantom_oct import phantom_oct
from rewards.reading.reading import read
from rewards.rules.rule_set import load_rule_set


@pytest.fixture(scope="module")
def samples():
    return list(phantom_oct(patients=40, seed=2, size=64))


def test_the_table_and_the_reports_have_one_row_a_slice_and_the_same_bytes_each_time(samples, tmp_path):
    for folder in ("first", "second"):
        write_tables(samples, tmp_path / folder)
    for name in ("biomarkers.csv", "reports.csv"):
        content = [(tmp_path / folder / name).read_bytes() for folder in ("first", "second")]
        assert content[0] == content[1]
        with (tmp_path / "first" / name).open(encoding="utf-8", newline="") as file:
            assert [row["ImageId"] for row in csv.DictReader(file)] == [sample.id for sample in samples]


def test_an_attribute_is_given_only_where_its_finding_is_there(samples):
    for sample in samples:
        row = table_row(sample)
        assert bool(row["Drusen size"]) == bool(row["Drusen number"]) == (row["Drusen?"] == "Y")
        assert bool(row["PED type"]) == bool(row["PED size"]) == (row["PED?"] == "Y")
        assert bool(row["Hypertransmission type"]) == (row["Hypertrans-mission?"] == "Y")
        assert bool(row["Subretinal fluid volume"]) == (row["Subretinal fluid?"] == "Y")


def test_fluid_is_urgent_and_a_healthy_eye_is_not_referred(samples):
    seen = {sample.id: stage_and_referral(sample.facts) for sample in samples}
    for sample in samples:
        stage, referral = seen[sample.id].values()
        fluid = "retinal_fluid" in sample.facts.present()
        assert (referral == "urgent referral") == fluid == (stage == "active late wet AMD")
        assert (referral == "no referral") == (stage == "healthy")


def test_a_report_claims_what_the_facts_say_and_nothing_else(samples):
    rules = load_rule_set("retina_amd@1")
    for sample in samples:
        words = report_of(sample, seed=1)
        told = read(words.rpartition(". ")[0] + ".", rules).facts.findings
        there = sample.facts.present().keys()
        assert {name for name, f in told.items() if f.polarity == "present"} == there
        assert not {name for name, f in told.items() if f.polarity == "absent"} & there
        assert stage_and_referral(sample.facts)["AMD stage"] in words


def test_reports_are_worded_in_several_ways(samples):
    words = {report_of(sample, seed=seed) for sample in samples[:3] for seed in range(5)}
    assert len(words) > 12
    assert report_of(samples[0], seed=4) == report_of(samples[0], seed=4)


def test_no_samples_give_empty_files(tmp_path):
    folder = write_tables([], tmp_path / "none")
    assert (folder / "reports.csv").read_text(encoding="utf-8").strip() == ""
