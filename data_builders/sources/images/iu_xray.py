"""IU X-ray (Demner-Fushman et al. 2016): chest radiographs with their reports, from Open-i.

Files, from openi.nlm.nih.gov: ``ecgen-radiology/N.xml`` and ``NLMCXR_png/NAME.png``. A report is its findings and its
impression; XXXX stands for what was taken out to hide the patient. Left out: tags (MeSH), and reports without images.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException  # pyright: ignore[reportMissingTypeStubs, reportMissingModuleSource]
from defusedxml.ElementTree import parse  # pyright: ignore

from data_builders.imaging.images import ImageError, inside, open_image
from data_builders.schema import Quarantined, Written
from data_builders.sources.questions.vqa_files import needed
from rewards.config.input_error import InputError
from rewards.config.strict_yaml import regular

LICENCE = "Indiana University chest X-rays: see source: openi.nlm.nih.gov/faq"

QUESTION = "Write the report of this chest radiograph."


def iu_xray(
    *, root: Path, views: Literal["first", "all"] = "first", sections: Literal["findings", "both"] = "both"
) -> Iterator[Written | Quarantined]:
    """One report a study, in the order of its number, with its first image or all of them.

    ``sections``: the findings alone, or findings and impression.

    Raises: InputError naming the folder that is missing.
    """
    where = "openi.nlm.nih.gov/faq (Indiana University chest X-rays)"
    reports = needed(Path(root), "ecgen-radiology", source="iu_xray", where=where)
    folder = needed(Path(root), "NLMCXR_png", source="iu_xray", where=where)
    paths = sorted(reports.glob("*.xml"), key=lambda path: (len(path.stem), path.stem))
    if not paths:
        raise InputError(f"iu_xray: {reports} holds no *.xml. Unpack the reports there; get them from {where}.")
    for path in paths:
        yield _study(path, folder, views=views, sections=sections)


def _study(path: Path, folder: Path, *, views: str, sections: str) -> Written | Quarantined:
    name = f"iu_xray-{path.stem}"
    try:
        tree: Element | None = parse(regular(path), forbid_dtd=True).getroot()
    except (ParseError, DefusedXmlException, ValueError, OSError) as fault:
        return Quarantined(id=name, reason=f"not readable as XML ({fault})")
    if tree is None:
        return Quarantined(id=name, reason="an empty XML file")
    told = [_section(tree, label) for label in ("FINDINGS", "IMPRESSION")[: 1 if sections == "findings" else 2]]
    report = " ".join(filter(None, told))
    names = [f"{image.get('id')}.png" for image in tree.iter("parentImage")][: 1 if views == "first" else None]
    if not report or not names:
        return Quarantined(id=name, reason="no image" if report else "no findings and no impression")
    try:
        images = tuple(open_image(inside(folder, one)) for one in names)
    except ImageError as fault:
        return Quarantined(id=name, reason=str(fault))
    return Written(
        id=name,
        patient=name,
        study=name,
        images=images,
        names=tuple(names),
        question=QUESTION,
        answer=report,
        task="report",
        provenance={"views": len(names)},
    )


def _section(tree: Element, label: str) -> str:
    found = [text for text in tree.iter("AbstractText") if (text.get("Label") or "").upper() == label]
    return " ".join((found[0].text or "").split()) if found else ""
