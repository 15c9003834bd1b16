import json
from html.parser import HTMLParser

import pyarrow.parquet as pq
import pytest

from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec
from data_builders.build.gallery import write_gallery

CONTENT = {
    "source": {"name": "phantom_chest", "patients": 10, "images_per_patient": 2, "size": 64},
    "splits": {"sft": 0.5, "align": 0.5},
    "rows": {"instruction": ["sft"], "preference": ["align"], "prompt": ["align"]},
    "tasks": {"presence": 1, "box": 1, "report": 1},
    "flaws": {"splits": ["sft"], "loose_boxes": 1.5},
    "box_grid": 100,
}


class Page(HTMLParser):
    """Tags in order, with their attributes, and whether each that was opened was closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag, **attributes):
        return [a for t, a in self.tags if t == tag and attributes.items() <= a.items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("gallery") / "phantom"
    return build(BuildSpec.model_validate({**CONTENT, "output": str(out)}))


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "gallery.html").read_text())


def test_it_bears_the_name_of_the_set_and_not_of_the_folder_in_which_it_grew(folder):
    assert "<h1>phantom</h1>" in (folder / "gallery.html").read_text()


def test_every_tag_is_closed(page):
    assert page.open == []


def test_an_image_is_shown_once_with_all_its_rows(page):
    sections, pictures = len(page.all("h2")), page.all("article", **{"class": "card"})
    assert sections == 3
    assert len(page.all("img")) == len(pictures) <= 24
    assert len(page.all("div", **{"class": "row"})) > len(pictures)


def test_nothing_is_fetched_from_elsewhere_and_nothing_runs(page):
    assert all(a["src"].startswith("data:image/png;base64,") for a in page.all("img"))
    assert not page.all("script")
    assert not page.all("link")


def test_true_boxes_are_drawn_in_their_place(folder, page):
    row = pq.read_table(folder / "prompt" / "align.parquet").to_pylist()[0]
    facts = json.loads(row["facts"])["findings"]
    boxes = [box for finding in facts.values() for box in finding.get("boxes", [])]
    drawn = [[float(r[k]) for k in ("x", "y", "width", "height")] for r in page.all("rect", **{"class": "true"})]
    assert boxes
    assert all([b[0], b[1], b[2] - b[0], b[3] - b[1]] in drawn for b in boxes)


def test_loose_boxes_are_drawn_beside_the_true_ones_and_named(folder, page):
    assert page.all("rect", **{"class": "written"})
    assert "boxes 1.5 times too large" in (folder / "gallery.html").read_text()


def test_chosen_and_rejected_stand_side_by_side_and_their_difference_is_marked(page):
    pairs = page.all("div", **{"class": "pair"})
    assert pairs
    assert len(page.all("div", **{"class": "chosen"})) == len(page.all("div", **{"class": "rejected"})) == len(pairs)
    assert len(page.all("mark")) >= len(pairs)


def test_words_of_the_data_are_escaped(folder, tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    table = pq.read_table(folder / "preference" / "align.parquet")
    rows = table.to_pylist()
    for row in rows:
        row["patient"] = row["kind"] = row["prompt"][0]["content"][1]["text"] = evil
        row["chosen"][0]["content"][0]["text"] = evil
        row["provenance"] = json.dumps({"flaw": evil, "corrupted": evil})
    (tmp_path / "preference").mkdir()
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), tmp_path / "preference" / "align.parquet")
    card = json.loads((folder / "card.json").read_text())
    card["quarantined"] = {"count": 1, "records": [{"id": evil, "reason": evil}]}
    card["not_asked"] = {evil: 1}
    (tmp_path / "card.json").write_text(json.dumps(card))
    text = write_gallery(tmp_path).read_text()
    assert "<img src=x" not in text
    assert text.count("&lt;img src=x") >= 8
