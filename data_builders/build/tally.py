"""What a build has met so far: rows, reasons, what was asked how often."""

from collections import Counter
from dataclasses import dataclass, field

from data_builders.build.build_spec import BuildSpec
from data_builders.curriculum.rows import CurriculumBuild
from data_builders.pairs.lesion_noise import NoiseTally
from data_builders.schema import Quarantined
from data_builders.splits.splits import check_disjoint
from rewards.config.input_error import InputError, nearest


@dataclass
class Tally:
    """What a build has met so far.

    ``scenarios``: dialogues by scenario. ``paraphrases``: used, and refused by reason.
    ``rows`` by (kind, split, task), ``placed`` rows by (patient, split), ``not_asked`` questions by reason,
    ``refused`` rejected answers by reason, ``asked`` how often each question of written samples,
    ``assign`` the split of patients that are not left to the hash, ``unknown_patients`` whether the source knows
    none, ``notes`` what the source had to decide, by reason.
    """

    num_samples: int = 0
    rows: Counter[tuple[str, str, str]] = field(default_factory=Counter[tuple[str, str, str]])
    placed: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    rule_sets: set[str] = field(default_factory=set[str])
    quarantined: list[Quarantined] = field(default_factory=list[Quarantined])
    not_asked: Counter[str] = field(default_factory=Counter[str])
    scenarios: Counter[str] = field(default_factory=Counter[str])
    paraphrases: Counter[str] = field(default_factory=Counter[str])
    refused: Counter[str] = field(default_factory=Counter[str])
    noise: NoiseTally = field(default_factory=NoiseTally)
    asked: Counter[tuple[str, ...]] = field(default_factory=Counter[tuple[str, ...]])
    curriculum: CurriculumBuild | None = None
    assign: dict[str, str] = field(default_factory=dict[str, str])
    unknown_patients: bool = False
    notes: Counter[str] = field(default_factory=Counter[str])

    def check(self, spec: BuildSpec) -> None:
        """Raises InputError if there is nothing, too much is unusable, a patient is in two splits or pinned in vain."""
        source, num_unusable = f"source {spec.source.name}", len(self.quarantined)
        first = "; ".join(f"{q.id}: {q.reason}" for q in self.quarantined[:3])
        share = num_unusable / max(1, self.num_samples + num_unusable)
        if self.num_samples and share > spec.max_quarantined:
            raise InputError(
                f"{source}: {num_unusable} records ({share:.1%}) cannot be used, more than max_quarantined "
                f"{spec.max_quarantined:.1%}. First: {first}. Mend them, or raise max_quarantined."
            )
        if not self.rows:
            raise InputError(f"{source}: the data set is empty: {self._why_empty(spec, first)}.")
        patients = sorted({patient for patient, _ in self.placed})
        for pinned in spec.assign:
            if pinned not in patients:
                raise InputError(
                    f"assign: {source} has no patient '{pinned}' with a record that can be used."
                    f"{nearest(pinned, patients)} Mend the name, or remove it."
                )
        check_disjoint(self.placed.elements())

    def _why_empty(self, spec: BuildSpec, first: str) -> str:
        if not self.num_samples:
            unusable = f"all {len(self.quarantined)} records are quarantined. First: {first}"
            impossible = f" ({'; '.join(self.not_asked)})" if self.not_asked else ""
            return unusable if first else f"the source yields nothing{impossible}. Look at its knobs"
        splits = sorted({split for _, split in self.placed})
        asked = sorted({split for named in spec.rows.values() for split in named})
        return (
            f"its {self.num_samples} images fell into {', '.join(splits)}, and 'rows' asks for "
            f"{', '.join(asked) or 'nothing'}. Take more patients, or change splits, rows or tasks"
        )
