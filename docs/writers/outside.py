"""What the built pages load from outside: it must be nothing, so that they can be read where there is no network.

A link that a reader may follow loads nothing. Left out: what scripts load as they run, but for what is known of the
theme (``LATER``: mkdocs-material 9.8).
"""

import re
from html.parser import HTMLParser
from pathlib import Path

LOADING = ("script", "img", "iframe", "source", "video", "audio", "embed")
"""Tags that load what their ``src`` names."""
RELS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload", "manifest"}
LATER = {'class="mermaid"': "https://unpkg.com/mermaid", 'data-md-component="source"': "https://api.github.com"}
"""What the theme's script loads while a page is read, by what makes it do so: a diagram, or a repository's address."""
FROM_CSS = re.compile(r"(?:url\(|@import)\s*['\"]?\s*((?:https?:)?//[^'\")\s]+)")


class _Loads(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        sources = [given.get("src", "") if tag in LOADING else "", given.get("poster", "")]
        if tag == "link" and RELS & set(given.get("rel", "").split()):
            sources.append(given.get("href", ""))
        sources += [part.split()[0] for part in given.get("srcset", "").split(",") if part.split()]
        self.found += [*filter(_is_outside, sources), *FROM_CSS.findall(given.get("style", ""))]


def _is_outside(source: str) -> bool:
    return source.startswith(("http:", "https:", "//"))


def loads_of_page(text: str) -> list[str]:
    """The addresses from which a page loads something.

    >>> loads_of_page('<link rel="stylesheet" href="https://fonts.example/a.css"><a href="https://example.org">x</a>')
    ['https://fonts.example/a.css']
    """
    page = _Loads()
    page.feed(text)
    later = [address for sign, address in LATER.items() if sign in text]
    return [*page.found, *later, *FROM_CSS.findall("".join(re.findall(r"<style[^>]*>(.*?)</style>", text, re.DOTALL)))]


def outside_loads(site: Path) -> list[str]:
    """``FILE loads ADDRESS`` for all that the pages and style sheets of a built site load from outside."""
    found = [(file, load) for file in site.rglob("*.html") for load in loads_of_page(_text(file))]
    found += [(file, load) for file in site.rglob("*.css") for load in FROM_CSS.findall(_text(file))]
    return sorted(f"{file.relative_to(site)} loads {load}" for file, load in found)


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")
