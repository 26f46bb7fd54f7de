"""What every metric asks of its arrays, said once and by name."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearfar._arrays import is_torch
from nearfar._errors import InputError, ShapeError

Array = NDArray[Any]


def on_host(values: Any, name: str) -> Array:
    """An array, a tensor or a list as a NumPy array."""
    if is_torch(values):
        values = values.detach().cpu()
        # NumPy has no bfloat16.
        values = (values.float() if values.is_floating_point() and values.element_size() < 4 else values).numpy()
    if isinstance(values, np.ma.MaskedArray):
        raise InputError(f"expected {name} without a mask, got a masked array; leave the masked entries out")
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ShapeError(f"expected {name} as an array, got rows of several lengths; cut them to one") from error


def real_array(values: ArrayLike, name: str) -> Array:
    """Real numbers as float64."""
    array = on_host(values, name)
    if array.dtype.kind not in "iubf":
        raise InputError(f"expected {name} of real numbers, got dtype {array.dtype}; pass floats")
    return array.astype(np.float64)


def score_array(values: ArrayLike, name: str, ndim: int) -> Array:
    """Real scores with ``ndim`` axes; floats keep their dtype, integers become float64."""
    array = on_host(values, name)
    if array.ndim != ndim:
        raise ShapeError(f"expected {name} with {ndim} axes, got shape {array.shape}; reshape it first")
    if array.dtype.kind in "iub":
        array = array.astype(np.float64)
    if array.dtype.kind != "f":
        raise InputError(f"expected {name} of real numbers, got dtype {array.dtype}; pass floats")
    if np.isposinf(array).any():
        raise InputError(f"expected {name} below infinity, got +inf; no threshold can reject it, find its source")
    return array


def label_array(values: ArrayLike, name: str, length: int) -> Array:
    """Labels as integers, strings or objects, never as floats (float32 ids collide above 2**24)."""
    array = on_host(values, name)
    if array.shape != (length,):
        raise ShapeError(
            f"expected {name} of shape ({length},), got {array.shape}; give one label for each row of scores"
        )
    if array.dtype.kind in "fc" and length:
        raise InputError(
            f"expected {name} as integers or strings, got {array.dtype}; "
            "pass the ids as they are, floats merge large ids"
        )
    if array.dtype.kind == "O" and len({type(one) for one in array}) > 1:
        raise InputError(f"expected {name} of one kind, got {_kinds(array)}; make all of them words or all numbers")
    return array


def _kinds(array: Array) -> str:
    return ", ".join(sorted({type(one).__name__ for one in array}))


def class_index(labels: Array) -> tuple[NDArray[np.int64], int]:
    """Number the classes 0 … C−1 in sorted order; returns (index of each item, C)."""
    names, index = np.unique(labels, return_inverse=True)
    return index.astype(np.int64).reshape(labels.shape), len(names)


def share(value: float, name: str) -> float:
    """A rate in [0, 1]."""
    if not isinstance(value, int | float | np.number) or not 0.0 <= value <= 1.0:
        raise InputError(f"expected {name} between 0 and 1, got {value}; 1 % is written 0.01")
    return float(value)


def finite_pairs(left: ArrayLike, right: ArrayLike, names: str, least: int) -> tuple[Array, Array]:
    """Two finite float64 vectors of one length, at least ``least`` long."""
    a, b = real_array(left, names), real_array(right, names)
    if a.ndim != 1 or a.shape != b.shape:
        raise ShapeError(f"expected {names} of one length, got shapes {a.shape} and {b.shape}; pair them up")
    if len(a) < least:
        raise InputError(f"expected at least {least} {names}, got {len(a)}; add data")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError(f"expected finite {names}, got NaN or infinity; count failures apart")
    return a, b


def binary(same: ArrayLike) -> Array:
    """Labels that are 1 for same and 0 for different, as float64."""
    array = real_array(same, "same")
    if not np.isin(array, (0.0, 1.0)).all():
        raise InputError(f"expected same to be 0 or 1, got {np.unique(array)[:5]}; 1 means the same class")
    return array
