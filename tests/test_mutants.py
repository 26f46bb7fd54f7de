"""The tool that changes code changes what it says, once, and leaves words alone; its page counts right."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = '''"""A docstring - with 1 sign."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import nothing

Number = int | float


def halved(x: int, least: int = 3) -> float:
    """Half of x + 1."""
    if x < least:
        raise ValueError(f"expected {least - 1} < x, got {x - 1}" + "!")
    x -= 1
    return where(x > 0, -x / 2, 0.5)
'''
CHANGES = [
    "3 → 4",
    "x < least → x <= least",
    "x < least → x >= least",
    "x -= 1 → pass",
    "x -= 1 → x += 1",
    "1 → 2",
    "return where(x > 0, -x / 2, 0.5) → return None",
    "where(x > 0, -x / 2, 0.5) → where(x > 0, 0.5, -x / 2)",
    "x > 0 → x >= 0",
    "x > 0 → x <= 0",
    "0 → 1",
    "-x / 2 → -x * 2",
    "-x → x",
    "2 → 3",
    "0.5 → 1.5",
]


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import mutant_page, mutations

    return mutant_page, mutations


def test_the_changes(tool):
    found = tool[1].mutants("f.py", SOURCE)
    assert [m.change for m in found] == CHANGES
    assert [m.function for m in found] == [""] + ["halved"] * 14
    assert {(m.line, m.text) for m in found[3:6]} == {(15, "x -= 1")}


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_one_change_is_made(tool, number):
    before, after = (ast.unparse(t).splitlines() for t in (ast.parse(SOURCE), tool[1].mutated(SOURCE, number)))
    changed = [(b, a) for b, a in zip(before, after, strict=True) if b != a]
    old, new = CHANGES[number].split(" → ")
    assert len(changed) == 1
    assert changed[0][0].replace(old, new, 1).strip() == changed[0][1].strip()


def test_the_interval_is_wilsons(tool):
    assert tool[0].wilson(9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)


def test_the_page_is_that_of_the_file(tool):
    result = json.loads(tool[0].RESULTS.read_text())
    assert tool[0].PAGE.read_text() == tool[0].page(result), "run python -m benchmarks.mutants --page"
    assert all(tuple(m["key"]) in tool[0].reasons() for m in result["mutants"] if not m["by"]), "a survivor, no reason"
