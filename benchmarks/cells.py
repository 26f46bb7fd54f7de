"""Every loss on every library in every dtype: ``python -m benchmarks.cells [--library NAME] [--loss NAME] [--page]``.

Each library runs in a process of its own, with the variables it wants. ``benchmarks/results/cells.json`` gets, for each
loss and cell, how many checks were declared and passed, which failed and which do not apply, with the reasons;
``docs/cells.md`` is made from it. With ``--library`` or ``--loss`` only those are run and the rest of the file stays;
``--page`` only writes the page.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nearfar as nf
from nearfar.testing.cells import Reference
from nearfar.testing.check import findings, planned
from nearfar.testing.libraries import DTYPES, LIBRARIES
from nearfar.testing.report import FAILED, NOT_APPLICABLE, PASSED

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "cells.json", ROOT / "docs" / "cells.md"

BASES = {"PairLoss", "FeatureLoss"}
# Those that have no default; every other loss of nearfar.losses is run as its defaults make it.
CONFIGURED: dict[str, Any] = {
    "LossSum": 0.5 * nf.CrossEntropyLoss() + nf.ContrastiveLoss(),
    "Matryoshka": nf.losses.Matryoshka(nf.SupConLoss(temperature=0.5), dims=(2, 5)),
}
# Their gradient holds a part of the value constant, as their papers do.
STOP_GRADIENT = {"BYOLLoss", "CircleLoss", "RankedListLoss"}
# XLA compiles with little effort, since each program runs a few times, and once for Keras on JAX and JAX itself.
LAZY = {
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    "JAX_COMPILATION_CACHE_DIR": str(Path(tempfile.gettempdir()) / "nearfar-cells-xla"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}


def losses() -> dict[str, Any]:
    """One configured loss for each name of ``nearfar.losses``."""
    names = [name for name in nf.losses.__all__ if name not in BASES]
    return {name: CONFIGURED[name] if name in CONFIGURED else getattr(nf.losses, name)() for name in names}


def declared(libraries: Iterable[str] = LIBRARIES) -> dict[str, int]:
    """How many checks each cell has, by ``"library dtype"``."""
    counts: dict[str, int] = {}
    for _, library, dtype in planned(list(libraries)):
        key = f"{library.name} {dtype}"
        counts[key] = counts.get(key, 0) + 1
    return counts


def row(name: str, loss: Any, library: str) -> dict[str, Any]:
    """One loss on one library: a record for each of its cells."""
    reference = Reference(loss, surrogate=name in STOP_GRADIENT)
    cells: dict[str, Any] = {}
    missing = LIBRARIES[library].missing()
    if missing:
        for check, _, dtype in planned([library]):
            _cell(cells, f"{library} {dtype}")["not applicable"][check.name] = missing
        return cells
    for finding in findings(loss, reference, [library], DTYPES):
        cell = _cell(cells, f"{library} {finding.dtype}")
        if finding.verdict == PASSED:
            cell[PASSED] += 1
        else:
            cell[finding.verdict][finding.check] = finding.text
    return cells


def _cell(cells: dict[str, Any], key: str) -> dict[str, Any]:
    return cells.setdefault(key, {"declared": declared()[key], PASSED: 0, FAILED: {}, NOT_APPLICABLE: {}})


def versions(library: str) -> str:
    """Of a library, as the process of its own sees it."""
    if LIBRARIES[library].missing():
        return str(LIBRARIES[library].missing())
    names = [library.removeprefix("keras-"), *(["keras"] if library.startswith("keras-") else [])]
    return ", ".join(f"{name} {getattr(sys.modules.get(name), '__version__', '?')}" for name in names)


def child(library: str, names: list[str], out: Path) -> None:
    """Run some losses on one library."""
    rows = {}
    for name in names:
        rows[name] = row(name, losses()[name], library)
        if "jax" in sys.modules:
            # Hundreds of compiled losses are more than a process can map.
            sys.modules["jax"].clear_caches()
        bad = sum(len(cell[FAILED]) for cell in rows[name].values())
        print(f"{library} {name}: {f'{bad} failed' if bad else 'ok'}", file=sys.stderr, flush=True)
    out.write_text(json.dumps({"version": versions(library), "rows": rows}))


def run(libraries: list[str], names: list[str]) -> None:
    """Run each library in a process of its own and merge what it found into the file."""
    record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"versions": {}, "rows": {}}
    for library in libraries:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "found.json"
            command = [sys.executable, "-m", "benchmarks.cells", "--child", library, str(out), *names]
            environment = {**os.environ, **LAZY, **LIBRARIES[library].environment}
            subprocess.run(command, check=True, cwd=ROOT, env=environment)
            found = json.loads(out.read_text())
        if library not in record["versions"] and set(names) != set(losses()):
            continue  # A library is in the table once all losses were run on it.
        record["versions"][library] = found["version"]
        for name, cells in found["rows"].items():
            record["rows"].setdefault(name, {}).update(cells)
        versions = {name: record["versions"][name] for name in LIBRARIES if name in record["versions"]}
        rows = {name: record["rows"][name] for name in losses() if name in record["rows"]}
        record = {"versions": versions, "rows": rows}
        RESULTS.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def problems(record: dict[str, Any]) -> list[str]:
    """Losses and cells that the file lacks, and rows that ran fewer checks than declared."""
    found = [
        f"{name} is missing; run python -m benchmarks.cells --loss {name}"
        for name in losses()
        if name not in record["rows"]
    ]
    for name, cells in record["rows"].items():
        for key, count in declared(record["versions"]).items():
            cell = cells.get(key, {"declared": 0, PASSED: 0, FAILED: {}, NOT_APPLICABLE: {}})
            ran = cell[PASSED] + len(cell[FAILED]) + len(cell[NOT_APPLICABLE])
            if not ran == cell["declared"] == count:
                found.append(
                    f"{name} ran {ran} of {count} checks on {key}; run python -m benchmarks.cells --loss {name}"
                )
    return found


def page(record: dict[str, Any]) -> str:
    """docs/cells.md."""
    libraries = list(record["versions"])
    cells = [(name, key, cell) for name, row in record["rows"].items() for key, cell in row.items()]
    passed, failed, void = (
        sum(c[PASSED] for *_, c in cells),
        sum(len(c[FAILED]) for *_, c in cells),
        sum(len(c[NOT_APPLICABLE]) for *_, c in cells),
    )
    lines = [
        "# Every loss, every library, every dtype",
        "",
        "Made by `python -m benchmarks.cells` from the checks of `nearfar.check_loss` ([new_loss.md](new_loss.md)). A",
        "number is how many checks passed in all dtypes of a library, of how many that apply. Of all the checks",
        f"{passed:,} passed, {failed:,} failed and {void:,} do not apply.",
        "",
        "| library | version | " + " | ".join(DTYPES) + " |",
        "|---" * (2 + len(DTYPES)) + "|",
        *(_library(record, name) for name in LIBRARIES),
        "",
        "| loss | " + " | ".join(libraries) + " |",
        "|---" * (1 + len(libraries)) + "|",
        *(
            f"| {name} | " + " | ".join(_of(row, lib) for lib in libraries) + " |"
            for name, row in record["rows"].items()
        ),
        "",
        "## What failed",
        "",
        *(_failures(cells) or ["Nothing."]),
        "",
        "## What does not apply, and why",
        "",
        *_reasons(cells),
    ]
    return "\n".join(lines) + "\n"


def _library(record: dict[str, Any], library: str) -> str:
    counts = [_sum(row.get(f"{library} {dtype}") for row in record["rows"].values()) for dtype in DTYPES]
    return f"| {library} | {record['versions'].get(library, 'not run')} | {' | '.join(counts)} |"


def _of(row: dict[str, Any], library: str) -> str:
    return _sum(row.get(f"{library} {dtype}") for dtype in DTYPES)


def _sum(cells: Any) -> str:
    there = [cell for cell in cells if cell]
    good, bad = sum(cell[PASSED] for cell in there), sum(len(cell[FAILED]) for cell in there)
    return "–" if not good + bad else f"{good:,}" if not bad else f"**{good:,} of {good + bad:,}**"


def _failures(cells: list[Any]) -> list[str]:
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for name, key, cell in cells:
        for check, text in cell[FAILED].items():
            found.setdefault((name, check), []).append((key, text))
    return [
        f"- {name}, {check} ({', '.join(key for key, _ in where)}): {where[0][1]}"
        for (name, check), where in found.items()
    ]


def _reasons(cells: list[Any]) -> list[str]:
    found: dict[str, list[tuple[str, str]]] = {}
    for name, _, cell in cells:
        for check, reason in cell[NOT_APPLICABLE].items():
            found.setdefault(reason, []).append((name, check))
    lines = ["| reason | losses | checks | times |", "|---|---|---|---|"]
    for reason, where in sorted(found.items(), key=lambda pair: -len(pair[1])):
        names, checks = list(dict.fromkeys(n for n, _ in where)), list(dict.fromkeys(c for _, c in where))
        lines.append(f"| {reason} | {_few(names)} | {_few(checks)} | {len(where):,} |")
    return lines


def _few(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{len(names)} of them"


def main() -> None:
    """See the module's docstring."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[4:], Path(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description="Run every loss in every cell.")
    parser.add_argument("--library", action="append", choices=list(LIBRARIES))
    parser.add_argument("--loss", action="append", choices=list(losses()))
    parser.add_argument("--page", action="store_true", help="only write the page from the file")
    asked = parser.parse_args()
    if not asked.page:
        run(asked.library or list(LIBRARIES), asked.loss or list(losses()))
    PAGE.write_text(page(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
