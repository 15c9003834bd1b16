"""How a command ends on a user's mistake: one sentence for each fault on standard error, exit code 2, no traceback.

Left out: mistakes that are ours. What is neither an ``InputError`` nor an error of the operating system goes through.
"""

import errno
import os
import sys
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from alignment.distributed.ranks import end_with_the_others, tells
from rewards.config.input_error import InputError
from rewards.config.printable import escaped

console = Console(stderr=True)


class Commands(TyperGroup):
    """The commands, whose faults are told instead of raised."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments, none of which holds what no path or name can hold."""
        if any("\0" in arg for arg in args):
            raise typer.BadParameter("an argument holds a null character, which no path or name does. Leave it out.")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> object:
        """Runs the command that is asked for; of several ranks none ends before the others."""
        try:
            result = super().invoke(ctx)
            end_with_the_others(0)
            return result
        except InputError as fault:
            tell(str(fault))
        except BrokenPipeError:  # who read the output has seen enough, such as `head -1`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
            raise typer.Exit(1) from None
        except OSError as fault:
            if fault.errno is None:  # no word of the operating system: a library's own, and so ours to translate
                raise
            tell(sentence(fault))
        end_with_the_others(2)
        raise typer.Exit(2)


def tell(faults: str) -> None:
    """Each line of the faults as an error of its own; once, where several processes have found them."""
    for line in faults.splitlines() if tells(faults) else ():
        console.print(f"[red]error:[/red] {escape(escaped(line))}", highlight=False, soft_wrap=True, emoji=False)


def sentence(fault: OSError) -> str:
    """What the operating system refused, with its path and a cure."""
    cures = {
        errno.ENOENT: "Check the path.",
        errno.EISDIR: "Name a file in it.",
        errno.ENOTDIR: "A part of the path is a file; name a folder there.",
        errno.EACCES: "Ask for the right to it, or name another place.",
        errno.EPERM: "Ask for the right to it, or name another place.",
        errno.EROFS: "Name a place that can be written.",
        errno.ENOSPC: "Free some space, or name another place.",
        errno.EDQUOT: "Free some space, or name another place.",
        errno.ENAMETOOLONG: "Name a shorter path.",
        errno.EEXIST: "Name another place, or remove what is there.",
        errno.ENOTEMPTY: "Name another place, or remove what is there.",
    }
    cure = cures.get(fault.errno or 0, "Name another place.")
    reason = (fault.strerror or str(fault)).strip().rstrip(".")
    file = f"{os.fsdecode(fault.filename)}: " if isinstance(fault.filename, str | bytes) else ""
    return f"{file}{reason[:1].lower()}{reason[1:]}. {cure}"
