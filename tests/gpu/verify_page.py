"""The tables of figures in docs/evidence/gpu.md, made from what runs of the check left in their folders."""

import statistics
from pathlib import Path

from verify_figures import read, shown

BEGIN, END = "<!-- figures: written by make evidence -->", "<!-- end of figures -->"
METRICS = ("balanced_accuracy", "side_accuracy", "mean_iou", "hallucination_rate", "omission_rate")
STAGES = ("untrained", "sft", "dpo", "dpo on corrupted answers", "grpo")
NOT_RUN = "not yet run"


def page_tables(folders, page):
    """Writes the tables of these folders' figures into the page, and gives them back."""
    text = tables(folders)
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    return text


def tables(folders):
    """The tables of these folders' figures."""
    figures = [figure | {"run": k} for k, folder in enumerate(folders) for figure in read(Path(folder))]
    parts = (runs(figures), roofs(figures), equality(figures), updates(figures), memory(figures), learning(figures))
    return "\n\n".join((*parts, missing(figures))).strip()


def table(head, rows):
    """Of Markdown; one line that says so where there are no rows."""
    if not rows:
        return f"{head[0]}: {NOT_RUN}."
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines)


def named(figures, part, name):
    """The last figure of that name; an empty one where there is none."""
    return next((f for f in reversed(figures) if f["part"] == part and f["name"] == name), {})


def runs(figures):
    """Card, versions, commit, day and command of each run."""
    rows = []
    for k in dict.fromkeys(f["run"] for f in figures):
        own = [f for f in figures if f["run"] == k]
        fact = {f["name"]: f["value"] for f in own if f["name"] in ("card", "versions", "commit", "command")}
        days = sorted({f["at"][:10] for f in own if "at" in f})
        parts = ", ".join(sorted({f["part"] for f in own} - {"draw"}))
        rows.append(
            [parts, fact.get("card"), fact.get("versions"), fact.get("commit", "not noted"), days[0] if days else "",
             f"`{fact.get('command')}`"]
        )  # fmt: skip
    return table(["parts", "card", "versions", "commit", "day", "command"], rows)


def roofs(figures):
    """One sentence."""
    product, copy = (named(figures, "a", name) for name in ("bf16 matrix product", "copy"))
    if not product or not copy:
        return f"Roofs: {NOT_RUN}."
    return f"Roofs: {shown(product['value'])} TFLOP/s (bfloat16 matrix product), {shown(copy['value'])} GB/s (copy)."


def equality(figures):
    """Part b, a row a form and precision."""
    rows = []
    for figure in figures:
        form, _, what = figure["name"].partition(": ")
        if figure["part"] == "b" and what == "log-probability":
            gradient = named(figures, "b", f"{form}: gradient")
            rows.append([form, shown(figure["value"]), shown(gradient.get("value"))])
    times = [[f["name"], shown(f["value"]), f["note"]] for f in figures if f["name"].startswith("tower alone")]
    errors = table(["form and precision", "log-probability: largest error, nats", "gradient: relative error"], rows)
    return errors + "\n\n" + table(["vision tower by itself", "s", "how"], times)


def updates(figures):
    """Part c, a row a cell."""
    rows = []
    for f in figures:
        if f["part"] != "c" or "useful_flops" not in f:
            continue
        useful = named(figures, "c", f"{f['cell']}: useful")
        faster = [named(figures, "c", f"{f['cell']}: faster than {w}").get("value") for w in ("stock", ONE_CALL)]
        share = useful.get("note", "").partition("; ")[2].removesuffix(" of the roof")
        seconds = f"{shown(statistics.median(f['seconds']))} ({len(f['seconds'])})"
        memory = shown(f["peak_mib"] / 1024)
        rows.append([f["cell"], seconds, memory, shown(useful.get("value")), share, *map(shown, faster)])
    head = ["update (image + answer tokens x prompts)", "s (of so many)", "GiB", "useful TFLOP/s", "of the roof"]
    return table([*head, "x stock", "x stock, tower in one call"], rows)


ONE_CALL = "stock, tower in one call"


def memory(figures):
    """Part d."""
    own = [f for f in figures if f["part"] == "d" and "estimate" in f]
    rows = [[f["name"].partition(": ")[0], shown(f["value"]), f["note"]] for f in own]
    return table(["memory estimated / measured", "ratio", "parts"], [row for row in rows if row[1] != "-"][:40])


def learning(figures):
    """Part f, a row a stage."""
    rows = []
    for stage in STAGES:
        found = [named(figures, "f", f"{stage}: {metric}") for metric in METRICS]
        if any(found):
            steps = named(figures, "f", f"{stage.partition(' ')[0]}: steps").get("note", "")
            rows.append([stage, *(f"{shown(f['value'])} {f['unit']}".strip() if f else "" for f in found), steps])
    return table(["stage", *METRICS, "training"], rows)


def missing(figures):
    """What was left out or failed, and why."""
    rows = [[f["part"], f["name"], f["note"]] for f in figures if f.get("status") in ("left out", "failed")]
    return table(["part", "not measured", "why"], rows) if rows else ""
