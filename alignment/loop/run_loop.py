"""The whole loop: build, train every stage, evaluate every stage on held-out patients, report, release; one table.

Every comparison is paired: the same rows answered before and after, patients resampled together. Over several seeds
the interval is over seeds (Student's t). A name that cannot be is an error (``loop_file.py``); a metric that no row of
this run was judged by keeps its line, which says so: the model may have claimed nothing, and other lines have figures.
Left out: judging whether an effect is large enough; the table says it.
"""

import contextlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console

from alignment.checks.chains import check_stages
from alignment.distributed.processes import is_main_process
from alignment.distributed.ranks import agreed, alone_at, of_rank_0
from alignment.distributed.shared_folder import check_shared
from alignment.loop.effects import Effect, effects_of, over_seeds
from alignment.loop.evaluation import evaluated
from alignment.loop.loop_file import UNTRAINED, Loop, read_loop
from alignment.loop.release import check_release, loop_release
from alignment.loop.steps import BUILD, RELEASE, Step, base_seed, check_inputs, is_built, step_named, steps_of, words_of
from alignment.loop.table import print_table
from alignment.training.chains import refuse_others_in_stages, stage_to_train
from alignment.training.run import run
from data_builders.build.build import build
from data_builders.build.build_spec import read_spec
from data_builders.interruptions import stands


def run_loop(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    seeds: int = 1,
    fresh: bool = False,
    quiet: bool = False,
    step: str | None = None,
) -> dict[str, object]:
    """Runs the loop for each seed and prints the table; what is already done is not done again.

    ``step``: only this one of ``loop_steps.steps_of``, whose inputs must be there; it takes no lock of the whole loop,
    so that steps that do not read each other can be done at once. Ranks train and evaluate together; rank 0 alone
    builds, compares and releases.
    Returns the effects (over seeds where there are several), the folders of the runs, report and release; of another
    step than the last, the folder that it filled.
    """
    loop = agreed(lambda: read_loop(path, overrides))
    agreed(lambda: check_stages(loop.chain, path))
    steps = agreed(lambda: steps_of(loop, path, seeds))
    running = _Running(loop, path, seeds=seeds, fresh=fresh, quiet=quiet)
    done = f"What is finished in {loop.chain.output} stands, and is not done again."
    if step is not None:
        only = agreed(lambda: step_named(step, steps, path))
        again = shlex.join(["clinalign", *words_of(path, overrides, seeds), "--step"])
        of_rank_0(lambda: check_inputs(only, steps, loop, again=again))
        alone = contextlib.nullcontext() if only.stage is not None else alone_at(Path(loop.chain.output))
        with alone, stands(lambda: done):
            return running.done(only)
    with alone_at(Path(loop.chain.output)), stands(lambda: done):
        check_shared(Path(loop.chain.output))
        return [running.done(each) for each in steps][-1]


@dataclass
class _Running:
    """A loop in this process. ``evaluated``: the evaluations that are finished, by seed.

    ``effects``: by seed and number of the comparison, in rank 0 alone.
    """

    loop: Loop
    path: Path
    seeds: int
    fresh: bool
    quiet: bool
    evaluated: dict[int, dict[str, Path]] = field(default_factory=dict[int, dict[str, Path]])
    effects: dict[int, dict[int, list[Effect]]] = field(default_factory=dict[int, dict[int, list[Effect]]])

    @property
    def every_seed(self) -> range:
        base = base_seed(self.loop, self.path)
        return range(base, base + self.seeds)

    def home(self, seed: int) -> Path:
        output = Path(self.loop.chain.output)
        return output if self.seeds == 1 else output / f"seed{seed}"

    @property
    def run_to_release(self) -> Path:
        return self.home(self.every_seed[0]) / self.loop.release

    def done(self, step: Step) -> dict[str, object]:
        """What a step made, once it is finished in all ranks."""
        if step.name == BUILD:
            return {"made": of_rank_0(lambda: str(self.built()))}
        if step.name == RELEASE:
            return of_rank_0(self.released)
        Console(stderr=True, quiet=not is_main_process()).print(
            f"[bold]{step.name}[/bold] (seed {step.seed})", highlight=False
        )
        return {"made": str(self.evaluation(step) if step.evaluates else self.stage(step))}

    def built(self) -> Path:
        """The data set's folder, once nothing speaks against replacing what is there, the release too."""
        for seed in self.every_seed if self.fresh else ():
            refuse_others_in_stages(self.loop.chain.model_copy(update={"output": str(self.home(seed))}))
        check_release(self.loop.chain.output, self.run_to_release, fresh=self.fresh)
        spec = read_spec(Path(self.loop.spec), [])
        if not self.fresh and is_built(spec):
            return Path(spec.output)
        return build(spec, inputs=[self.path, Path(self.loop.spec)])

    def stage(self, step: Step) -> Path:
        """The folder of a run, or of pairs."""
        assert step.stage is not None
        chain = self.loop.chain.model_copy(update={"output": str(self.home(step.seed))})
        recipe = agreed(partial(stage_to_train, chain, step.stage, self.path, seed=step.seed))
        file = chain.stages[step.stage].file(self.path)
        return run(recipe, fresh=self.fresh, inputs=[self.path, file, self.data])

    @property
    def data(self) -> Path:
        return Path(read_spec(Path(self.loop.spec), []).output)

    def evaluation(self, step: Step) -> Path:
        """The folder of an evaluation. What can be compared by now is: a fault of a name costs no further training."""
        assert step.stage is not None
        assert step.evaluates is not None
        folder = self.home(step.seed) / self.loop.chain.stages[step.stage].name
        weights = folder / "init" if step.evaluates == UNTRAINED else folder
        out = Path(self.loop.chain.output) / step.name
        controls = step.evaluates in self.loop.controlled
        evaluated(self.loop, self.data, weights, out, controls=controls)
        self.evaluated.setdefault(step.seed, {})[step.evaluates] = out
        if is_main_process():
            self.compare(step.seed)
        return out

    def compare(self, seed: int) -> None:
        """The effects of every comparison whose stages are evaluated; once all are, the seed's report."""
        folders, found = self.evaluated[seed], self.effects.setdefault(seed, {})
        ready = [n for n, c in enumerate(self.loop.compare) if n not in found and c.stages <= folders.keys()]
        found |= {n: effects_of(self.loop.compare[n], folders) for n in ready}
        if ready and len(found) == len(self.loop.compare):
            from alignment.evaluation.report import write_report

            write_report(folders, self.home(seed) / "report.html")

    def released(self) -> dict[str, object]:
        """The table, printed and as JSON, and the release."""
        output, seeds = self.loop.chain.output, self.seeds
        for step in steps_of(self.loop, self.path, seeds):
            if step.evaluates:
                self.evaluated.setdefault(step.seed, {})[step.evaluates] = Path(output) / step.name
        for seed in self.every_seed:
            self.compare(seed)
        per_seed = [[e for n in sorted(found) for e in found[n]] for found in self.effects.values()]
        effects = per_seed[0] if seeds == 1 else over_seeds(per_seed)
        out = Path(output) / (f"effects_{seeds}_seeds.json" if seeds > 1 else "effects.json")
        result = {"seeds": seeds, "effects": [effect.to_json() for effect in effects], "output": output}
        out.write_text(json.dumps(result, indent=2), encoding="utf-8")
        released = loop_release(output, self.run_to_release, fresh=self.fresh)
        if not self.quiet:
            print_table(effects, seeds)
            report = self.home(self.every_seed[0]) / "report.html"
            Console().print(f"report: {report}\nreleased: {released}", highlight=False)
        return {**result, "released": str(released)}
