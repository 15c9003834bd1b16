import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from rewards.config.templates import template

ROOT = Path(__file__).parents[3]
HOSTILE = "<script>alert('x')</script> & \"more\""


def rendered(folder, name, text="{{ value }}", **values):
    (folder / name).write_text(text, encoding="utf-8")
    return template(name, beside=str(folder / "page.py")).render(**values)


def test_a_page_escapes_what_it_is_given_and_markdown_and_prompts_do_not(tmp_path):
    escaped = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &#34;more&#34;"
    assert rendered(tmp_path, "page.html.j2", value=HOSTILE) == escaped
    assert rendered(tmp_path, "page.j2", value=HOSTILE) == escaped
    assert rendered(tmp_path, "card.md.j2", value=HOSTILE) == HOSTILE
    assert rendered(tmp_path, "prompt.txt.j2", value=HOSTILE) == HOSTILE


@pytest.mark.parametrize("name", ["page.html.j2", "prompt.txt.j2"])
def test_what_a_template_is_not_given_is_an_error(tmp_path, name):
    with pytest.raises(UndefinedError, match="'value' is undefined"):
        rendered(tmp_path, name)


def test_no_other_module_makes_an_environment():
    sources = [path for folder in ("alignment", "data_builders", "rewards") for path in (ROOT / folder).rglob("*.py")]
    made = [path.name for path in sources if re.search(r"\b(?:Environment|Template)\(", path.read_text("utf-8"))]
    assert made == ["templates.py"]
