"""The folds as a table that fits 60 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

WIDTH = 60
TITLES = {
    "default": "default",
    "supcon": "SupCon",
    "contrastive": "contrastive",
    "softmax": "cross-entropy",
    "eigenfaces": "eigenfaces",
    "pixels": "raw pixels",
}


def words(result: Mapping[str, Any]) -> str:
    """Mean ± sd of the misses over the folds, Chopra's split beside, and the paired differences.

    Args:
        result: what `nearfar.app.folds.run_folds` returns.

    Returns:
        Lines of at most 60 columns.
    """
    found, count = result["summary"], len(result["folds"])
    table = _table("same pairs missed", "FMR 5 %", "FMR 1 %", "Chopra")
    known = found["methods"]  # a file read again has its keys sorted
    for name in dict.fromkeys([n for n in (*TITLES, *known) if n in known]):
        rates = known[name]
        last = f"{100 * rates['0.05']['last']:.1f}" if count == 8 else "–"
        table.add_row(TITLES.get(name, name), _mean(rates["0.05"]), _mean(rates["0.01"]), last)
    text = (
        f"\nAT&T faces, {count} folds of five people never seen,\n"
        "in %: mean ± sd; Chopra: the last fold, the split of 2005\n" + as_text(table)
    )
    if not found["differences"]:
        return text
    table = _table("difference at FMR 5 %", "points", "95 % interval", "")
    for d in found["differences"]:
        if d["fmr"] == "0.05":
            pair = f"{TITLES.get(d['method'], d['method'])} − {TITLES.get(d['other'], d['other'])}"
            span = f"{_signed(d['low'])} to {_signed(d['high'])}"
            table.add_row(pair, _signed(d["value"]), span, "*" if d["low"] > 0 or d["high"] < 0 else "")
    return text + as_text(table) + "* clear of zero\n"


def as_text(table: Table) -> str:
    """A table as plain lines of at most 60 columns."""
    console = Console(width=WIDTH, markup=False, highlight=False, emoji=False, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def _table(*heads: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for i, head in enumerate(heads):
        table.add_column(head, justify="right" if i else "left", no_wrap=True)
    return table


def _mean(number: Mapping[str, Any]) -> str:
    if number["sd"] is None:
        return f"{100 * number['mean']:.1f}"
    return f"{100 * number['mean']:.1f} ± {100 * number['sd']:.1f}"


def _signed(share: float) -> str:
    return f"{100 * share + 0.0:+.1f}".replace("-0.0", "+0.0").replace("-", "−")
