"""Evidence pages, made from the figures that are kept in the repository: ``make evidence``. Nobody types a figure.

``docs/evidence/data/NAME/`` holds what a loop found (``effects.json``) and what it was made by and on (``made.json``;
``keep.py`` writes both). The page of that name and the README's table are made of them, ``gpu.md`` of the figures of
``tests/gpu``, and ``memory.md`` of what ``clinalign check`` said (``memory.py``). A test fails where one differs.
"""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from docs.writers.memory import FILE, memory_page
from docs.writers.pieces import code, table

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs/evidence"
KEPT = PAGES / "data"
BEGIN, END = "<!-- figures: written by make evidence -->", "<!-- end of figures -->"
IN_README = (
    ("sft/shuffled", "sft", "balanced_accuracy"),
    ("sft/mean_box_true_side", "sft", "mean_iou"),
    ("sft", "dpo", "hallucination_rate"),
    ("dpo_unweighted", "dpo", "hallucination_rate"),
    ("dpo_unweighted", "dpo", "omission_rate"),
    ("dpo_unweighted", "dpo", "finding_f1"),
    ("dpo", "grpo", "mean_iou"),
    ("sft", "grpo", "omission_rate"),
    ("sft", "grpo", "finding_f1"),
)
"""The lines of the demo's table that the README shows."""

Json = dict[str, Any]


def made_evidence(root: Path = ROOT) -> dict[Path, str]:
    """Every file that is made of figures, with what it must hold."""
    pages = {root / f"docs/evidence/{folder.name}.md": effects_page(*kept(folder)) for folder in folders(root)}
    pages[root / "docs/evidence/memory.md"] = memory_page(json.loads(_text(root / FILE)))
    demo = kept(root / "docs/evidence/data/phantom_chest")
    readme, gpu = root / "README.md", root / "docs/evidence/gpu.md"
    filled = {readme: with_figures(_text(readme), short_table(*demo)), gpu: with_figures(_text(gpu), gpu_tables(root))}
    return pages | filled


def folders(root: Path = ROOT) -> list[Path]:
    """The folders of kept figures, by name."""
    return sorted(file.parent for file in (root / "docs/evidence/data").glob("*/effects.json"))


def kept(folder: Path) -> tuple[Json, Json]:
    """What a loop found, and what it was made by and on."""
    found, made = (json.loads(_text(folder / name)) for name in ("effects.json", "made.json"))
    return found, made


def effects_page(found: Json, made: Json) -> str:
    """The page of a loop: what it was made by, and every effect."""
    over = _over(found)
    rows = [_row(effect) for effect in found["effects"]]
    head = ["comparison", "metric", "before", "after", f"change (95 % over {over})", "beyond chance"]
    note = (
        f"Made by `make evidence` from `docs/evidence/data/{made['name']}/`; nothing here is typed. The interval is "
        f"over {over}; *beyond chance* says whether it leaves out 0. No interval is corrected for their number."
    )
    return "\n\n".join([f"# {made['title']}", note, _made_table(made), table(head, rows)]) + "\n"


def _made_table(made: Json) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in made["packages"].items())
    rows = [
        ["command", code(made["command"])],
        ["commit", code(made["commit"])],
        ["day", made["day"]],
        ["seeds", ", ".join(map(str, made["seeds"]))],
        ["machine", made["machine"]],
        ["versions", versions],
    ]
    return table(["made by", ""], rows)


def short_table(found: Json, made: Json) -> str:
    """The README's lines, under the sentence that says what they were made by."""
    by_name = {(e["before_name"], e["after_name"], e["metric"]): e for e in found["effects"]}
    head = ["comparison", "metric", "before", "after", f"change (95 % over {_over(found)})", "beyond chance"]
    intro = f"`{made['command']}`, commit {made['commit'][:7]}, {made['day']}, {made['machine']}:"
    return f"{intro}\n\n{table(head, [_row(by_name[name]) for name in IN_README])}"


def _over(found: Json) -> str:
    return "held-out patients" if found["seeds"] == 1 else f"{found['seeds']} seeds"


def _row(effect: Json) -> list[str]:
    low, high, change = effect["low"], effect["high"], effect["change"]
    bounds = "" if low is None else f" ({low:+.3f} to {high:+.3f})"
    shown = effect["note"] or ("-" if change is None else f"{change:+.3f}{bounds}")
    beyond = "" if low is None else ("yes" if low > 0 or high < 0 else "no")
    figures = ["-" if effect[side] is None else f"{effect[side]:.3f}" for side in ("before", "after")]
    return [f"{effect['before_name']} -> {effect['after_name']}", code(effect["metric"]), *figures, shown, beyond]


def gpu_tables(root: Path = ROOT) -> str:
    """The tables of every folder of figures under ``tests/gpu/figures``, as its own script writes them."""
    scripts = str(root / "tests/gpu")
    if scripts not in sys.path:
        sys.path.append(scripts)
    return import_module("verify_page").tables(sorted((root / "tests/gpu/figures").iterdir()))


def with_figures(text: str, figures: str) -> str:
    """The text with the figures between its two marks.

    >>> with_figures(f"a {BEGIN} old {END} b", "new").splitlines()[1]
    'new'
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, "the file has no mark where figures begin"
    assert end, "the file has no mark where figures end"
    return f"{before}{BEGIN}\n{figures}\n{END}{after}"


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def main() -> None:
    """Writes every page."""
    for file, text in made_evidence().items():
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
