"""The same loss whichever way it is asked: libraries, dtypes, strips, half tiles, one anchor at a time."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from nearfar.engine import Strips
from nearfar.losses import PairLoss
from nearfar.testing.cells import SLACK, Cell, Result
from nearfar.testing.forms import Batch, NotApplicable


def equals_the_reference(loss: Any, cell: Cell) -> None:
    """Value and gradient are those of NumPy in float64."""
    if (cell.library.name, cell.dtype) == ("numpy", "float64"):
        raise NotApplicable("NumPy in float64 is what the others are compared with")
    for batch in cell.samples():
        reference = cell.reference
        cell.expect(cell.run(loss, batch), reference.of(batch), reference.noise(batch, cell.dtype), batch.name)


def returns_what_it_got(loss: Any, cell: Cell) -> None:
    """The value is a scalar, gradients are shaped like their arrays; all in the caller's library and dtype."""
    for batch in cell.samples():
        arrays = cell.arrays(batch)
        value, gradients = cell.form.both(loss, batch, *arrays)
        if tuple(value.shape) != ():
            raise AssertionError(f"expected a scalar, got shape {tuple(value.shape)}; take the mean over the terms")
        if len(gradients) != len(arrays):
            raise AssertionError(f"expected {len(arrays)} gradients on {batch.name}, got {len(gradients)}")
        for name, got, like in (("value", value, arrays[0]), *(("gradient", *p) for p in zip(gradients, arrays))):  # noqa: B905
            same = got.dtype == like.dtype and (name == "value" or got.shape == like.shape)
            if not same or (type(got) is not type(like) and not isinstance(got, np.generic)):
                raise AssertionError(
                    f"expected {name} as {type(like).__name__} of {like.dtype}, shape {tuple(like.shape)}, "
                    f"got {type(got).__name__} of {got.dtype}, shape {tuple(got.shape)}; make arrays from the strip"
                )


def any_strip_height(loss: Any, cell: Cell) -> None:
    """One block, strips of any height and the engine's own choice give the same."""
    _need_pairs(cell)
    for batch in cell.few():
        whole, noise = cell.run(loss, batch, engine="dense"), cell.reference.noise(batch, cell.dtype)
        n = len(batch.arrays[0])
        few = (Strips(3), "auto")
        for engine in few if cell.library.compiles else (Strips(1), *few, Strips(7), Strips(n), Strips(n + 1)):
            cell.expect(cell.run(loss, batch, engine=engine), whole, noise, f"{batch.name} with {engine}")


def large_batches(loss: Any, cell: Cell) -> None:
    """A batch beyond the size at which the engine takes half tiles is that of strips."""
    _need_pairs(cell)
    if not isinstance(loss, PairLoss) or type(loss).executor is PairLoss.executor:
        raise NotApplicable("it has no faster way for large batches")
    rng = np.random.default_rng(cell.reference.seed)
    # Four groups of classes, so far apart that tiles of other groups are out of the reach of some losses.
    labels = rng.integers(0, 300, size=2100)
    places = 0.3 * rng.normal(size=(2100, 3)) + 3 * rng.normal(size=(4, 3))[labels // 75]
    x = cell.rounded(Batch("2,100 items", (places,), (labels,)))
    whole, fast = cell.run(loss, x, engine=Strips(700)), cell.run(loss, x)
    eps = 64 * 2.0**-52
    noise = Result(eps * abs(whole.value), tuple(np.asarray(eps * np.abs(g).max()) for g in whole.gradients))
    cell.expect(fast, whole, noise, "2,100 items with the engine's own choice")


def per_anchor_makes_the_mean(loss: Any, cell: Cell) -> None:
    """The mean is that of the anchors' own losses, each as often as it has terms."""
    _need_pairs(cell)
    if not isinstance(loss, PairLoss):
        raise NotApplicable("the terms of a combination are those of its parts")
    for batch in cell.few():
        terms = _terms(loss, cell, batch)
        each = cell.library.plain(cell.form.value(_PerAnchor(loss), batch, *cell.arrays(batch)))
        if each.shape != terms.shape:
            raise AssertionError(f"expected one loss an anchor, shape {terms.shape}, got {each.shape}")
        mean = float((each * terms).sum() / max(terms.sum(), 1e-300))
        true, noise = cell.reference.of(batch), cell.reference.noise(batch, cell.dtype)
        allowed = 16 * cell.eps * float(np.abs(each).max()) + SLACK * noise.value
        if not abs(mean - true.value) <= allowed:
            raise AssertionError(
                f"expected the anchors of {batch.name} to have the mean {true.value:.9g}, got {mean:.9g}; "
                "let terms() say how many terms each anchor has"
            )


class _PerAnchor:
    """The loss, called for each anchor's own."""

    def __init__(self, loss: Any) -> None:
        self._loss = loss

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._loss.per_anchor(*args, **options)


def _terms(loss: Any, cell: Cell, batch: Batch) -> Any:
    """Of each anchor, as the loss counts them when it is run on NumPy in one block."""
    counted: list[Any] = []

    class Counting(type(loss)):  # type: ignore[misc]
        def terms(self, *args: Any) -> Any:
            found = super().terms(*args)
            counted.append(np.reshape(np.array(found, dtype=np.float64), -1))
            return found

    other = copy.copy(loss)
    object.__setattr__(other, "__class__", Counting)
    cell.form.value(_PerAnchor(other), batch, *batch.arrays, engine="dense")
    if sum(map(len, counted)) != len(batch.arrays[0]):
        raise NotApplicable("it counts its terms in a way of its own")
    return np.concatenate(counted)


def _need_pairs(cell: Cell) -> None:
    if not cell.form.pairs:
        raise NotApplicable("it makes no table of pairs")
