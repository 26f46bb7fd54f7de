"""The command: cases measured one after the other, shown as they come, written to a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from nearfar._errors import UsageError
from nearfar.app.files import shown, write_json
from nearfar.bench.cases import chosen
from nearfar.bench.judge import judged
from nearfar.bench.runner import machine, measured

ROUNDS, BUDGET = 3, 0.5


def bench(
    names: Sequence[str] = (),
    rounds: int = ROUNDS,
    quick: bool = False,
    out: Path | None = None,
    overwrite: bool = False,
    tell: Callable[[int, int, str], None] = lambda done, total, text: None,
    show: Callable[[dict[str, Any]], None] = lambda row: None,
) -> dict[str, Any]:
    """Measure cases and judge them.

    Args:
        names: Cases or groups; none: the group ``table``.
        rounds: How often each library has its turn.
        quick: Small batches and one round: does everything run?
        out: A JSON file to write, again after each case, so that an interrupted run keeps what it has.
        overwrite: Replace an earlier file.
        tell: Told how many measurements are done, of how many, and which one begins.
        show: Given each row as it is ready.

    Returns:
        Plain data: `machine` and `rows`.

    Raises:
        UsageError: An unknown name, or a file that is there already.
        ModuleNotFoundError: torch is not installed.
    """
    cases = chosen(names)
    if out is not None and out.exists() and not overwrite:
        raise UsageError(f"expected a new file, got {shown(out)}, which exists; name another or add --overwrite")
    if out is not None and not out.absolute().parent.is_dir():
        raise UsageError(f"expected a file in a folder that exists, got {shown(out)}; make the folder first")
    record: dict[str, Any] = {"machine": machine(), "rounds": 1 if quick else rounds, "quick": quick, "rows": []}
    steps, total = count(), record["rounds"] * sum(len(case.runs) for case in cases)
    for case in [case.quick() for case in cases] if quick else cases:
        row = judged(
            case,
            measured(case, record["rounds"], 0.0 if quick else BUDGET, lambda text: tell(next(steps), total, text)),
        )
        record["rows"].append(row)
        show(row)
        if out is not None:
            write_json(out, record)
    return record
