"""Results on standard output: two columns that fit a narrow terminal, or strict JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any


def write(text: str) -> None:
    """Write to standard output; a reader that has gone away ends the process quietly.

    Args:
        text: what to write.

    Raises:
        SystemExit: 141, as SIGPIPE would end it, if nobody reads any more.

    Example:
        >>> from nearfar.app.tables import write
        >>> write("same")
        same
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered goes nowhere
        raise SystemExit(141) from None


def print_json(result: object) -> None:
    """Write strict JSON: finite numbers, any file name escaped.

    Args:
        result: dicts, lists, strings, finite numbers, booleans and None.

    Example:
        >>> from nearfar.app.tables import print_json
        >>> print_json({"same": True})
        {
          "same": true
        }
    """
    write(json.dumps(result, indent=2, allow_nan=False) + "\n")


def print_table(pairs: Iterable[tuple[str, str]]) -> None:
    """Write names and values in two columns, folded to the width of the terminal.

    Args:
        pairs: (name, value) for each row.

    Example:
        >>> from nearfar.app.tables import print_table
        >>> print_table([("classes", "40"), ("pictures", "400")])
        classes   40
        pictures  400
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, value)
    console = Console(markup=False, highlight=False, emoji=False)
    with console.capture() as captured:
        console.print(table)
    write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def rows(result: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Flatten a nested result; a number with its interval is one row, long lists are left to JSON.

    Args:
        result: nested dicts; a dict with the key `value` is a number with `low`, `high`, `unit`, `n`.
        prefix: put before each name.

    Returns:
        (name, value) for each row.

    Example:
        >>> from nearfar.app.tables import rows
        >>> rows({"fnmr": {"value": 0.125, "low": 0.1, "high": 0.15, "n": 80}, "seed": 3})
        [('fnmr', '0.125 (0.1 to 0.15), n = 80'), ('seed', '3')]
    """
    table: list[tuple[str, str]] = []
    for key, value in result.items():
        name = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, Mapping) and "value" in value:
            table.append((name, _number(value)))
        elif isinstance(value, Mapping):
            table += rows(value, f"{name} ")
        elif isinstance(value, list | tuple) and len(value) > 4:
            table.append((name, f"{len(value)} entries (--json shows them)"))
        else:
            table.append((name, _words(value)))
    return table


def evaluation_rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Put an evaluation in words: for each method its errors and its retrieval, with intervals.

    Args:
        result: what `nearfar.app.evaluation` returns.

    Returns:
        (method, numbers) for each row.

    Example:
        >>> from nearfar.app.tables import evaluation_rows
        >>> number = {"value": 0.125, "low": 0.1, "high": 0.15}
        >>> methods = [{"title": "pixels", "fnmr_at_fmr": {"0.05": number}, "precision_at_1": number}]
        >>> print(evaluation_rows({"methods": methods})[0][1])
        FNMR 12.5 % (10.0 to 15.0) at FMR 5 %
        P@1 12.5 % (10.0 to 15.0)
    """
    table: list[tuple[str, str]] = []
    for method in result["methods"]:
        rates = sorted(method["fnmr_at_fmr"].items(), key=lambda entry: -float(entry[0]))
        said = [f"FNMR {_percent(number)} at FMR {100 * float(rate):g} %" for rate, number in rates]
        names = {"precision_at_1": "P@1", "map_at_r": "MAP@R"}
        said += [f"{name} {_percent(method[key])}" for key, name in names.items() if key in method]
        table.append((str(method["title"]), "\n".join(said)))
    return table


def _percent(number: Mapping[str, Any]) -> str:
    """A share and its interval in percent."""
    if number.get("value") is None:
        return "unknown"
    text = f"{100 * number['value']:.1f} %"
    if number.get("low") is None or number.get("high") is None:
        return text
    return f"{text} ({100 * number['low']:.1f} to {100 * number['high']:.1f})"


def _words(value: object) -> str:
    """One value for a person."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _number(entry: Mapping[str, Any]) -> str:
    """A number with its interval, unit and count."""
    text = _words(entry["value"])
    if entry.get("low") is not None and entry.get("high") is not None:
        text += f" ({_words(entry['low'])} to {_words(entry['high'])})"
    text += f" {entry['unit']}" if entry.get("unit") else ""
    return text + (f", n = {entry['n']}" if entry.get("n") is not None else "")
