"""A clinician's table: one record an image, its cells as findings, values and measurements, with or without a report.

CSV, TSV or JSON Lines. A column map (YAML) says what each cell means; without one, columns bear the names of the rule
set (``drusen``, ``drusen.size``). What a cell does not say (empty, NaN) is not known: never absent, never a default.
Left out: spreadsheets, and joins of several tables.
"""

import math
from collections.abc import Collection, Iterator
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import model_validator

from data_builders.imaging.images import ImageError, inside, open_image
from data_builders.rendering.report_facts import region_of, report_facts
from data_builders.schema import Quarantined, Sample
from rewards.config.csv_rows import Misfit, csv_rows, opened
from rewards.config.input_error import InputError, nearest
from rewards.config.json_lines import json_lines
from rewards.config.strict_model import StrictModel
from rewards.config.strict_yaml import read_yaml, validated
from rewards.rules.facts import Facts, Finding, Scalar
from rewards.rules.guidelines import ATTRIBUTES, Contradictory, Policy, worked_out
from rewards.rules.rule_set import RuleSet, load_rule_set

LICENCE = "not known to clinalign: that of the table and its images"

UNKNOWN = ("", "nan", "na", "n/a", "none", "null", "-", "?")
POLARITIES = {
    **dict.fromkeys(("present", "y", "yes", "true", "1", "1.0"), "present"),
    **dict.fromkeys(("absent", "n", "no", "false", "0", "0.0"), "absent"),
    "uncertain": "uncertain",
}
Record = dict[str, Any]


class Unusable(Exception):
    """Why one record cannot be used."""


class ColumnMap(StrictModel):
    """What the columns of a table mean.

    ``means``: column -> cell -> what it says (``{drusen: present, drusen.size: large}``), cells in any case.
    ``numbers``: value -> the column that holds it. A cell with ``several`` in it holds several entries of ``means``.
    """

    id: str = "id"
    patient: str = "patient"
    study: str = "study"
    image: str = "image"
    report: str = "report"
    means: dict[str, dict[str, dict[str, Scalar]]] = {}
    numbers: dict[str, str] = {}
    several: str = ";"

    @model_validator(mode="before")
    @classmethod
    def _cells_are_texts(cls, content: Any) -> Any:
        """YAML reads Y, 0 and 1 as they please; a cell is a text."""
        if isinstance(content, dict) and isinstance(content.get("means"), dict):
            means = {
                column: {_cell_name(cell): said for cell, said in cells.items()} if isinstance(cells, dict) else cells
                for column, cells in content["means"].items()
            }
            return {**content, "means": means}
        return content


def _cell_name(cell: object) -> str:
    return {True: "yes", False: "no"}[cell] if isinstance(cell, bool) else str(cell).casefold()


def table(
    *,
    root: Path,
    rule_set: str,
    table: str = "table.csv",
    columns: str | None = None,
    contradictions: Policy = "quarantine",
    absent: Collection[str] = (),
    separator: str = ",",
    encoding: str = "utf-8",
) -> Iterator[Sample | Quarantined]:
    """One sample for each record of ``root/table``; images are looked for inside ``root``.

    ``columns``: a column map, by file or shipped name. ``absent``: findings that count as absent where nothing is said
    of them. Facts are closed under the rule set; ``contradictions`` says what becomes of a record that contradicts
    itself. A record whose columns say nothing of the findings takes them from its report.

    Raises: InputError if there is no such table, its separator or encoding is another, or its columns do not fit.
    """
    rules, root = load_rule_set(rule_set), Path(root)
    named = column_map(columns) if columns else ColumnMap()
    _check_map(named, rules, absent)
    path = root / table
    for number, record in enumerate(_records(path, separator, encoding, named, rules), start=1):
        name = f"{table} record {number}"
        if isinstance(record, Misfit):
            yield Quarantined(id=name, reason=record)
            continue
        name = str(record.get(named.id) or name)
        try:
            yield _sample(record, named, rules, root, contradictions, absent)
        except Unusable as reason:
            yield Quarantined(id=name, reason=str(reason))


def column_map(name: str) -> ColumnMap:
    """The column map in a YAML file, or the one that ships under a name (``retina_published``).

    Raises: InputError with every fault of the file.
    """
    shipped = Path(str(files("data_builders") / "column_maps"))
    path = Path(name) if name.endswith((".yaml", ".yml")) else shipped / f"{name}.yaml"
    return validated(ColumnMap, read_yaml(path), where=path)


def _check_map(named: ColumnMap, rules: RuleSet, absent: Collection[str]) -> None:
    """Names of findings that the map or ``absent`` has and the rule set has not."""
    entries = {(c, key) for c, cells in named.means.items() for said in cells.values() for key in said if "." in key}
    stated = [(f"means.{column}", key.partition(".")[0]) for column, key in sorted(entries)]
    for place, name in [*stated, *(("absent", name) for name in absent)]:
        if name not in rules.findings:
            raise InputError(f"{place}: rule set {rules.id} has no finding '{name}'.{nearest(name, [*rules.findings])}")


def _records(path: Path, separator: str, encoding: str, named: ColumnMap, rules: RuleSet) -> Iterator[Record | Misfit]:
    cure = "Name it in 'table', and its folder in 'root'."
    if path.suffix not in (".jsonl", ".json"):
        separator = "\t" if path.suffix == ".tsv" else separator
        check = partial(_check_header, path, separator, named, rules)
        yield from csv_rows(path, check=check, separator=separator, encoding=encoding, cure=cure)
        return
    with opened(path, encoding=encoding, cure=cure) as file:
        yield from (record for _, record in json_lines(file, location=f"{path}:"))


def _check_header(path: Path, separator: str, named: ColumnMap, rules: RuleSet, header: list[str]) -> None:
    """Whether the columns that must be there are, and whether any says something of the findings."""
    other = next((s for s in (";", "\t", "|", ",") if s != separator and len(header) == 1 and s in header[0]), None)
    if other:
        shown = {"\t": "a tab"}.get(other, f"'{other}'")
        raise InputError(f"{path}: its header has one column by separator '{separator}'. Set separator to {shown}.")
    wanted = [named.id, named.patient, named.image, *named.means, *named.numbers.values()]
    for name in wanted:
        if name not in header:
            raise InputError(f"{path}: no column '{name}'.{nearest(name, header)} It has: {', '.join(header)[:300]}.")
    speaking = [name for name in header if name.partition(".")[0] in rules.findings]
    if not (named.means or named.numbers or speaking or named.report in header):
        raise InputError(f"{path}: no column is named like a finding of {rules.id}. Give a column map (columns: FILE).")


def _sample(
    record: Record, named: ColumnMap, rules: RuleSet, root: Path, policy: Policy, absent: Collection[str]
) -> Sample:
    read = {name: _known(cell, named.means.get(name, ())) for name, cell in record.items() if name}
    cells = {name: cell for name, cell in read.items() if cell is not None}
    for key in (named.id, named.patient, named.image):
        if key not in cells:
            raise Unusable(f"it has no '{key}'")
    said, report = _said(cells, named, rules), str(cells.get(named.report, ""))
    facts = _facts(said, rules)
    if report and not facts.findings:
        told = report_facts(report, rules, eye=said.get("eye"))
        facts = told.model_copy(update={"values": {**told.values, **facts.values}})
    try:
        worked = worked_out(facts, [rules.id], policy=policy)
    except Contradictory as clash:
        raise Unusable(f"it contradicts itself: {clash}") from None
    except InputError as clash:
        raise InputError(f"record {cells[named.id]}: {clash}") from None
    facts = worked.facts
    defaults = {name: Finding(polarity="absent") for name in absent if name not in facts.findings}
    ordered = {name: f for name in rules.findings if (f := {**defaults, **facts.findings}.get(name))}
    notes = {"repaired": list(worked.repaired)} if worked.repaired else {}
    notes |= {"absent_by_default": sorted(defaults)} if defaults else {}
    return Sample(
        id=str(cells[named.id]),
        patient=str(cells[named.patient]),
        study=str(cells.get(named.study) or cells[named.id]),
        image=_image(root, str(cells[named.image])),
        facts=facts.model_copy(update={"findings": ordered}),
        report=report,
        provenance=notes,
    )


def _known(cell: Any, meaning: Collection[str]) -> Any:
    """A cell without blanks around it; None where it says nothing and has no meaning of its own."""
    if isinstance(cell, float) and not math.isfinite(cell):
        return None
    if isinstance(cell, str):
        cell = cell.strip()
        return None if cell.casefold() in UNKNOWN and cell.casefold() not in meaning else cell
    return cell


def _said(cells: Record, named: ColumnMap, rules: RuleSet) -> Record:
    """What the cells of one record say, by column of the facts."""
    said: Record = {}
    for column, meaning in named.means.items():
        for entry in _entries(cells.get(column), meaning, named.several):
            if entry not in meaning:
                raise Unusable(f"column '{column}': '{entry}' is not in its map.{nearest(entry, [*meaning])}")
            said |= meaning[entry]
    for name, column in named.numbers.items():
        if column in cells:
            said[name] = _number(cells[column], column)
    own = {named.id, named.patient, named.study, named.image, named.report, *named.means, *named.numbers.values()}
    plain = {
        k: v for k, v in cells.items() if k not in own and (not named.means or k.partition(".")[0] in rules.findings)
    }
    return said | {name: _plain(name, value, rules) for name, value in plain.items()}


def _entries(cell: Any, meaning: dict[str, dict[str, Scalar]], several: str) -> list[str]:
    if cell is None:
        return []
    text = _cell_name(cell)
    text = text if text in meaning else text.removesuffix(".0")
    return [text] if text in meaning else [part.strip() for part in text.split(several) if part.strip()]


def _number(cell: Any, column: str) -> float:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        raise Unusable(f"column '{column}': '{str(cell)[:40]}' is no number") from None
    if not math.isfinite(value):
        raise Unusable(f"column '{column}': {value} is no measured value")
    return value


def _plain(name: str, value: Any, rules: RuleSet) -> Any:
    """A cell of a column that bears the name of a finding, an attribute or a value."""
    if name in rules.findings:
        word = _cell_name(value)
        if word not in POLARITIES:
            raise Unusable(f"column '{name}': '{word}' is neither present nor absent")
        return POLARITIES[word]
    if name.endswith(".count"):
        return int(_number(value, name))
    if "." in name or not isinstance(value, str):
        return value.casefold() if isinstance(value, str) else value
    try:
        return float(value) if any(c.isdigit() for c in value) else value
    except ValueError:
        return value


def _facts(said: Record, rules: RuleSet) -> Facts:
    """The record as facts. An attribute that is stated alone waits in ``absent with a size`` for the policy."""
    findings: dict[str, Finding] = {}
    for name, rule in rules.findings.items():
        stated = {key: said.get(f"{name}.{key}") for key in ATTRIBUTES}
        stated["side"] = _side(stated["side"], rule.sides, said.get("eye"))
        polarity = said.get(name, "present" if any(v is not None for v in stated.values()) else None)
        if polarity is not None:
            _check_words(name, stated, {"side": rule.sides, "size": rule.sizes})
            findings[name] = Finding.model_validate({"polarity": polarity, **stated})
    columns = {f"{name}.{key}" for name in rules.findings for key in ATTRIBUTES}
    values = {k: v for k, v in said.items() if k not in rules.findings and k not in columns}
    return Facts(rule_set=rules.id, findings=findings, values=values)


def _side(side: Any, known: list[str], eye: Any) -> str | None:
    """A side of the image as a region of the eye, where the rule set has regions; not known without the eye."""
    if side in ("left", "right") and "nasal" in known:
        return region_of(side, eye if isinstance(eye, str) else None)
    return side


def _check_words(name: str, stated: Record, known: dict[str, list[str]]) -> None:
    for key, words in known.items():
        if stated[key] is not None and stated[key] not in words:
            hint = nearest(str(stated[key]), words) or f" Known: {', '.join(words) or 'none'}."
            raise Unusable(f"column '{name}.{key}': '{stated[key]}' is none of its words.{hint}")


def _image(root: Path, name: str) -> Any:
    try:
        return open_image(inside(root, name))
    except (ImageError, InputError) as fault:
        raise Unusable(f"image: {fault}") from None
