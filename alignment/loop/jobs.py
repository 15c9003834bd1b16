"""A loop as jobs of Slurm: one for each step, which waits for the steps that it reads and for no other.

The scripts lie in the loop's output folder, beside ``submit.sh``, which hands them to Slurm with their dependencies. A
job whose step is done ends at once, so that after a failure the same ``submit.sh`` goes on (unless it was asked to
begin anew). Left out: taking jobs back.
"""

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alignment.loop.loop_file import read_loop
from alignment.loop.steps import Step, steps_of, words_of
from alignment.planning.launch import Command, JobRequest, Machines, sbatch_script, single_script
from rewards.config.input_error import InputError

SUBMIT = "submit.sh"


@dataclass(frozen=True)
class Job:
    """A step's batch script and where it goes."""

    step: Step
    file: Path
    script: str
    fresh: bool = False


def jobs_of(
    path: Path,
    machines: Machines,
    request: JobRequest,
    overrides: Sequence[str] = (),
    *,
    seeds: int = 1,
    fresh: bool = False,
) -> list[Job]:
    """The jobs of a loop, in an order in which each comes after those that it waits for.

    Raises: InputError for a faulty loop.
    """
    loop = read_loop(path, overrides)
    output = Path(loop.chain.output)
    jobs: list[Job] = []
    for step in steps_of(loop, path, seeds):
        words = [*words_of(path, overrides, seeds), "--step", step.name]
        command = Command(f"{output.name}-{step.name}", words, fresh)
        script = sbatch_script(command, machines, request) if step.is_on_gpus else single_script(command, request)
        jobs.append(Job(step, output / f"{step.name.replace('/', '.')}.sbatch", script, fresh))
    return jobs


def submission(jobs: list[Job]) -> str:
    """A script that submits the jobs with their dependencies; a job that can never start is taken away by Slurm."""
    number = {job.step.name: n for n, job in enumerate(jobs)}
    lines = [
        "#!/usr/bin/env bash",
        "# Submits a job for each step, which waits for the steps that it reads.",
        *(
            ["# Launched with --fresh: this begins anew. To go on, launch without."]
            if any(j.fresh for j in jobs)
            else []
        ),
        "set -euo pipefail",
        f"cd {shlex.quote(str(Path.cwd()))}",
        'job() { sbatch --parsable --kill-on-invalid-dep=yes "$@" | cut -d ";" -f 1; }',
    ]
    for n, job in enumerate(jobs):
        waits = "".join(f":$job{number[name]}" for name in job.step.after)
        after = f'--dependency="afterok{waits}" ' if waits else ""
        lines.append(f'job{n}="$(job {after}{shlex.quote(str(job.file))})"')
        lines.append(f'echo {shlex.quote(job.step.name)}: job "$job{n}"')
    return "\n".join([*lines, ""])


def printed(jobs: list[Job]) -> str:
    """Every script, and the one that submits them."""
    scripts = {**{str(job.file): job.script for job in jobs}, SUBMIT: submission(jobs)}
    return "\n".join(f"# --- {name}\n{script}" for name, script in scripts.items())


def submit_jobs(jobs: list[Job]) -> str:
    """Writes the scripts and hands them to Slurm. Returns the number of each step's job, a line each.

    Raises: InputError where there is no sbatch, or it refuses one.
    """
    folder = jobs[0].file.parent
    folder.mkdir(parents=True, exist_ok=True)
    for job in jobs:
        job.file.write_text(job.script, encoding="utf-8")
    script = folder / SUBMIT
    script.write_text(submission(jobs), encoding="utf-8")
    if shutil.which("sbatch") is None:
        raise InputError(
            f"launch: no sbatch on this machine. The scripts of {len(jobs)} jobs are in {folder}; where there is one, "
            f"submit them with their dependencies: bash {script}"
        )
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False)
    if done.returncode:
        before = ", ".join(done.stdout.splitlines()) or "nothing"
        raise InputError(f"launch: sbatch refused a job: {done.stderr.strip()}. Submitted before it: {before}.")
    return done.stdout.strip()
