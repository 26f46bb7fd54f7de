"""Running a case: a process a measurement, the libraries in turns, medians and spreads."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from nearfar.bench.cases import Case, Run
from nearfar.bench.catalogue import LOSSES, OPEN_CLIP, OURS, PML

D = 128
TIME_LIMIT = 900
Row = dict[str, Any]


def machine() -> dict[str, Any]:
    """What the numbers belong to: processor, threads, versions, how busy the machine was.

    Raises:
        ModuleNotFoundError: torch is not installed.

    Example:
        >>> from nearfar.bench import machine
        >>> sorted(machine())
        ['date', 'load', 'memory_gb', 'processor', 'python', 'system', 'threads', 'versions']
    """
    import torch

    from nearfar.bench.libraries import installed

    packages = ("nearfar", "torch", "numpy", PML, OPEN_CLIP)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else None
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "memory_gb": None if pages is None else round(pages / 2**30, 1),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {name: installed(name) for name in packages},
    }


def measured(case: Case, rounds: int, budget: float, tell: Callable[[str], None] = lambda text: None) -> Row:
    """Measure a case.

    Args:
        case: What.
        rounds: How often each library has its turn.
        budget: Seconds of timed passes a turn; one pass at least.
        tell: Told what is being run.

    Returns:
        Plain data: `seconds`, `megabytes` and `ratio` (its time over ours, round by round) by run, each with its
        median and range; `missing` says in words what is not there.
    """
    row: Row = {"case": case.name, "groups": list(case.groups), "loss": case.loss, "n": case.n, "d": D}
    missing = {label: words for label, run in case.runs.items() if (words := _absent(run))}
    results: dict[str, list[Row]] = {label: [] for label in case.runs if label not in missing}
    if any(case.runs[label].library == OURS for label in missing):
        return {**row, "missing": missing, "seconds": {}, "megabytes": {}, "ratio": {}}
    for turn in range(rounds):
        for label in [label for label in results if label not in missing]:
            tell(f"{case.name}: {label}, round {turn + 1} of {rounds}")
            result = _in_a_process(case.runs[label], budget)
            if isinstance(result, str):
                missing[label] = result
                results[label] = []
            else:
                results[label].append(result)
    seconds = {label: [s for turn in turns for s in turn["seconds"]] for label, turns in results.items()}
    memory = {label: [turn["megabytes"] for turn in turns] for label, turns in results.items()}
    medians = {label: [median(turn["seconds"]) for turn in turns] for label, turns in results.items()}
    ratio = {
        label: [theirs / ours for theirs, ours in zip(turns, medians[OURS], strict=True)]
        for label, turns in medians.items()
        if label != OURS and turns and medians.get(OURS)
    }
    return {
        **row,
        "missing": missing,
        "seconds": {label: _spread(values) for label, values in seconds.items() if values},
        "megabytes": {label: _spread(values) for label, values in memory.items() if values and None not in values},
        "ratio": {label: _spread(values) for label, values in ratio.items()},
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "low": min(values), "high": max(values), "count": len(values)}


def _absent(run: Run) -> str | None:
    """Why this run cannot be, in words."""
    import nearfar as nf
    from nearfar.bench.libraries import installed

    needs = LOSSES[run.loss].needs
    if run.library == OURS and not hasattr(nf, needs):
        return f"nearfar has no {needs} yet"
    if run.library in (PML, OPEN_CLIP) and installed(run.library) is None:
        return f"{run.library} is not installed"
    return None


def _in_a_process(run: Run, budget: float) -> Row | str:
    """What a new process measured, or in words why it did not."""
    numbers = [str(run.n), str(D), str(budget)]
    command = [sys.executable, "-m", "nearfar.bench.child", run.library, run.loss, *numbers]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        return f"took longer than {TIME_LIMIT} s"
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        return f"failed with code {done.returncode}: {said[-1]}"
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _processor() -> str:
    """The processor's name."""
    about = Path("/proc/cpuinfo")
    for line in about.read_text().splitlines() if about.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
