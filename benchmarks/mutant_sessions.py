"""Tests in processes forked from one that has what takes long to import, and how long each test takes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

# Those that need no other process and no library that does not like to be forked.
TESTS = (
    "tests/contracts",
    "tests/losses",
    "tests/engine",
    *(f"tests/test_{name}.py" for name in ("measures", "relations", "weighed_relations", "public_api", "tape")),
    *(f"tests/torch/test_{name}.py" for name in ("autograd", "small", "vmap", "learnable", "proxies", "queue")),
    *(f"src/nearfar/{name}" for name in ("losses", "measures", "relations")),
)
OPTIONS = ("-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly", "-m", "not slow", "--tb=no")

Timed = dict[str, tuple[float, list[str]]]  # by test: seconds, and what functions it called


def in_child(work: Callable[[], Any], limit: float) -> Any:
    """What ``work`` returns in a forked process; "time" where it took too long, "died" where nothing came back."""
    read, write = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        silenced()
        try:
            with os.fdopen(write, "w") as out:
                json.dump(work(), out)
        finally:
            os._exit(0)
    os.close(write)
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(child, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, limit)
    start = time.monotonic()
    with os.fdopen(read) as out:
        text = out.read()
    signal.setitimer(signal.ITIMER_REAL, 0)
    os.waitpid(child, 0)
    if text:
        return json.loads(text)
    return "time" if time.monotonic() - start >= limit else "died"


def silenced() -> None:
    os.setsid()
    if "MUTANTS_LOUD" not in os.environ:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)


class Session:
    """A pytest session that does ``work`` in place of running its tests."""

    def __init__(self, work: Callable[[Session], object]) -> None:
        self.work, self.failed = work, "no session"

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A test failed."""
        if report.failed:
            self.failed = self.failed or report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        """A file cannot be imported."""
        if report.failed:
            self.failed = f"import of {report.nodeid}"

    def pytest_runtestloop(self, session: Any) -> bool:
        """In place of pytest's."""
        self.items = {item.nodeid: item for item in session.items}
        self.session = session
        if not session.testsfailed:
            self.failed = ""
            self.work(self)
        return True

    def run(self, names: list[str]) -> str:
        """The first of the tests that fails, or ""."""
        from _pytest.main import pytest_runtestloop

        self.session.items = [self.items[name] for name in names if name in self.items]
        with contextlib.suppress(self.session.Failed):
            pytest_runtestloop(self.session)
        return self.failed

    def time(self, names: list[str]) -> Timed:
        """Seconds of each test that passes, and the functions of ours that it calls."""
        inside = str(Path.cwd() / "src" / "nearfar") + "/"
        timed: Timed = {}
        for name in names:
            called: set[CodeType] = set()
            sys.settrace(lambda frame, event, value: called.add(frame.f_code))  # noqa: B023
            start = time.process_time()
            self.run([name])
            seconds = time.process_time() - start
            sys.settrace(None)
            places = {_place(c, inside) for c in called if c.co_filename.startswith(inside) and c.co_name != "<module>"}
            if not self.failed:
                timed[name] = round(seconds, 4), sorted(places)
            self.failed, self.session.shouldfail, self.session.testsfailed = "", False, 0
        return timed


def _place(code: CodeType, inside: str) -> str:
    return f"{code.co_filename.removeprefix(inside)}:{code.co_qualname.split('.<locals>')[0]}"


def pytest_session(work: Callable[[Session], object], *arguments: str) -> Session:
    import pytest

    session = Session(work)
    pytest.main([*OPTIONS, *arguments], plugins=[session])
    return session


def times(cache: Path) -> Timed:
    """Seconds and calls of every test; those that the cache has are not run again."""
    kept = json.loads(cache.read_text()) if cache.exists() else {}
    units = [p for t in TESTS for p in (sorted(Path(t).glob("test_*.py")) or [Path(t)])]
    marks = {str(p): hashlib.sha256(_text(p).encode()).hexdigest() for p in units}
    for path, mark in marks.items():
        if kept.get(path, {}).get("mark") == mark:
            continue
        start, known = time.monotonic(), kept.get(path, {}).get("tests", {})

        def work(path: str = path, known: Timed = known) -> Timed:
            got: Timed = {}

            def measure(session: Session) -> None:
                got.update({name: known[name] for name in session.items if name in known})
                got.update(session.time([name for name in session.items if name not in known]))

            pytest_session(measure, path)
            return got

        got = in_child(work, 1200.0)
        if not isinstance(got, dict):
            raise RuntimeError(f"{path}: {got}")
        kept[path] = {"mark": mark, "tests": got}
        print(f"{path}: {len(kept[path]['tests'])} tests, {time.monotonic() - start:.0f} s", flush=True)
        cache.write_text(json.dumps(kept))
    return {name: tuple(t) for path in marks for name, t in kept[path]["tests"].items()}


def _text(path: Path) -> str:
    return "".join(p.read_text() for p in (sorted(path.rglob("*.py")) if path.is_dir() else [path]))
