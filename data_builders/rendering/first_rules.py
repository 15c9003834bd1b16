"""A first rule set from a table of findings: sound and usable at once, with comments that say what to fill next.

Each finding is written in its own words and read back before the file is. Left out: decisions and staging, which no
table of findings says; the README of ``rewards/rule_sets`` explains how these are added.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from data_builders.rendering.render import sentence
from rewards.config.csv_rows import Misfit, Row, csv_rows
from rewards.config.input_error import InputError, nearest
from rewards.config.strict_yaml import validated
from rewards.reading.reading import read
from rewards.rules.facts import Finding, Polarity
from rewards.rules.rule_set import RuleSet

COLUMNS = ("finding", "words", "severity", "sides", "sizes")
"""``words``, ``sides`` and ``sizes`` hold entries parted by ``;``; all columns but the first may be left out."""
RESERVED = ("id", "patient", "study", "image", "images", "image_turns", "report")
"""Columns of tables that name no finding."""
WORDING = {
    "present": ["{What} is seen{where}."],
    "absent": ["No {name}."],
    "uncertain": ["Possible {name}{where}."],
    "ask_presence": ["Is there any {name}?"],
    "ask_side": ["On which side is the {name}?"],
    "ask_size": ["How large is the {name}?"],
    "ask_box": ["Where is the {name}?"],
    "ask_report": ["Write the report."],
}
HEAD = """\
# First rule set, made of {table}. It passes `clinalign check-rules` as it is. To fill next:
# - phrases: every way in which your reports say a finding; the first is written, all are read.
# - plural, and article: true where one says "a nodule"; severity: what an error about it means for a patient (0 to 1).
# - error_weights: what each kind of error weighs; wording: how your reports put it, several templates of equal meaning.
# - wording.normal: phrases such as "no acute disease", each with the findings that it denies.
# - unsupported: ignore, where your labels do not say everything that can be seen.
# - decision and staging: questions whose answers hang together, and ordered scales (see the shipped rule sets).
# A changed file gets a new version: what was built under the old one names it.
"""


def first_rules(table: Path, *, name: str, modality: str) -> str:
    """The text of a rule set with the findings of a CSV file.

    Raises: InputError naming the file, and the finding that cannot be used with the reason.
    """
    findings = dict(_findings(table))
    if not findings:
        raise InputError(f"{table}: holds no finding. Write one a line, under the columns {', '.join(COLUMNS)}.")
    has = {key for rule in findings.values() for key in rule}
    wording = {k: v for k, v in WORDING.items() if k not in ("ask_side", "ask_size") or f"{k[4:]}s" in has}
    content = {"name": name, "version": 1, "modality": modality, "findings": findings, "wording": wording}
    content["error_weights"] = {"invented": 1.0, "missed": 1.0}
    _check_laws(validated(RuleSet, content, where=f"{name}.yaml"), table)
    return HEAD.format(table=table.name) + "".join(_written(content))


def _findings(table: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    seen = set[str]()
    cure = f"Write one with the columns {', '.join(COLUMNS)}; only the first is needed."
    for number, row in enumerate(csv_rows(table, check=partial(_check_header, table), cure=cure), start=1):
        where = f"{table}: record {number}"
        if isinstance(row, Misfit):
            raise InputError(f"{where}: {row}.")
        words = _parts(row["finding"])
        finding = re.sub(r"\W+", "_", "".join(words[:1]).casefold()).strip("_")
        if len(words) != 1 or not finding:
            raise InputError(f"{where}: finding: got '{row['finding']}'; name one, such as pleural_effusion.")
        if finding in RESERVED:
            raise InputError(f"{where}: finding: a table's column '{finding}' says something else. Name it otherwise.")
        if finding in seen:
            raise InputError(f"{where}: finding: '{finding}' stands there twice. Put its words into one line.")
        seen.add(finding)
        phrases = _parts(row.get("words", "")) or [words[0].replace("_", " ")]
        if any(brace in "".join(phrases) for brace in "{}"):
            raise InputError(f"{where}: words: a brace stands for what is filled in. Leave it out.")
        lists = {key: parts for key in ("sides", "sizes") if (parts := _parts(row.get(key, "")))}
        yield finding, {"phrases": phrases, "article": False, **lists, "severity": _severity(row, where)}


def _check_header(table: Path, header: list[str]) -> None:
    if "finding" not in header:
        has = ", ".join(header)[:300]
        raise InputError(f"{table}: no column 'finding'.{nearest('finding', header)} It has: {has}.")
    for column in header:
        if column not in COLUMNS:
            raise InputError(
                f"{table}: unknown column '{column}'.{nearest(column, [*COLUMNS])} Known: {', '.join(COLUMNS)}."
            )


def _parts(cell: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in cell.split(";") if part.strip()))


def _severity(row: Row, where: str) -> float:
    cell = row.get("severity", "").strip() or "0.5"
    try:
        value = float(cell)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise InputError(f"{where}: severity: got '{cell}'; expected a number from 0 to 1, or nothing for 0.5.")
    return value


def _check_laws(rules: RuleSet, table: Path) -> None:
    """Raises InputError unless every finding, written in the words given, is read back as it is, and nothing else."""
    polarities: tuple[Polarity, ...] = ("present", "absent", "uncertain")
    for name, rule in rules.findings.items():
        for polarity in polarities:
            text = sentence(Finding(polarity=polarity), rule, rules)
            found = {finding: f.polarity for finding, f in read(text, rules).facts.findings.items()}
            if found != {name: polarity}:
                reading = ", ".join(f"{finding} {what}" for finding, what in found.items()) or "nothing"
                raise InputError(
                    f"{table}: finding '{name}': \"{text}\" is to say that it is {polarity}, and is read as {reading}. "
                    "Take other words: plain ones, that negate nothing and are of no other finding."
                )


def _written(content: dict[str, Any]) -> Iterator[str]:
    """The content in YAML, a finding on a few lines with its lists as one types them."""
    for key in ("name", "version", "modality"):
        yield f"{key}: {_flow(content[key])}\n"
    yield "findings:\n"
    for name, rule in content["findings"].items():
        yield f"  {_flow(name)}:\n"
        yield from (f"    {key}: {_flow(value)}\n" for key, value in rule.items())
    yield f"error_weights: {_flow(content['error_weights'])}\nwording:\n"
    yield from (f"  {key}: {_flow(value)}\n" for key, value in content["wording"].items())


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")
