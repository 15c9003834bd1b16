"""One GPU, ten minutes: is the shared prefix exact in bfloat16, how fast are updates beside stock trl, does it learn?

Run, from the repository's root:  PYTHONPATH=. python tests/gpu/verify.py FOLDER
Needs:  one H100 or H200 (80 GB), no internet. Without a GPU everything runs on a toy model (``--tiny``), to try the
        script itself.

Each part is a process of its own under its own time limit, which counts from when its imports are done, so that
whatever ends one costs no other, nor a figure that was measured before: ``FOLDER/table.md``, ``figures.json`` and
``figures.jsonl`` grow with every figure, ``log.txt`` has what was printed. A part whose process died is started again
behind the figure that took it down, while there is time. Parts: a environment and roofs; b packed attention equals the
repeated layout; c updates beside stock trl; d the memory that ``clinalign check`` estimates beside the measured peak;
e liger, bitsandbytes and flash_attn where they are there; f a learning run.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from verify_figures import Figures, aside, begun, ended, one_line, read, trace
from verify_page import page_tables

PARTS = {"a": 15, "c": 300, "d": 45, "e": 20, "b": 80, "f": 185}
"""Seconds of each, at most, its imports not counted; what is worth most first. All but f fit ten minutes."""
IMPORTS_S = 120.0
"""For the imports themselves, at most; they take 16 s from a cold disk."""
LOG = "log.txt"
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONUNBUFFERED": "1",
}
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/evidence/gpu.md"
SECONDS = {"sft": 70.0, "dpo": 10.0, "grpo": 36.0}
"""Of each stage of the learning run."""
FAILED = 3
"""Exit status of a part that ended by an error of its own."""


def main():
    asked = arguments()
    asked.folder = asked.folder.resolve()
    if asked.table is not None:
        print(page_tables([asked.folder, *asked.table], asked.page))
        return
    asked.folder.mkdir(parents=True, exist_ok=True)
    if asked.worker:
        work(asked)
        return
    print(f"figures go to {asked.folder}", flush=True)
    parts = [part.strip() for part in asked.parts.split(",")]
    if asked.in_one:
        os.environ.update({**QUIET, **os.environ, "CLINALIGN_CACHE": str(aside(asked.folder, "cache"))})
        for part in [*(["draw"] if "f" in parts else []), *parts]:
            perform(part, asked, getattr(asked, f"limit_{part}", 60))
        return
    with ahead("draw" if "f" in parts else None, asked):
        for part in parts:
            supervise(part, asked)
    print((asked.folder / "table.md").read_text(encoding="utf-8"))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where figures and logs go")
    parser.add_argument("--parts", default=",".join(PARTS), help="which, in which order (default: all)")
    for part, seconds in PARTS.items():
        parser.add_argument(f"--limit-{part}", type=float, default=seconds, help=f"seconds (default: {seconds})")
    parser.add_argument("--kinds", default="grpo,dpo,sft", help="of part c")
    parser.add_argument("--only", default="", help="of part c: cells whose name has one of these in it")
    parser.add_argument("--only-forms", default="", help="of part b: forms with one of these in the name (flex,tower)")
    for stage, seconds in SECONDS.items():
        parser.add_argument(f"--seconds-{stage}", type=float, help=f"of part f (default: {seconds})")
    parser.add_argument("--short", action="store_true", help="of part f: few phantoms, and seconds for each stage")
    parser.add_argument("--table", nargs="*", type=Path, help="only writes the page's tables, from these folders too")
    parser.add_argument("--page", type=Path, default=PAGE, help="which page (default: docs/evidence/gpu.md)")
    parser.add_argument("--tiny", action="store_true", help="the toy model, whatever the machine")
    parser.add_argument("--in-one", action="store_true", help="all in this process: quick, and nothing is guarded")
    parser.add_argument("--commit", default="", help="of the code that is measured (default: git's, or its digest)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--left", type=float, help=argparse.SUPPRESS)
    return parser.parse_args()


def supervise(part, asked):
    """Runs a part's process within its limit; one that died is started again for what it had not yet begun."""
    figures = Figures(asked.folder, part)
    start, left = time.time(), getattr(asked, f"limit_{part}")
    for attempt in range(3):
        before = len(begun(asked.folder, part))
        how, took = run_worker(part, asked, left)
        left -= took
        if how in ("done", "failed"):  # what failed by itself would fail again
            break
        for name in begun(asked.folder, part):
            if name not in ended(asked.folder, part):
                figures.add(name, note=f"FAILED: its process {how}", status="failed")
                figures.begin(name, ended=True)
        if how == "ran out of time":
            break
        if len(begun(asked.folder, part)) == before and attempt:
            break
        if left < 15:
            break
    took = time.time() - start
    figures.add(f"part {part}", took, "s", "" if how == "done" else f"its process {how}: {last_line(asked.folder)}")


@contextlib.contextmanager
def ahead(part, asked):
    """A part without a GPU, at work beside the others: it draws the learning run's phantoms."""
    if part is None:
        yield
        return
    command, env = command_of(part, asked, 600)
    with (asked.folder / LOG).open("ab") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def command_of(part, asked, left):
    """The command of a part's process, and its environment."""
    command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:], "--worker", part, "--left", str(left)]
    env = {**QUIET, **os.environ, "CLINALIGN_CACHE": str(aside(asked.folder, "cache"))}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    return command, env


def run_worker(part, asked, left):
    """``done``, or what became of the process; and the seconds that it took behind its imports."""
    command, env = command_of(part, asked, left)
    ready = ready_file(asked.folder, part)
    ready.unlink(missing_ok=True)
    with (asked.folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=log, start_new_session=True, text=True
        )
        start = time.time()
        try:
            with reading(process, log):
                while process.poll() is None and time.time() < _deadline(ready, start, left):
                    time.sleep(min(0.2, left / 4))
            late = process.poll() is None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    took = time.time() - (ready.stat().st_mtime if ready.exists() else start)
    if late or took > left:  # or ended by itself, with what no time was left for undone
        return "ran out of time", took
    return {0: "done", FAILED: "failed"}.get(process.returncode, f"ended with {process.returncode}"), took


def _deadline(ready, start, left):
    return ready.stat().st_mtime + left if ready.exists() else start + IMPORTS_S


def ready_file(folder, part):
    """It is there once a part's imports are done."""
    return aside(folder, f"ready-{part}")


@contextlib.contextmanager
def reading(process, log):
    """Hands the process's lines on to the screen and to its log."""
    import threading

    def hand_on():
        for line in process.stdout:
            print(line, end="", flush=True)
            log.write(line.encode())
            log.flush()

    thread = threading.Thread(target=hand_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(timeout=1)


def last_line(folder):
    """Of the log."""
    lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else ""


def work(asked):
    """The part itself, in this process, which ends without any library's clean-up."""
    sys.path.insert(0, str(ROOT))
    whole = perform(asked.worker, asked, asked.left)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0 if whole else FAILED)


def imports(part):
    """What a part needs of the large libraries, loaded before its time counts."""
    import importlib

    if part == "draw":
        return
    for name in (
        "torch",
        "peft",
        "trl",
        "alignment.training.run",
        "alignment.training.grpo",
        "alignment.training.dpo",
        "alignment.training.sft",
    ):
        importlib.import_module(name)


def perform(part, asked, left):
    """Whether the part came to its end."""
    begun_at = time.time()
    imports(part)
    ready = ready_file(asked.folder, part)
    ready.parent.mkdir(parents=True, exist_ok=True)
    ready.touch()
    until = time.time() + left
    print(f"[{part}] imports: {time.time() - begun_at:.1f} s", flush=True)
    figures = Figures(asked.folder, part, until=until, done=begun(asked.folder, part))
    print(f"[{part}] started", flush=True)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            do(part, figures, asked, Path(scratch))
    except Exception as error:  # noqa: BLE001 - it becomes a line of the table
        figures.add(f"part {part}", note=f"FAILED: {one_line(error)}", status="failed", trace=trace(error))
        print(trace(error), file=sys.stderr, flush=True)
        return False
    return True


def facts(figures, asked):
    """Card, versions, commit and command, once a run: a run is one folder."""
    import torch
    from verify_environment import commit, versions

    if any(f["name"] == "card" for f in read(figures.folder)):
        return
    figures.add("card", torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")
    figures.add("versions", versions())
    figures.add("commit", commit(ROOT, asked.commit))
    given = sys.argv[2 : sys.argv.index("--worker") if "--worker" in sys.argv else None]
    figures.add("command", " ".join(["verify.py", "FOLDER", *given]))


def do(part, figures, asked, scratch):
    from verify_model import scale

    size = scale(tiny=asked.tiny)
    if part != "draw":
        facts(figures, asked)
    if part == "a":
        from verify_environment import environment

        environment(figures, size)
    elif part == "b":
        from verify_equal import equality

        equality(figures, size, scratch, asked.only_forms)
    elif part == "c":
        from verify_updates import roof_of, updates

        kinds = tuple(asked.kinds.split(","))
        updates(figures, size, scratch, kinds=kinds, only=asked.only, roof=roof_of(asked.folder))
    elif part == "d":
        from verify_updates import memory

        memory(figures, size, scratch)
    elif part == "e":
        from verify_environment import optional_kernels

        optional_kernels(figures, size)
    elif part == "draw":
        from verify_learning import draw

        draw(figures, size, short=asked.short)
    elif part == "f":
        from verify_learning import learning

        given = {stage: getattr(asked, f"seconds_{stage}") for stage in SECONDS}
        learning(figures, size, scratch, short=asked.short, seconds={s: v for s, v in given.items() if v is not None})
    else:
        raise ValueError(f"no part {part}; there are {', '.join(PARTS)}")


if __name__ == "__main__":
    main()
