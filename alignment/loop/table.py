"""The table of a loop, as the terminal shows it."""

import numpy as np
from rich.console import Console
from rich.table import Table

from alignment.loop.effects import Effect


def print_table(effects: list[Effect], seeds: int) -> None:
    """Prints one line a comparison and metric."""
    over = "patients" if seeds == 1 else f"{seeds} seeds"
    table = Table("comparison", "metric", "before", "after", f"change (95 % over {over})", title="held-out patients")
    for e in effects:
        table.add_row(f"{e.before_name} -> {e.after_name}", e.metric, _number(e.before), _number(e.after), _change(e))
    Console(width=120).print(table)


def _change(effect: Effect) -> str:
    if effect.note:
        return effect.note
    if np.isnan(effect.change) or np.isnan(effect.low):
        return _number(effect.change, "+.3f")
    return f"{effect.change:+.3f} ({effect.low:+.3f} to {effect.high:+.3f})"


def _number(value: float, form: str = ".3f") -> str:
    return "-" if np.isnan(value) else format(value, form)
