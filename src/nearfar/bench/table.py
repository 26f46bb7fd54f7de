"""Measurements as lines of at most 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from nearfar.bench.catalogue import DENSE, FLOOR, LOSSES, OURS

HEAD = f"{'case':24}{'time':>8}{'min–max':>13}{'/floor':>7}{'×dense':>7}{'×peer':>7}{'MB':>6}{'bars':>6}\n"
GROWTH_HEAD = f"{'case':28}{'slope of time':>16}{'of memory':>12}{'largest':>10}{'MB':>7}{'bars':>6}\n"
LEGEND = """\
Medians. /floor: our time over that of three matrix products of the same size;
×dense, ×peer: how many times our time dense autograd and the library take;
MB: our peak of memory above the inputs; bars: how many are met, of how many.
"""


def head(row: Mapping[str, Any]) -> str:
    """The line of titles for a row like this one."""
    return GROWTH_HEAD if "slopes" in row else HEAD


def line(row: Mapping[str, Any]) -> str:
    """One case in one line, with what is missing in words below it.

    Args:
        row: What `judged` gave.

    Example:
        >>> from nearfar.bench.table import line
        >>> seconds = {"nearfar": {"median": 0.32, "low": 0.31, "high": 0.37}}
        >>> row = {"case": "supcon-8192", "loss": "supcon", "seconds": seconds, "ratio": {}, "missing": {}, "bars": []}
        >>> print(line({**row, "megabytes": {}}), end="")
        supcon-8192               0.32 s    0.31–0.37      –      –      –     –     –
    """
    words = "".join(_folded(f"without {label}: {reason}") for label, reason in row["missing"].items())
    if not row["seconds"]:
        return f"{row['case']}\n{_folded(next(iter(row['missing'].values())))}"
    if "slopes" in row:
        return _growth(row) + words
    seconds, ratio = row["seconds"].get(OURS), row["ratio"]
    if seconds is None:
        return f"{row['case']}\n{words}"
    factor = _unit(seconds["median"])[1]
    spread = f"{three(seconds['low'] * factor)}–{three(seconds['high'] * factor)}"
    floor = ratio.get(FLOOR, {}).get("median")
    cells = [
        f"{row['case']:24}{time(seconds['median']):>8}{spread:>13}",
        f"{three(None if floor is None else 1 / floor):>7}{three(ratio.get(DENSE, {}).get('median')):>7}",
        f"{three(ratio.get(LOSSES[row['loss']].peer, {}).get('median')):>7}",
        f"{_megabytes(row['megabytes'].get(OURS)):>6}{_bars(row):>6}\n",
    ]
    return "".join(cells) + words


def _folded(text: str, indent: str = "  ") -> str:
    return textwrap.fill(text, 80, initial_indent=indent, subsequent_indent=f"{indent}  ") + "\n"


def _growth(row: Mapping[str, Any]) -> str:
    slopes = {key: "–" if value is None else f"{value:.2f}" for key, value in row["slopes"].items()}
    largest = max(row["seconds"], key=int)
    spent = time(row["seconds"][largest]["median"])
    memory = _megabytes(row["megabytes"].get(largest))
    return f"{row['case']:28}{slopes['seconds']:>16}{slopes['megabytes']:>12}{spent:>10}{memory:>7}{_bars(row):>6}\n"


def verdicts(rows: list[dict[str, Any]]) -> str:
    """The bars that were not met, one a line, and how many were.

    Args:
        rows: What `judged` gave.
    """
    bars = [(row["case"], bar) for row in rows for bar in row["bars"]]
    told = [(name, bar) for name, bar in bars if bar["met"] is not None]
    lines = [
        _folded(f"missed {name}: {bar['wanted']}, got {three(bar['got'])}", "") for name, bar in told if not bar["met"]
    ]
    met = sum(bar["met"] for _, bar in told)
    unknown = f", {len(bars) - len(told)} not judged" if len(told) < len(bars) else ""
    return "".join(lines) + (f"{met} of {len(told)} bars met{unknown}\n" if bars else "")


def three(value: float | None) -> str:
    """Three digits that count, or a dash.

    Example:
        >>> from nearfar.bench.table import three
        >>> three(1234.5), three(0.04567), three(12.0), three(None)
        ('1234', '0.0457', '12', '–')
    """
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def time(seconds: float) -> str:
    """A time for people.

    Example:
        >>> from nearfar.bench.table import time
        >>> time(0.0123), time(2.5)
        ('12.3 ms', '2.5 s')
    """
    unit, factor = _unit(seconds)
    return f"{three(seconds * factor)} {unit}"


def _unit(seconds: float) -> tuple[str, float]:
    return ("s", 1.0) if seconds >= 0.1 else ("ms", 1e3)


def _megabytes(entry: Mapping[str, float] | None) -> str:
    return "–" if entry is None else f"{entry['high']:.{0 if entry['high'] >= 10 else 1}f}"


def _bars(row: Mapping[str, Any]) -> str:
    told = [bar["met"] for bar in row["bars"] if bar["met"] is not None]
    return f"{sum(told)}/{len(row['bars'])}" if row["bars"] else "–"
