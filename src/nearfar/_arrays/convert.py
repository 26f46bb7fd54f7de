"""What a caller gives, as working arrays; and results, as what was given."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

from nearfar._arrays.kinds import Array, Namespace, compiling, compute_dtype, device_of, is_jax, is_torch
from nearfar._errors import BackendError, ShapeError


def working_copy(xp: Namespace, a: Array) -> Array:
    """``a`` in its compute dtype, native byte order and off the autograd graph; the caller's array stays as it is."""
    if array_api_compat.is_numpy_array(a):
        return np.asarray(a, dtype=np.float64 if a.dtype.itemsize == 8 else np.float32)
    if is_torch(a):
        a = a.detach()
        if a.dtype in (xp.float32, xp.float64):
            return a
    return xp.astype(a, compute_dtype(xp, a), copy=False)


def narrow(a: Array, like: Array) -> Array:
    """``a`` in the dtype of ``like``; what lies outside a narrower dtype's range saturates, NaN stays NaN."""
    if a.dtype == like.dtype:
        return a
    if is_torch(a) and not a.ndim:
        return a.to(like.dtype)
    xp = array_api_compat.array_namespace(like)
    if compute_dtype(xp, like) != like.dtype and like.dtype.itemsize < a.dtype.itemsize and a.ndim:
        largest = float(xp.finfo(like.dtype).max)
        a = xp.clip(a, -largest, largest)
    if array_api_compat.is_numpy_array(a) or isinstance(a, np.generic):
        return np.asarray(a).astype(like.dtype)
    return xp.astype(a, like.dtype)


def _host_codes(labels: Any, name: str, book: dict[Any, int]) -> Any:
    """Labels that are a list, strings or objects as codes of the book, which grows; arrays of numbers stay."""
    if array_api_compat.is_array_api_obj(labels) and not array_api_compat.is_numpy_array(labels):
        return labels
    try:
        values = np.asarray(labels)
    except ValueError as error:
        raise ShapeError(f"expected {name} of shape (items,), got a ragged list; give one label an item") from error
    if values.dtype.kind in "USO":
        if values.ndim != 1:
            raise ShapeError(f"expected {name} of shape (items,), got {values.shape}; give one label an item")
        return np.asarray([book.setdefault(v, len(book)) for v in values.tolist()], dtype=np.int64)
    return values


def integers(xp: Namespace, labels: Any, name: str, like: Array, book: dict[Any, int]) -> Array:
    """``labels`` as a 1-D int64 array of the library and device of ``like``, refusing what is not a label."""
    if type(like) is np.ndarray:
        labels = _on_numpy(labels)
        if type(labels) is np.ndarray and labels.dtype == np.int64 and labels.ndim == 1:
            return labels
    if compiling() and not is_torch(labels):
        labels = xp.asarray(labels, device=like.device)
    of_torch = is_torch(labels) and is_torch(like) and labels.device == like.device
    if of_torch and labels.ndim == 1 and not labels.is_floating_point() and not labels.is_complex():
        return labels.to(xp.int64).contiguous()
    values = _host_codes(labels, name, book)
    if values.ndim != 1:
        raise ShapeError(
            f"expected {name} of shape (items,), got {tuple(values.shape)}; give one label an item, "
            "for example labels.reshape(-1)"
        )
    if array_api_compat.is_numpy_array(values):
        integral = values.dtype.kind in "iub" or values.size == 0
    else:
        integral = bool(array_api_compat.array_namespace(values).isdtype(values.dtype, ("bool", "integral")))
    if not integral:
        raise BackendError(
            f"expected {name} to be integers, booleans or strings, got {values.dtype}; "
            "convert them, for example labels.astype('int64')"
        )
    if array_api_compat.is_numpy_array(values):
        values = values.astype(np.int64)
        if is_jax(like) and values.size and np.abs(values).max() > xp.iinfo(xp.int64).max:
            raise BackendError(
                f"expected {name} within int32, got {values[np.abs(values).argmax()]}; "
                "number the classes, or set jax_enable_x64"
            )
        return xp.asarray(values, device=device_of(like))
    if device_of(values) != device_of(like):
        raise BackendError(f"expected {name} on {device_of(like)}, got {device_of(values)}; move it first")
    return xp.astype(values, xp.int64)


def as_like(xp: Namespace, values: Any, like: Array, dtype: Any) -> Array:
    """Host values or an array as an array of the library, device and ``dtype`` given."""
    if type(like) is np.ndarray:
        values = _on_numpy(values)
    if compiling():
        return xp.asarray(values, dtype=dtype, device=like.device)
    if array_api_compat.is_array_api_obj(values) and not array_api_compat.is_numpy_array(values):
        return xp.astype(values, dtype, copy=False)
    return xp.astype(xp.asarray(_numbers(values), device=device_of(like)), dtype)


def _numbers(values: Any) -> Any:
    """Host values as an array, refusing what holds no numbers."""
    try:
        found = np.asarray(values)
    except ValueError as error:
        raise ShapeError("expected rows of one length, got a ragged list; give each item as many values") from error
    if found.dtype.kind in "USOMmc":
        raise BackendError(f"expected numbers, got {found.dtype}; give 0/1 or weights")
    return found


def _on_numpy(values: Any) -> Any:
    """A tensor on the CPU as an array; all else as it is."""
    if not is_torch(values) or not values.is_cpu:
        return values
    narrow_float = values.is_floating_point() and values.itemsize < 4
    return (values.float() if narrow_float else values).numpy(force=True)


def arange(xp: Namespace, n: int, like: Array) -> Array:
    """0 … n−1 as int64 on the device of ``like``."""
    if type(like) is np.ndarray:
        return np.arange(n)
    if is_torch(like):
        return xp.arange(n, dtype=xp.int64, device=like.device)
    return xp.arange(n, dtype=xp.int64, device=device_of(like))


def zeros(xp: Namespace, shape: tuple[int, ...], like: Array, dtype: Any = None) -> Array:
    """Zeros on the device of ``like``, in its dtype unless another is given."""
    if is_torch(like):
        return like.new_zeros(shape, dtype=dtype or like.dtype)
    if type(like) is np.ndarray:
        return np.zeros(shape, dtype or like.dtype)
    return xp.zeros(shape, dtype=dtype or like.dtype, device=device_of(like))


def integers_on_host(a: Array) -> list[int]:
    """The entries of a 1-D integer array as Python numbers."""
    return list(a.tolist())
