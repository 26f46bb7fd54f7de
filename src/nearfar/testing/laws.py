"""Laws that hold whatever the formula: order, names, unknown labels; rotations, translations and scale by the measure.

Three are identities of the gradient alone, and find a wrong gradient at any size without a second opinion.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nearfar.losses import Matryoshka
from nearfar.measures import Cosine, CosineDistance, Dot, Euclidean, Manhattan, SquaredEuclidean
from nearfar.testing.cells import SLACK, Cell, Result, measures
from nearfar.testing.forms import Batch, NotApplicable


def order_means_nothing(loss: Any, cell: Cell) -> None:
    """Rows in another order: the same value, and the gradient in that order."""
    rng = np.random.default_rng(cell.reference.seed + 5)
    for batch in cell.samples():
        orders = cell.form.orders(batch, rng)
        true, noise = cell.reference.of(batch), cell.reference.noise(batch, cell.dtype)
        moved = Result(true.value, tuple(g[k] for g, k in zip(true.gradients, orders, strict=True)))
        cell.expect(cell.run(loss, batch.permuted(orders)), moved, noise, f"{batch.name} in another order")


def names_mean_nothing(loss: Any, cell: Cell) -> None:
    """Classes with other names, in another order: the same value and gradient."""
    _need(cell.form.pairs, "it makes no table of pairs")
    for batch in cell.samples():
        if None in [type(v) if v is not None else None for v in batch.labels]:
            continue  # Class c is row c of the class weights.
        true, noise = cell.reference.of(batch), cell.reference.noise(batch, cell.dtype)
        for rename in (lambda v: 1000 - 37 * v, lambda v: [f"{'zyx'[c % 3]}{c}" for c in v.tolist()]):
            other = Batch(batch.name, batch.arrays, tuple(rename(np.asarray(v)) for v in batch.labels))
            cell.expect(cell.run(loss, other), true, noise, f"{batch.name} with other names of the classes")


def unknown_items_add_nothing(loss: Any, cell: Cell) -> None:
    """Items of the label to ignore, NaN among them, change nothing."""
    _need(cell.form.pairs, "it makes no table of pairs")
    for batch in cell.few():
        places = np.array([0, 4, len(batch.arrays[0])])
        x = np.insert(batch.arrays[0], places, np.nan, axis=0)
        labels = np.insert(np.asarray(batch.labels[0]), places, -1)
        other = Batch(batch.name, (x, *batch.arrays[1:]), (labels, *batch.labels[1:]))
        got = cell.run(loss, other, ignore_label=-1)
        kept, first = labels != -1, got.gradients[0]
        if first[~kept].any():
            raise AssertionError(f"expected gradient 0 of ignored items in {batch.name}, got {first[~kept]}")
        true, noise = cell.reference.of(batch), cell.reference.noise(batch, cell.dtype)
        where = f"{batch.name} with ignored items"
        cell.expect(Result(got.value, (first[kept], *got.gradients[1:])), true, noise, where)


def turning_changes_nothing(loss: Any, cell: Cell) -> None:
    """Σ (x gᵀ − g xᵀ) = 0 for measures that a rotation leaves alone."""
    _need(not isinstance(loss, Matryoshka), "it cuts features off, which a rotation mixes")
    kinds = Dot, Cosine, Euclidean, SquaredEuclidean, CosineDistance
    _need_measures(loss, kinds, "its measure is none that a rotation leaves alone")
    for batch, got, noise in _results(loss, cell):
        turn: Any = sum(a.T @ g - g.T @ a for a, g in zip(batch.arrays, got.gradients, strict=True))
        size: Any = sum(np.abs(a).T @ np.abs(g) for a, g in zip(batch.arrays, got.gradients, strict=True))
        slack = sum(SLACK * e * np.abs(a).sum() for a, e in zip(batch.arrays, noise.gradients, strict=True))
        bound = 8 * cell.eps * (size + size.T) + slack
        _expect(turn, bound, f"the gradient on {batch.name} to have no turning part, Σ (x gᵀ − g xᵀ) = 0")


def moving_changes_nothing(loss: Any, cell: Cell) -> None:
    """Σ g = 0 for measures of differences."""
    _need_measures(loss, (Euclidean, SquaredEuclidean, Manhattan), "its measure is none of differences")
    for batch, got, noise in _results(loss, cell):
        total = sum(g.sum(axis=0) for g in got.gradients)
        size = sum(np.abs(g).sum(axis=0) for g in got.gradients)
        slack = sum(SLACK * e * len(a) for a, e in zip(batch.arrays, noise.gradients, strict=True))
        _expect(total, 8 * cell.eps * size + slack, f"the gradients on {batch.name} to add up to 0")


def size_means_nothing(loss: Any, cell: Cell) -> None:
    """⟨x, g⟩ = 0 for every row under a measure of angles, and 8 x has the value of x."""
    _need_measures(loss, (Cosine, CosineDistance), "its measure is none of angles")
    for batch, got, noise in _results(loss, cell):
        for a, g, e in zip(batch.arrays, got.gradients, noise.gradients, strict=True):
            bound = 8 * cell.eps * np.abs(a * g).sum(axis=1) + SLACK * e * np.abs(a).sum(axis=1)
            _expect((a * g).sum(axis=1), bound, f"gradients on {batch.name} at right angles to their rows, ⟨x, g⟩ = 0")
        true = cell.reference.of(batch)
        larger = batch.with_arrays("8 times as large", *(8 * a for a in batch.arrays))
        shrunk = Result(true.value, tuple(g / 8 for g in true.gradients))
        cell.expect(cell.run(loss, larger), shrunk, noise, larger.name)


def _results(loss: Any, cell: Cell) -> list[tuple[Batch, Result, Result]]:
    return [(b, cell.run(loss, b), cell.reference.noise(b, cell.dtype)) for b in cell.samples()]


def _need(applies: bool, reason: str) -> None:
    if not applies:
        raise NotApplicable(reason)


def _need_measures(loss: Any, kinds: tuple[type, ...], reason: str) -> None:
    found = measures(loss)
    _need(bool(found), "it has no measure")
    _need(all(type(m) in kinds for m in found), reason)


def _expect(got: Any, bound: Any, what: str) -> None:
    wrong = ~(np.abs(got) <= bound)
    if wrong.any():
        worst = float(np.abs(got[wrong]).max())
        raise AssertionError(f"expected {what}, got {worst:.3g} where rounding makes {float(np.max(bound)):.2g}")
