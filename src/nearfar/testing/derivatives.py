"""Weights are the derivative of the value: extrapolated differences along lines through ordinary batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nearfar.testing.batches import Values
from nearfar.testing.cells import EPS, Cell
from nearfar.testing.forms import Batch, NotApplicable, function

STEPS = 0.5 ** np.arange(4, 19)  # Hinges and bins are met at the large ones, rounding at the small ones.
ORDERS = 4
# What differences can tell of a gradient, relative to its largest entry.
SHARP = 1e-6
# No more steps once they differ by less.
ENOUGH = 1e-9


def weights_are_the_derivative(loss: Any, cell: Cell) -> None:
    """The gradient along a line is the slope of the value on it."""
    if cell.reference.surrogate is True:
        raise NotApplicable("its gradient holds a part of the value constant, and no surrogate was given")
    for batch in cell.samples():
        true = cell.reference.of(batch)
        for name, line in _lines(batch, cell.reference.seed):
            promised = sum(float((g * v).sum()) for g, v in zip(true.gradients, line, strict=True))
            scale = max(float(np.abs(g).max(initial=0.0)) for g in true.gradients) + 1e-12
            slope, error = _slope(_along(loss, cell, batch, line), true.value, ENOUGH * scale)
            if not error <= SHARP * scale:
                raise AssertionError(
                    f"expected a value that is smooth along {name} of {batch.name}, got slopes of {slope:.9g} that "
                    f"differ by {error:.2g} from step to step; compute it in the precision of its input"
                )
            if not abs(slope - promised) <= 10 * error + SHARP * scale:
                raise AssertionError(
                    f"expected slope {slope:.9g} along {name} of {batch.name}, as the value has it, "
                    f"got {promised:.9g} by the gradient; return ∂loss/∂measure of every pair as its weight"
                )


def _along(loss: Any, cell: Cell, batch: Batch, line: tuple[Values, ...]) -> Callable[[float], float]:
    """The value at a distance along a line."""
    surrogate = cell.reference.surrogate
    if callable(surrogate):
        return lambda t: float(surrogate(_moved(batch, line, t), batch))
    value, _ = function(cell.form, loss, batch, **({"engine": "dense"} if cell.form.pairs else {}))
    return lambda t: float(value(*_moved(batch, line, t).arrays))


def _moved(batch: Batch, line: tuple[Values, ...], t: float) -> Batch:
    return batch.with_arrays("moved", *(a + t * v for a, v in zip(batch.arrays, line, strict=True)))


def _lines(batch: Batch, seed: int) -> Iterator[tuple[str, tuple[Values, ...]]]:
    """Directions: of everything at once, and of each row alone."""
    rng = np.random.default_rng(seed)
    for k in range(3):
        yield f"direction {k}", tuple(rng.uniform(-1, 1, size=a.shape) for a in batch.arrays)
    for k, a in enumerate(batch.arrays):
        for i in range(a.shape[0]):
            alone = [np.zeros_like(b) for b in batch.arrays]
            alone[k][i] = rng.uniform(-1, 1, size=a.shape[1:])
            yield f"row {i} of array {k}", tuple(alone)


def _slope(f: Callable[[float], float], value: float, enough: float) -> tuple[float, float]:
    """Slope at 0 and an estimate of its error: Richardson's table, of which the entry that changes least is taken."""
    best, error = 0.0, np.inf
    last: list[float] = []
    for h in STEPS:
        row = [(f(h) - f(-h)) / (2 * h)]
        for order in range(1, min(len(last), ORDERS - 1) + 1):
            factor = 4.0**order
            row.append((factor * row[-1] - last[order - 1]) / (factor - 1))
        rounding = 4 * EPS["float64"] * abs(value) / h
        for order, entry in enumerate(row):
            if order < len(last):
                change = abs(entry - last[order]) + rounding
                if change < error:
                    best, error = entry, change
        if error < enough:
            break
        last = row
    return best, error
