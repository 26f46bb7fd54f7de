"""Every Python block of the README and the documents runs, top to bottom, in an empty folder."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^(?P<indent>[ \t]*)```python[^\n]*\n(?P<code>.*?)^(?P=indent)```", re.M | re.S)


def blocks(text):
    """Line number and code of each Python block, without the indentation of a list."""
    for match in BLOCK.finditer(text):
        indent = match["indent"]
        lines = [line.removeprefix(indent) for line in match["code"].splitlines()]
        yield text[: match.start()].count("\n") + 2, "\n".join(lines) + "\n"


def run(text, name):
    """Run the blocks of a page one after the other in one namespace; a session with ``>>>`` is compared."""
    names: dict[str, object] = {"__name__": "__page__"}
    count = 0
    for line, code in blocks(text):
        count += 1
        if ">>> " in code:
            test = doctest.DocTestParser().get_doctest(code, names, name, name, line)
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
            runner.run(test, clear_globs=False)
            assert runner.failures == 0, f"{name}:{line}"
            names.update(test.globs)
        else:
            exec(compile("\n" * (line - 1) + code, name, "exec", dont_inherit=True), names)
    return count


@pytest.mark.parametrize("page", PAGES, ids=[str(p.relative_to(ROOT)) for p in PAGES])
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    count = len(re.findall(r"^[ \t]*```python", text, re.M))
    if "init_process_group" not in text:
        assert run(text, str(page.relative_to(ROOT))) == count
        return
    # Taking down a process group can wait for ever on its own thread: in a process that ends without doing so.
    command = [sys.executable, str(ROOT / "tests" / "test_documents.py"), str(page)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stdout.split()[-1:]) == (0, [str(count)]), done.stderr


def test_the_check_can_fail():
    page = "```python\nx = 1\n```\n\n- item\n\n  ```python\n  assert x == 2\n  ```\n"
    with pytest.raises(AssertionError):
        run(page, "page")
    with pytest.raises(AssertionError):
        run("```python\n>>> 1 + 1\n3\n```\n", "page")
    assert run(page.replace("== 2", "== 1"), "page") == 2


if __name__ == "__main__":
    import os

    print(run(Path(sys.argv[1]).read_text(encoding="utf-8"), sys.argv[1]), flush=True)  # noqa: T201
    os._exit(0)
