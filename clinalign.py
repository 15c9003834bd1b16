"""Where the command ``clinalign`` begins: it sees whether its packages are its own before it imports any of them.

Another distribution may install a top-level package of the same name, as Hugging Face's alignment-handbook does with
``alignment``. pip lets the later one write over the files of the earlier, without a word, and takes them away with
either; a file ``rewards.py`` in one's own folder stands in the way too. So nothing but the standard library is imported
here. Left out: a file of the packages that was changed by hand.
"""

import csv
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
PACKAGES = ("alignment", "data_builders", "rewards")
AGAIN = "install clinalign again (pip install --force-reinstall --no-deps, of the same wheel)"


def main() -> None:
    """Runs the command line; exit code 2 and one sentence where a package of another stands in its way."""
    fault = name_clash()
    is_first = os.environ.get("RANK", "0") == "0"
    if fault is None:
        if is_first and (owners := neighbours()):
            sys.stderr.write(f"warning: {owners}\n")
        from alignment.cli.app import main as run

        return run()
    if is_first:
        sys.stderr.write(f"error: {fault}\n")
    sys.exit(2)


def name_clash() -> str | None:
    """What stands in the place of a package of clinalign's, and the cure; None where all are its own."""
    record = _record()
    return next((fault for name in PACKAGES if (fault := _fault_of(name, record))), None)


def explained(missing: ImportError) -> ImportError:
    """The error to raise for one in importing a package: a clash of names where there is one, else the error itself."""
    clash = name_clash()
    return missing if clash is None else ImportError(clash)


def neighbours() -> str | None:
    """Who installs files into clinalign's packages, all of which are whole yet; None where nobody does."""
    record = _record()
    for name in PACKAGES if record else ():
        own = {path.split("/")[1] for path in record if path.startswith(f"{name}/")}
        others = [e.name for e in os.scandir(HERE / name) if e.name.endswith(".py") and e.name not in own]
        if others and (owner := _owner(name)):
            return (
                f"{owner} installs a package '{name}' too ({', '.join(sorted(others)[:3])}): whichever is installed or "
                "removed next breaks the other. Give each an environment of its own."
            )
    return None


def _fault_of(name: str, record: dict[str, str]) -> str | None:
    own = HERE / name / "__init__.py"
    if not own.is_file():
        return (
            f"{own}: is missing. It goes where another distribution with a package '{name}', such as "
            f"{_owner(name) or 'alignment-handbook'}, is uninstalled. To mend it, {AGAIN}."
        )
    spec = find_spec(name)
    first = Path(spec.origin) if spec and spec.origin else None
    if first is None or not first.exists() or not first.samefile(own):
        return _shadowed(name, first)
    size = record.get(f"{name}/__init__.py")
    if size and int(size) != own.stat().st_size and (owner := _owner(name)):
        return (
            f"{own}: was written over by {owner}, which installs a package '{name}' too. Uninstall it, then {AGAIN}; "
            "give each an environment of its own."
        )
    return None


def _shadowed(name: str, first: Path | None) -> str:
    if owner := _owner(name):
        return (
            f"{first or name}: is of {owner}, which installs a package '{name}' too, and Python finds it before "
            f"clinalign's. Uninstall it, or give each an environment of its own."
        )
    return f"{first or name}: Python finds it before clinalign's package '{name}'. Rename it, or start elsewhere."


def _record() -> dict[str, str]:
    """The files of the installed wheel with their sizes, as pip wrote them down; nothing in a checkout."""
    files = [*HERE.glob("clinalign-*.dist-info/RECORD")]
    if not files:
        return {}
    with files[0].open(encoding="utf-8", newline="") as lines:
        return {path: size for path, _, size in csv.reader(lines)}


def _owner(name: str) -> str | None:
    """The other distribution that installs a package of this name, with its version. Reads all of them: slow."""
    return next(_owners(name), None)


def _owners(name: str) -> Iterator[str]:
    from importlib.metadata import distributions  # which takes longer to load than all that is done without it

    for distribution in distributions():
        if distribution.name.lower() != "clinalign":
            files, tops = distribution.read_text("RECORD"), distribution.read_text("top_level.txt")
            if f"\n{name}/" in f"\n{files or ''}" or name in (tops or "").split():
                yield f"{distribution.name} {distribution.version}"


if __name__ == "__main__":
    main()
