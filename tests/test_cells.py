"""The table of cells is whole: every loss, every declared check, and the page made from the file."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def cells(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import cells

    return cells


@pytest.fixture
def record(cells):
    return json.loads(cells.RESULTS.read_text())


def test_no_row_is_short(cells, record):
    assert not cells.problems(record)
    assert {"numpy", "torch"} <= set(record["versions"])


def test_the_page_is_that_of_the_file(cells, record):
    assert cells.PAGE.read_text() == cells.page(record), f"run {sys.executable} -m benchmarks.cells --page"


def test_a_short_row_and_a_missing_loss_are_noticed(cells, record):
    short = copy.deepcopy(record)
    short["rows"]["SupConLoss"]["torch float32"]["passed"] -= 1
    assert any("SupConLoss ran" in text and "torch float32" in text for text in cells.problems(short))
    less = copy.deepcopy(record)
    cell = less["rows"]["SupConLoss"]["torch float32"]
    cell["passed"], cell["declared"] = cell["passed"] - 1, cell["declared"] - 1
    assert any("SupConLoss ran" in text for text in cells.problems(less))
    gone = copy.deepcopy(record)
    del gone["rows"]["TripletLoss"]
    assert any("TripletLoss is missing" in text for text in cells.problems(gone))
    del short["rows"]["SupConLoss"]["numpy float16"]
    assert any("numpy float16" in text for text in cells.problems(short))


def test_a_failure_is_shown(cells, record):
    bad = copy.deepcopy(record)
    bad["rows"]["SupConLoss"]["torch float32"]["failed"]["geometry"] = "expected 1, got 2"
    assert "SupConLoss, geometry (torch float32): expected 1, got 2" in cells.page(bad)


def test_a_row_is_run_as_declared(cells):
    row = cells.row("KoLeoLoss", cells.losses()["KoLeoLoss"], "numpy")
    for key, cell in row.items():
        assert cell["passed"] + len(cell["failed"]) + len(cell["not applicable"]) == cells.declared()[key]
    assert row["numpy bfloat16"]["passed"] == 0
    assert "numpy has no bfloat16" in row["numpy bfloat16"]["not applicable"].values()
