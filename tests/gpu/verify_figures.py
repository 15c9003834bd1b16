"""Figures of the check on a GPU: one JSON line each as soon as it is measured, and a Markdown table of all so far."""

import hashlib
import json
import os
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

LINES, TABLE, WHOLE = "figures.jsonl", "table.md", "figures.json"
OUT_OF_TIME = 12.0


def aside(folder, name):
    """A folder for what is large and is not a result, outside the folder of figures: one for each of those."""
    key = hashlib.sha256(str(Path(folder).resolve()).encode()).hexdigest()[:10]
    return Path(tempfile.gettempdir()) / f"clinalign-verify-{key}" / name


class LeftOut(Exception):
    """A figure that cannot be had here, and why; not a failure."""


class Figures:
    """Appends figures of one part to the folder, and writes the table anew after each."""

    def __init__(self, folder, part, *, until=None, done=()):
        self.folder, self.part, self.until, self.done = Path(folder), part, until, set(done)
        self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, name, value=None, unit="", note="", **more):
        """One figure. ``more`` goes into the JSON only."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        line = {"part": self.part, "name": name, "value": value, "unit": unit, "note": note, "at": now, **more}
        with (self.folder / LINES).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(line, default=str) + "\n")
            lines.flush()
            os.fsync(lines.fileno())
        write_table(self.folder)
        print(f"[{self.part}] {name}: {shown(value)} {unit} {note}".rstrip(), flush=True)

    def time_left(self):
        """Seconds until the part's time limit."""
        return float("inf") if self.until is None else self.until - time.time()

    @contextmanager
    def measuring(self, name, needs=OUT_OF_TIME):
        """Whatever goes wrong within it becomes a line of the table, and the next figure has its turn.

        Gives True where it is to be measured: not where an earlier try of it took the process along, or where less
        than ``needs`` seconds are left.
        """
        if name in self.done:
            yield False
            return
        if self.time_left() < needs:
            self.add(name, note="left out: no time left", status="left out")
            yield False
            return
        free_memory()  # what a failed figure held goes only now that its error is forgotten
        begun = time.time()
        self.begin(name)
        try:
            yield True
        except LeftOut as why:
            self.add(name, note=f"left out: {why}", status="left out")
        except Exception as error:  # noqa: BLE001 - the point of it
            self.add(name, note=f"FAILED: {one_line(error)}", status="failed", trace=trace(error))
        finally:
            free_memory()
            self.begin(name, ended=True, seconds=round(time.time() - begun, 1))

    def begin(self, name, **more):
        """Notes that a figure is being measured, so that a process started anew does not try it again."""
        with (self.folder / "begun.jsonl").open("a", encoding="utf-8") as begun:
            begun.write(json.dumps({"part": self.part, "name": name, "time": time.time(), **more}) + "\n")


def one_line(error):
    """The error's type and first line."""
    text = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {text[0][:220]}"


def trace(error):
    """Its last frames."""
    import traceback

    return "".join(traceback.format_exception(error))[-2500:]


def free_memory():
    """Lets go of what a figure held."""
    import gc
    import sys

    gc.collect()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()


def read(folder):
    """All figures so far."""
    file = Path(folder) / LINES
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


def begun(folder, part):
    """Names that a process has begun to measure."""
    file = Path(folder) / "begun.jsonl"
    if not file.is_file():
        return []
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return list(dict.fromkeys(line["name"] for line in lines if line["part"] == part and "ended" not in line))


def ended(folder, part):
    """Names whose measurement came to its end."""
    file = Path(folder) / "begun.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
    return {line["name"] for line in lines if line["part"] == part and "ended" in line}


def shown(value):
    """A number in three digits.

    >>> shown(1234.5), shown(0.000123), shown(None), shown("a")
    ('1234', '0.000123', '-', 'a')
    """
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def write_table(folder):
    """The Markdown table and one JSON file, each in one step."""
    figures = read(folder)
    lines = ["| part | figure | value | unit | note |", "| --- | --- | --- | --- | --- |"]
    for f in figures:
        cells = [f["part"], f["name"], shown(f["value"]), f["unit"], str(f["note"]).replace("|", "/")]
        lines.append("| " + " | ".join(cells) + " |")
    _replaced(Path(folder) / TABLE, "\n".join(lines) + "\n")
    _replaced(Path(folder) / WHOLE, json.dumps(figures, indent=1, default=str))


def _replaced(file, text):
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(file)
