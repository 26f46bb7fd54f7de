"""Do the tests notice small errors in the losses, measures and relations?

`python -m benchmarks.mutants --sample 300 --seed 1` copies the tree, changes the copy in one place after the other and
runs the tests that call the changed function, until one fails. It writes benchmarks/results/mutants.json and
docs/mutants.md; `--page` makes only the page. Why a survivor may survive stands in benchmarks/results/mutants.tsv.
"""

from __future__ import annotations

import argparse
import ast
import fnmatch
import gc
import json
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Generator
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from benchmarks.mutant_page import PAGE, RESULTS, page
from benchmarks.mutant_sessions import Session, Timed, in_child, pytest_session, silenced, times
from benchmarks.mutations import Mutant, mutants, mutated

ROOT = Path(__file__).parents[1]
DIRECTORIES = ("losses", "measures", "relations")
# Seconds of tests for one mutant, as they took unchanged under the trace, and when to give up.
BUDGET, OVERTIME = 20.0, 120.0


def chosen(timed: Timed, mutant: Mutant) -> list[str]:
    """Tests that call the function, or any of the file; the quick ones first, but not many of one test function."""
    place = f"{mutant.file}:{mutant.function}"
    cases: dict[str, int] = {}
    order = []
    for name, (seconds, places) in sorted(timed.items(), key=lambda t: t[1][0]):
        if place in places if mutant.function else any(p.startswith(mutant.file + ":") for p in places):
            test = name.split("[")[0]
            cases[test] = cases.get(test, 0) + 1
            order.append((cases[test] * max(seconds, 0.01), seconds, name))
    names, spent = [], 0.0
    for _, seconds, name in sorted(order):
        spent += seconds
        if spent > BUDGET:
            break
        names.append(name)
    return names


def put_in_place(source: str, mutant: Mutant) -> bool:
    """Give the function in memory the code of the mutant; False where it is not a function's code."""
    path = str(Path.cwd() / "src" / "nearfar" / mutant.file)
    codes = {}

    def walk(code: CodeType) -> None:
        for part in code.co_consts:
            if isinstance(part, CodeType):
                codes[part.co_qualname, part.co_firstlineno] = part
                walk(part)

    walk(compile(mutated(source, mutant.number), path, "exec", dont_inherit=True))
    found = False
    for one in gc.get_objects():
        if type(one) is FunctionType and one.__code__.co_filename == path:
            name = one.__code__.co_qualname
            if name == mutant.function:
                one.__code__ = codes[name, one.__code__.co_firstlineno]
                found = True
    return found


def _first_to_fail(session: Session, mutant: Mutant, source: str, names: list[str]) -> str:
    def work() -> str:
        return session.run(names) if put_in_place(source, mutant) else "cold"

    return str(in_child(work, OVERTIME)) if names else "cold"


def hot(todo: list[Mutant], sources: dict[str, str], timed: Timed) -> Generator[tuple[Mutant, Any], None, None]:
    """Run mutants of functions in children of one session that has collected all tests."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        silenced()
        out = os.fdopen(write, "w", buffering=1)

        def loop(session: Session) -> None:
            sound: dict[str, bool] = {}  # Whether a test passes without the mutant.
            for mutant in todo:
                names = [name for name in chosen(timed, mutant) if sound.get(name, True)]
                by = _first_to_fail(session, mutant, sources[mutant.file], names)
                while by in names and not sound.get(by):
                    sound[by] = not in_child(partial(session.run, [by]), OVERTIME)
                    if not sound[by]:
                        names.remove(by)
                        by = _first_to_fail(session, mutant, sources[mutant.file], names)
                print(json.dumps(by), file=out)

        try:
            pytest_session(loop, *_files(timed))
        finally:
            os._exit(0)
    os.close(write)
    try:
        with os.fdopen(read) as results:
            for mutant, line in zip(todo, results, strict=False):
                yield mutant, json.loads(line)
    finally:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)


def cold(mutant: Mutant, source: str, timed: Timed) -> Any:
    """Run a mutant from the import on."""
    names = chosen(timed, mutant)
    path = Path("src/nearfar", mutant.file)
    files = sorted({name.split("::")[0] for name in names})

    def work() -> str:
        sys.dont_write_bytecode = True
        return pytest_session(lambda session: session.run(names), *files).failed

    try:
        path.write_text(ast.unparse(mutated(source, mutant.number)))
        return in_child(work, OVERTIME) if names else ""
    finally:
        path.write_text(source)


def _files(timed: Timed) -> list[str]:
    return sorted({name.split("::")[0] for name in timed})


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutants", description=__doc__)
    parser.add_argument("--sample", type=int, default=300)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=math.inf, help="what a sample has by then is a smaller sample")
    parser.add_argument("--file", default="*", help="only files like losses/tri*")
    parser.add_argument("--engine", action="store_true", help="the engine's files as well")
    parser.add_argument("--again", action="store_true", help="only the survivors of the last run, which is not kept")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir(), "nearfar-mutants.json"))
    parser.add_argument("--page", action="store_true", help="only make the page of the last run")
    options = parser.parse_args()
    if options.page:
        PAGE.write_text(page(json.loads(RESULTS.read_text())))
        return
    sources = {str(p.relative_to(ROOT / "src/nearfar")): p.read_text() for p in (ROOT / "src/nearfar").rglob("*.py")}
    directories = (*DIRECTORIES, "engine") if options.engine else DIRECTORIES
    every = [
        mutant
        for file in sorted(sources)
        if file.split("/")[0] in directories and fnmatch.fnmatch(file, options.file)
        for mutant in mutants(file, sources[file])
    ]
    todo = every
    if options.again:
        survivors = {tuple(m["key"]) for m in json.loads(RESULTS.read_text())["mutants"] if m["by"] == ""}
        todo = [m for m in every if m.key in survivors]
    elif not options.all:
        todo = random.Random(options.seed).sample(every, min(options.sample, len(every)))
    with tempfile.TemporaryDirectory() as folder:
        copied_to(Path(folder))
        done = run(todo, sources, times(options.cache), options.minutes)
    if options.again:
        return
    result = {"seed": None if options.all else options.seed, "of": len(every), "mutants": done}
    RESULTS.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(result))


def copied_to(folder: Path) -> None:
    """Go on in a copy of the tree, whose code comes first."""
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder / "src")
    sys.path.insert(0, str(folder / "src"))
    import pytest  # noqa: F401  (once for all children)
    import torch

    torch.set_num_threads(1)


def run(todo: list[Mutant], sources: dict[str, str], timed: Timed, minutes: float = math.inf) -> list[dict[str, Any]]:
    """What kills each mutant: a test, "time", or "" for one that survives. Stops after some minutes."""
    killers: dict[Mutant, str] = {}
    start = time.monotonic()

    def note(mutant: Mutant, by: str) -> None:
        killers[mutant] = by
        if not by:
            print(f"alive: {mutant.file}:{mutant.line} {mutant.text}\n    {mutant.change}", flush=True)
        if len(killers) % 25 == 0:
            killed = sum(map(bool, killers.values()))
            print(f"{len(killers)} run, {killed} killed, {time.monotonic() - start:.0f} s", flush=True)

    running, later = hot(todo, sources, timed), []
    for mutant, by in running:
        if by in ("cold", "died"):
            later.append(mutant)
        else:
            note(mutant, by)
        if time.monotonic() - start > 60 * minutes:
            break
    running.close()
    for mutant in later:
        note(mutant, cold(mutant, sources[mutant.file], timed))
    print(f"{len(killers)} mutants in {time.monotonic() - start:.0f} s", flush=True)
    return [{"key": m.key, "line": m.line, "by": killers[m]} for m in sorted(killers)]


if __name__ == "__main__":
    main()
