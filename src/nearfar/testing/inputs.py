"""What a loss does with its arguments: leaves them alone, keeps no memory, and refuses by name what it cannot use."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from nearfar._errors import InputError
from nearfar.testing import batches
from nearfar.testing.cells import Cell, Result
from nearfar.testing.forms import Batch, NotApplicable, OnClasses, OnLabels, OnViews


def leaves_inputs_alone(loss: Any, cell: Cell) -> None:
    """Arrays and labels keep every bit, and no global random number is drawn."""
    for batch in cell.samples():
        arrays, kept = cell.arrays(batch), [a.copy() for a in batch.arrays]
        labels = [None if v is None else np.array(v) for v in batch.labels]
        state = cell.library.state(), random.getstate()
        cell.form.both(loss, batch, *arrays)
        cell.library.value_and_grad(
            lambda *a, b=batch: cell.form.value(loss, b, *a), lambda *a, b=batch: cell.form.both(loss, b, *a), arrays
        )
        for a, before in zip(arrays, kept, strict=True):
            if not np.array_equal(cell.library.plain(a), before):
                raise AssertionError(f"expected the arrays of {batch.name} as they were, got others; work on a copy")
        for v, had in zip(batch.labels, labels, strict=True):
            if had is not None and not np.array_equal(v, had):
                raise AssertionError(f"expected the labels of {batch.name} as they were, got others; work on a copy")
        if (cell.library.state(), random.getstate()) != state:
            raise AssertionError("expected no global random number to be drawn, got one; take a seed in the loss")


def same_input_same_bits(loss: Any, cell: Cell) -> None:
    """The same call gives the same bits, whatever was called in between."""
    samples = cell.samples()
    first = [cell.run(loss, batch) for batch in samples]
    for _ in range(2):
        for batch, before in zip(samples, first, strict=True):
            if not _same(cell.run(loss, batch), before):
                raise AssertionError(f"expected the same bits for {batch.name} again, got others; keep no state")


def other_defaults_mean_nothing(loss: Any, cell: Cell) -> None:
    """Arrays follow the device and dtype of the input, not the library's defaults."""
    for batch in cell.samples():
        before = cell.run(loss, batch)
        try:
            with cell.library.other_defaults():
                got = cell.run(loss, batch)
        except NotApplicable:
            raise
        except Exception as error:
            raise AssertionError(
                f"expected arrays on the device and in the dtype of the input, got {type(error).__name__}: {error}; "
                "make new arrays from the strip, for example xp.zeros_like(s)"
            ) from error
        cell.expect(
            got, before, Result(0.0, tuple(np.zeros(()) for _ in before.gradients)), f"{batch.name}, other defaults"
        )


def layout_means_nothing(loss: Any, cell: Cell) -> None:
    """Strides, orders and byte orders of the memory change nothing."""
    for batch in cell.samples():
        layouts = [cell.library.layouts(a) for a in batch.arrays]
        if not layouts[0]:
            raise NotApplicable("the library has one layout")
        true, noise = cell.reference.of(batch), cell.reference.noise(batch, cell.dtype)
        for name in layouts[0]:
            value, gradients = cell.form.both(loss, batch, *(v[name] for v in layouts))
            got = Result(float(cell.library.plain(value)), tuple(map(cell.library.plain, gradients)))
            cell.expect(got, true, noise, f"{batch.name}, {name}")


def any_kind_of_label(loss: Any, cell: Cell) -> None:
    """Integers of every width, strings, bytes, objects: the same value and gradient."""
    _need_labels(cell)
    numbers = isinstance(cell.form, OnClasses)
    (batch,) = cell.form.degenerate({"ordinary": (batches.X, batches.Y)})
    batch = cell.rounded(batch)
    true, noise = cell.reference.of(batch), cell.reference.noise(batch, cell.dtype)
    for name, labels in batches.SAME_LABELS.items():
        values = np.asarray(labels)
        if numbers and (values.dtype.kind not in "iu" or not np.array_equal(values, batches.Y)):
            continue  # Class c is row c of the class weights.
        other = Batch(name, batch.arrays, (labels, *batch.labels[1:]))
        cell.expect(cell.run(loss, other), true, noise, f"labels as {name}")


def refuses_what_is_no_label(loss: Any, cell: Cell) -> None:
    """Floats, columns, too few, too many: InputError, ``expected …, got …; remedy``."""
    _need_labels(cell)
    (batch,) = cell.form.degenerate({"ordinary": (batches.X, batches.Y)})
    arrays = cell.arrays(batch)
    for name, labels in batches.BAD_LABELS.items():
        other = Batch(name, batch.arrays, (labels, *batch.labels[1:]))
        _expect_refused(f"labels that are {name}", cell, loss, other, arrays)


def refuses_what_is_no_batch(loss: Any, cell: Cell) -> None:
    """Vectors, cubes, integers, lists, second arrays of other width or dtype: InputError."""
    samples = cell.samples()
    array = cell.library.array
    for batch in samples:
        n, d = batch.arrays[0].shape
        first, *rest = cell.arrays(batch)
        bad = {
            "a vector": array(np.zeros(n), cell.dtype),
            "a cube": array(np.zeros((n, d, 2)), cell.dtype),
            "a number": array(np.zeros(()), cell.dtype),
            "integers": array(np.zeros((n, d)), "int64"),
            "a list": batch.arrays[0].tolist(),
            "one row too many": array(np.zeros((n + 1, d)), cell.dtype),
        }
        if isinstance(cell.form, OnViews) and not rest:
            del bad["one row too many"]
        for name, x in bad.items():
            _expect_refused(f"embeddings that are {name}", cell, loss, batch, (x, *rest))
        if rest:
            m = len(batch.arrays[1])
            wrong = {
                "wider": array(np.zeros((m, d + 1)), cell.dtype),
                "a vector": array(np.zeros(m), cell.dtype),
                "of another dtype": array(np.zeros((m, d)), "float16" if cell.dtype != "float16" else "float32"),
                "a list": batch.arrays[1].tolist(),
            }
            for name, y in wrong.items():
                _expect_refused(f"a second array that is {name}", cell, loss, batch, (first, y))
    if cell.form.pairs:
        _expect_refused("an unknown engine", cell, loss, samples[0], cell.arrays(samples[0]), engine="fast")


def _expect_refused(what: str, cell: Cell, loss: Any, batch: Batch, arrays: tuple[Any, ...], **options: Any) -> None:
    try:
        value = cell.form.value(loss, batch, *arrays, **options)
    except InputError as error:
        if "expected" in str(error) and "got" in str(error) and "; " in str(error):
            return
        raise AssertionError(f"expected a message 'expected …, got …; remedy' for {what}, got {error}") from error
    except Exception as error:
        raise AssertionError(f"expected an InputError for {what}, got {type(error).__name__}: {error}") from error
    raise AssertionError(f"expected an InputError for {what}, got the value {value}")


def _need_labels(cell: Cell) -> None:
    if not isinstance(cell.form, OnLabels):
        raise NotApplicable("it takes no labels")


def _same(a: Result, b: Result) -> bool:
    """To the bit, NaN equal to NaN."""
    pairs: list[Any] = [(np.float64(a.value), np.float64(b.value)), *zip(a.gradients, b.gradients, strict=True)]
    return all(np.array_equal(x, y, equal_nan=True) for x, y in pairs)
