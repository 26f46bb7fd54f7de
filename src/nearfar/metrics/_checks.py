"""What every metric asks of its arrays, said once and by name."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearfar._errors import InputError, ShapeError

Array = NDArray[Any]


def score_array(values: ArrayLike, name: str, ndim: int) -> Array:
    """Real scores with ``ndim`` axes; floats keep their dtype, integers become float64."""
    array = np.asarray(values)
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
    array = np.asarray(values)
    if array.shape != (length,):
        raise ShapeError(
            f"expected {name} of shape ({length},), got {array.shape}; give one label for each row of scores"
        )
    if array.dtype.kind in "fc" and length:
        raise InputError(
            f"expected {name} as integers or strings, got {array.dtype}; "
            "pass the ids as they are, floats merge large ids"
        )
    return array


def class_index(labels: Array) -> tuple[NDArray[np.int64], int]:
    """Number the classes 0 … C−1 in sorted order; returns (index of each item, C)."""
    names, index = np.unique(labels, return_inverse=True)
    return index.astype(np.int64).reshape(labels.shape), len(names)


def share(value: float, name: str) -> float:
    """A rate in [0, 1]."""
    if not 0.0 <= value <= 1.0:
        raise InputError(f"expected {name} between 0 and 1, got {value}; 1 % is written 0.01")
    return float(value)


def finite_pairs(left: ArrayLike, right: ArrayLike, names: str, least: int) -> tuple[Array, Array]:
    """Two finite float64 vectors of one length, at least ``least`` long."""
    a, b = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ShapeError(f"expected {names} of one length, got shapes {a.shape} and {b.shape}; pair them up")
    if len(a) < least:
        raise InputError(f"expected at least {least} {names}, got {len(a)}; add data")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError(f"expected finite {names}, got NaN or infinity; count failures apart")
    return a, b


def binary(same: ArrayLike) -> Array:
    """Labels that are 1 for same and 0 for different, as float64."""
    array = np.asarray(same, dtype=np.float64)
    if not np.isin(array, (0.0, 1.0)).all():
        raise InputError(f"expected same to be 0 or 1, got {np.unique(array)[:5]}; 1 means the same class")
    return array
