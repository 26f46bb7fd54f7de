"""Losses beside pytorch-metric-learning and the floor: ``python -m benchmarks.losses [--out FILE] [--rounds R]``.

The libraries take turns, a process each, and the ratio is that of the medians over the turns; the floor is three
matrix products of the table's size. Prints a table and writes the numbers with machine and versions.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

D = 128
CASES = (("SupCon", 8192), ("Contrastive", 8192), ("Triplet, all", 1024), ("NT-Xent", 256))
LIBRARIES = ("nearfar", "pytorch-metric-learning", "floor")


def run(case: str, library: str, n: int, repeats: int) -> dict[str, Any]:
    """One process."""
    command = [sys.executable, "-m", "benchmarks.cases", case, library, str(n), str(D), str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(case: str, n: int, rounds: int) -> dict[str, Any]:
    """All libraries in turn."""
    seconds: dict[str, list[float]] = {library: [] for library in LIBRARIES}
    memory: dict[str, float] = {}
    for _ in range(rounds):
        for library in LIBRARIES:
            result = run(case, library, n, 3)
            seconds[library] += result["seconds"]
            memory[library] = max(memory.get(library, 0.0), result["megabytes"])
    medians = {library: statistics.median(values) for library, values in seconds.items()}
    return {
        "case": case,
        "n": n,
        "d": D,
        "median_seconds": medians,
        "range_seconds": {library: [min(values), max(values)] for library, values in seconds.items()},
        "peak_megabytes": memory,
        "times_faster": medians["pytorch-metric-learning"] / medians["nearfar"],
        "times_floor": medians["nearfar"] / medians["floor"],
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/losses.json"))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{'case':14}{'N':>6}{'nearfar':>10}{'peer':>10}{'faster':>9}{'/ floor':>9}{'MB':>7}{'peer MB':>9}")
    rows = []
    for case, n in CASES:
        row = compare(case, n, options.rounds)
        rows.append(row)
        seconds, memory = row["median_seconds"], row["peak_megabytes"]
        ours, theirs = seconds["nearfar"], seconds["pytorch-metric-learning"]
        print(
            f"{case:14}{n:6}{ours:9.3f}s{theirs:9.3f}s{row['times_faster']:8.1f}×{row['times_floor']:8.1f}×"
            f"{memory['nearfar']:7.0f}{memory['pytorch-metric-learning']:9.0f}",
            flush=True,
        )
    packages = {name: version(name) for name in ("torch", "numpy", "pytorch-metric-learning")}
    machine = {"processor": platform.processor() or platform.machine(), "python": platform.python_version()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"machine": machine, "versions": packages, "rows": rows}, indent=1) + "\n")
    print(f"peer: pytorch-metric-learning {packages['pytorch-metric-learning']}; floor: 3 products; {options.out}")


if __name__ == "__main__":
    main()
