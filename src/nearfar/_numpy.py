"""NumPy's array namespace by the shortest way: on small arrays the standard's wrappers cost more than the work."""

# ruff: noqa: A001, A002  (the standard's names)
from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat.numpy import *  # noqa: F403

Axis = int | tuple[int, ...] | None
_add: Any = np.add
_maximum: Any = np.maximum
_minimum: Any = np.minimum
_and: Any = np.logical_and


def sum(a: Any, axis: Axis = None, *, dtype: Any = None, keepdims: bool = False) -> Any:
    """As in the standard."""
    return _add.reduce(a, axis, dtype, keepdims=keepdims)


def max(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    """As in the standard."""
    return _maximum.reduce(a, axis, keepdims=keepdims)


def min(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    """As in the standard."""
    return _minimum.reduce(a, axis, keepdims=keepdims)


def all(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    """As in the standard."""
    return _and.reduce(a, axis, keepdims=keepdims)


def clip(a: Any, min: Any = None, max: Any = None) -> Any:
    """As in the standard."""
    a = a if min is None else np.maximum(a, min)
    return a if max is None else np.minimum(a, max)


def astype(a: Any, dtype: Any, *, copy: bool = True) -> Any:
    """As in the standard."""
    return a.astype(dtype, copy=copy)


def zeros_like(a: Any, *, dtype: Any = None) -> Any:
    """As in the standard."""
    return np.zeros(a.shape, dtype or a.dtype)


def concat(arrays: Any, *, axis: int | None = 0) -> Any:
    """As in the standard."""
    return np.concatenate(arrays, axis)


def reshape(a: Any, shape: Any) -> Any:
    """As in the standard, without a copy where none is needed."""
    return a.reshape(shape)


def argmax(a: Any, *, axis: int | None = None, keepdims: bool = False) -> Any:
    """As in the standard."""
    return a.argmax(axis, keepdims=keepdims)


def argmin(a: Any, *, axis: int | None = None, keepdims: bool = False) -> Any:
    """As in the standard."""
    return a.argmin(axis, keepdims=keepdims)


def searchsorted(ordered: Any, values: Any, *, side: Any = "left", sorter: Any = None) -> Any:
    """As in the standard."""
    return ordered.searchsorted(values, side, sorter)
