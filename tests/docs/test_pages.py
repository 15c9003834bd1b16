"""What the pages name is there: files, tests, commands and their options, verbs of the Makefile, links."""

import re
from collections import Counter

import pytest
import typer.main

from alignment.cli.app import app
from alignment.config.recipe import Recipe
from data_builders.sources.source import sources
from docs.writers.command_pages import commands_of
from docs.writers.made_pages import HOUSE, REFERENCE, ROOT, house_page
from docs.writers.model_pages import every_model
from docs.writers.outside import loads_of_page, outside_loads
from rewards.loading import available, available_batched, knobs_of

README = ROOT / "README.md"
WRITTEN = [README, *sorted((ROOT / "docs").rglob("*.md"))]
NAMED = re.compile(r"`((?:alignment|rewards|data_builders|recipes|tests|docs)/[\w./@-]+)`")
LARGEST_README = 9_000


def text(file):
    return file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def reference():
    return {page: make() for page, make in REFERENCE.items()}


def test_the_readme_is_short_and_names_the_two_commands():
    assert len(README.read_bytes()) <= LARGEST_README
    assert "make demo " in text(README)
    assert "make test " in text(README)


@pytest.mark.parametrize("file", WRITTEN, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_that_a_page_names_are_there(file):
    named = NAMED.findall(text(file))
    named += re.findall(r"pytest (tests/[\w/.]+)", text(file))
    assert [name for name in named if not (ROOT / name).exists()] == []
    tests = re.findall(r"`(test_\w+\.py)`", text(file))
    assert [name for name in tests if not [*(ROOT / "tests").rglob(name)]] == []


def test_what_the_readme_links_to_is_there():
    links = re.findall(r"\]\(([^)#\s]+)", text(README))
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_pictures_are_small():
    sizes = {file.name: file.stat().st_size for file in (ROOT / "docs/images").iterdir()}
    assert len(sizes) >= 3
    assert [name for name, size in sizes.items() if size >= 150_000] == []


def commands_in(page):
    """Every ``clinalign ...`` of a page's code, a line each, without comments; lines that go on are joined."""
    code = [*re.findall(r"```\n(.*?)```", page, re.DOTALL), *re.findall(r"`(clinalign [^`]*)`", page)]
    lines = [line.partition(" #")[0] for block in code for line in block.replace("\\\n", " ").splitlines()]
    return [found[1] for line in lines if (found := re.search(r"(?:^|\| |&& )clinalign (.*)", line))]


@pytest.mark.parametrize("file", WRITTEN, ids=lambda file: str(file.relative_to(ROOT)))
def test_commands_of_a_page_are_there_with_their_options(file, reference):
    sections = dict(re.findall(r"\n## ([\w-]+)\n(.*?)(?=\n## |\Z)", reference["reference/commands.md"], re.DOTALL))
    assert sections.keys() == commands_of(app).keys()
    for command in commands_in(text(file)):
        name, *words = command.split()
        if name in sections:
            options = [word for word in words if word.startswith("--")]
            assert [o for o in options if o not in sections[name]] == [], command
        else:
            assert name in ("FOLDER", "...", "verify") or name.startswith("--"), command


def test_the_reference_has_every_option_as_typer_reads_it(reference):
    commands = typer.main.get_command(app).commands
    assert len(commands) > 20
    for name, command in commands.items():
        section = reference["reference/commands.md"].partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        options = [*(o for p in command.params if p.param_type_name == "option" for o in [*p.opts, *p.secondary_opts])]
        shown = {
            o for cell in re.findall(r"^\| `(--?[^`]*)` \|", section, re.MULTILINE) for o in re.split(", | / ", cell)
        }
        assert shown == set(options) - {"--help"}


def test_verbs_of_the_makefile_that_pages_name_are_there():
    verbs = re.findall(r"^([\w-]+):", text(ROOT / "Makefile"), re.MULTILINE)
    named = {verb for file in WRITTEN for verb in re.findall(r"[`\n]make ([a-z][\w-]*)", text(file))}
    assert {"demo", "test", "docs", "evidence"} <= named <= set(verbs)


def test_the_reference_has_every_reward_with_its_knobs(reference):
    for name in (*available(), *available_batched()):
        section = reference["reference/rewards.md"].partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert section
        assert [knob for knob in knobs_of(name) if f"| `{knob}` |" not in section] == []


def test_the_reference_has_every_key_of_a_recipe(reference):
    for model in every_model([Recipe]):
        section = reference["reference/recipe.md"].partition(f"\n## {model.__name__}\n")[2].partition("\n## ")[0]
        assert [key for key in model.model_fields if f"| `{key}` |" not in section] == []


def test_the_reference_has_every_source_with_its_licence(reference):
    for name, module in sources().items():
        section = reference["reference/build.md"].partition(f"\n### {name}\n")[2].partition("\n### ")[0]
        assert f"Licence: {module.LICENCE}" in section


def test_a_reference_has_no_two_sections_of_one_name(reference):
    for page in reference.values():
        headings = Counter(re.findall(r"^##+ (.*)$", page, re.MULTILINE))
        assert [name for name, times in headings.items() if times > 1] == []


def test_a_page_of_the_house_links_to_pages_and_to_nothing_else(monkeypatch, tmp_path):
    (tmp_path / "CONTRIBUTING.md").write_text(
        "[a](rewards/README.md#x) [b](setup.py) [c](https://e.org) [d](docs/limits.md)"
    )
    monkeypatch.setattr("docs.writers.made_pages.ROOT", tmp_path)
    page = house_page("house/contributing.md")
    assert page == "[a](rewards.md#x) b [c](https://e.org) [d](../limits.md)"
    assert {"rewards/README.md", "CONTRIBUTING.md"} <= set(HOUSE.values())


LOADS = """
<script src="https://e.org/a.js"></script>
<img src="//e.org/a.png">
<img srcset="a.png 1x, https://e.org/b.png 2x">
<iframe src="http://e.org"></iframe>
<link rel="preconnect" href="https://e.org">
<style>@import "https://e.org/a.css"</style>
<p style="background:url(https://e.org/a.png)">
<pre class="mermaid">
"""


@pytest.mark.parametrize("loads", LOADS.strip().splitlines())
def test_what_a_page_loads_from_outside_is_found(loads):
    assert len(loads_of_page(f"<body>{loads}</body>")) == 1


def test_links_that_a_reader_may_follow_and_files_beside_load_nothing(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="https://e.org">x</a><img src="b.png"><link rel="canonical" href="https://e">'
    )
    (tmp_path / "a.css").write_text("a{background:url(data:image/png;base64,aaaa)}")
    assert outside_loads(tmp_path) == []
    (tmp_path / "a.css").write_text("a{background:url('https://e.org/x.png')}")
    assert outside_loads(tmp_path) == ["a.css loads https://e.org/x.png"]
