"""Degenerate batches: the right number or a number that is plainly not finite, never a silent wrong one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nearfar.measures.base import Measure
from nearfar.testing import batches
from nearfar.testing.cells import COMPUTE, LARGEST, Cell, Result, measures
from nearfar.testing.forms import Batch, NotApplicable, function

# Steps along the gradient, in units of each row.
STEPS = tuple(0.125 * 0.25**k for k in range(14))


def sizes(loss: Any, cell: Cell) -> None:
    """No item, one, two; one feature and thousands."""
    _battery(loss, cell, batches.SIZES)


def labels(loss: Any, cell: Cell) -> None:
    """One class, only singletons, one pair among many."""
    _battery(loss, cell, batches.LABELS)


def geometry(loss: Any, cell: Cell) -> None:
    """Duplicates, near-duplicates, opposite and collinear rows, far from the origin."""
    _battery(loss, cell, batches.GEOMETRY)


def magnitude(loss: Any, cell: Cell) -> None:
    """Zero rows; numbers from the smallest to the largest."""
    _battery(loss, cell, batches.MAGNITUDE)


def bad_values_reach_the_value(loss: Any, cell: Cell) -> None:
    """NaN and Inf in an item that counts make the value NaN or Inf."""
    for batch in cell.form.degenerate(batches.BAD):
        if not _counts(cell, batch):
            continue
        value = cell.form.value(loss, batch, *cell.arrays(batch))
        if np.isfinite(cell.library.plain(value)):
            raise AssertionError(
                f"expected NaN or Inf on a batch with {batch.name}, got {float(value):.6g}; let it pass"
            )


def _counts(cell: Cell, batch: Batch) -> bool:
    """Whether the item that is not finite has a gradient where it is: some losses want no negatives."""
    bad = ~np.isfinite(batch.arrays[0])
    (ordinary,) = cell.form.degenerate({f"{batch.name}, ordinary": (batches.X, batch.labels[0])})
    rows = bad.any(axis=1)
    return any(bool(g[rows].any()) for g in cell.reference.of(ordinary).gradients[:1])


def gradients_keep_their_promise(loss: Any, cell: Cell) -> None:
    """No gradient is longer than the value's change along it, on any degenerate batch."""
    if cell.reference.surrogate is not False:
        raise NotApplicable("its gradient holds a part of the value constant")
    wrong = {}
    for batch in cell.form.degenerate(batches.BATCHES):
        given = cell.rounded(batch)
        true = cell.reference.of(given)
        if _inside(loss, given, cell.dtype) and np.isfinite(true.value):
            found = _promise(loss, cell, given, true)
            if found:
                wrong[batch.name] = found
    _raise(wrong)


def _battery(loss: Any, cell: Cell, battery: batches.Battery) -> None:
    wrong = {}
    for batch in cell.form.degenerate(battery):
        given = cell.rounded(batch)
        if not cell.holds(given):
            continue
        try:
            _expect_right(loss, cell, given)
        except AssertionError as error:
            wrong[batch.name] = str(error)
    _raise(wrong)


def _expect_right(loss: Any, cell: Cell, batch: Batch) -> None:
    true, got = cell.reference.of(batch), cell.run(loss, batch)
    if not _inside(loss, batch, cell.dtype):
        if np.isfinite(got.value) and np.isfinite(true.value) and abs(got.value - true.value) > 1e-2 * abs(true.value):
            raise AssertionError(
                f"expected {true.value:.6g}, or NaN or Inf where the range does not suffice, got {got.value:.6g}"
            )
        return
    if not np.isfinite(true.value) or any(np.isnan(g).any() for g in true.gradients):
        raise AssertionError(f"expected a finite value and gradient on NumPy in float64, got {true.value} or NaN")
    cell.expect(got, true, cell.reference.noise(batch, cell.dtype), batch.name)


def _inside(loss: Any, batch: Batch, dtype: str) -> bool:
    """Whether squares of the measures, added up, stay inside the range of the dtype that is computed in."""
    with np.errstate(all="ignore"):
        top = max([float(np.abs(a).max(initial=0.0)) * a.shape[-1] * 4 for a in batch.arrays], default=0.0)
        for measure in measures(loss):
            top = max(top, _largest(measure, batch))
        rows = max(len(a) for a in batch.arrays)
        return bool(max(1.0, top) ** 2 * 1e4 * max(rows, 1) ** 2 < LARGEST[COMPUTE[dtype]])


def _largest(measure: Measure, batch: Batch) -> float:
    if min(len(a) for a in batch.arrays) == 0:
        return 0.0
    sides = [measure.prepare(np, a, None) for a in batch.arrays]
    table = measure.table(np, sides[0], sides[-1]).values
    largest = float(np.abs(table).max(initial=0.0))
    return largest if np.isfinite(largest) else np.inf


def _promise(loss: Any, cell: Cell, batch: Batch, true: Result) -> str | None:
    """None if some step along the gradient changes the value by what the gradient promises, or a quarter of it."""
    lines, slope = [], 0.0
    for a, g in zip(batch.arrays, true.gradients, strict=True):
        length = np.sqrt((a * a).sum(axis=-1, keepdims=True)) if a.size else a
        length = np.where(length > 0, length, length.max(initial=0.0) or 1.0)
        top = np.abs(g).max(axis=-1, keepdims=True, initial=0.0)
        lines.append(length * np.where(top > 0, g / np.where(top > 0, top, 1.0), 0.0))
        slope += float((lines[-1] * g).sum())
    noise = 16 * cell.reference.noise(batch, "float64").value
    value, _ = function(cell.form, loss, batch, **({"engine": "dense"} if cell.form.pairs else {}))
    kept = None
    for t in STEPS:
        if slope * t <= noise:
            break
        ways = [float(value(*(a + s * t * v for a, v in zip(batch.arrays, lines, strict=True)))) for s in (1, -1)]
        kept = max(kept or 0.0, *(abs(way - true.value) / (slope * t) for way in ways))
        if kept >= 0.25:
            return None
    return None if kept is None else f"expected the value to change with its gradient, got {kept:.2g} of that at most"


def _raise(wrong: Mapping[str, str]) -> None:
    if wrong:
        raise AssertionError("; ".join(f"{name}: {text}" for name, text in wrong.items()))
