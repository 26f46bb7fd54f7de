"""Reading and writing at places of an array, and products added in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import array_api_compat
import numpy as np

from nearfar._arrays.convert import zeros
from nearfar._arrays.kinds import Array, Namespace, Widest, is_jax, is_torch, on_host

Carry = TypeVar("Carry")


def take_columns(xp: Namespace, a: Array, index: Array) -> Array:
    """``a[i, index[i, k]]`` for every row."""
    if is_torch(a):
        return a.gather(1, index)
    return a.take(_places(a, index)) if type(a) is np.ndarray else xp.take_along_axis(a, index, axis=1)


def _places(a: Array, index: Array) -> Array:
    """Of ``a[i, index[i, k]]`` in the flattened array."""
    return index + a.shape[1] * np.arange(a.shape[0])[:, None]


def add_columns(a: Array, index: Array, values: Array) -> Array:
    """``a[i, index[i, k]] += values[i, k]``, repeated indices adding up; ``a`` is changed where the library allows."""
    if is_torch(a):
        return a.scatter_add_(1, index, values)
    rows = np.arange(a.shape[0])[:, None]
    if is_jax(a):
        return a.at[rows, index].add(values)
    if a.flags.c_contiguous and values.shape == index.shape:
        np.add.at(a.reshape(-1), _places(a, index).reshape(-1), values.reshape(-1))
        return a
    np.add.at(a, (np.broadcast_to(rows, index.shape), index), values)
    return a


def argmin(xp: Namespace, a: Array) -> Array:
    """Column of each row's smallest entry, as a column."""
    if is_torch(a) and on_host(a):
        # NumPy's search is some ten times as fast as torch's.
        return xp.from_numpy(a.numpy().argmin(1))[:, None]
    return xp.argmin(a, axis=1)[:, None]


def argmax(xp: Namespace, a: Array) -> Array:
    """Column of each row's largest entry, as a column."""
    if is_torch(a) and on_host(a):
        return xp.from_numpy(a.numpy().argmax(1))[:, None]
    return xp.argmax(a, axis=1)[:, None]


def add_column(a: Array, k: Any, values: Array) -> Array:
    """``a[:, k] += values``; ``a`` is changed where the library allows."""
    if is_jax(a):
        return a.at[:, k].add(values)
    a[:, k] += values
    return a


def fold(xp: Namespace, count: int, body: Callable[[Any, Carry], Carry], carry: Carry) -> Carry:
    """``carry = body(k, carry)`` for k = 0 … count − 1; compiled, with a tracer for k, where the library does that."""
    if isinstance(xp, Widest) and count > 2:
        return xp.fold(count, body, carry)  # type: ignore[no-any-return]
    for k in range(count):
        carry = body(k, carry)
    return carry


def put_block(a: Array, start: int, values: Array) -> Array:
    """``a[:, start : start + k] = values`` of k columns; ``a`` is changed where the library allows."""
    if is_jax(a):
        return a.at[:, start : start + values.shape[1]].set(values)
    a[:, start : start + values.shape[1]] = values
    return a


def put_columns(a: Array, index: Array, values: Array | float) -> Array:
    """``a[i, index[i, k]] = values[i, k]``; ``a`` is changed where the library allows."""
    if is_torch(a):
        return a.scatter_(1, index, values)
    if is_jax(a):
        return a.at[np.arange(a.shape[0])[:, None], index].set(values)
    if a.flags.c_contiguous:
        a.reshape(-1)[_places(a, index)] = values
        return a
    np.put_along_axis(a, index, values, axis=1)
    return a


def fill_diagonal(xp: Namespace, a: Array, at: int, value: float) -> Array:
    """``a[i, i + at] = value`` for every row; ``a`` is changed where the library allows."""
    if is_torch(a):
        a.diagonal(at).fill_(value)
        return a
    rows = np.arange(a.shape[0])
    if is_jax(a):
        return a.at[rows, rows + at].set(value)
    a[rows, rows + at] = value
    return a


def turned(xp: Namespace, a: Array) -> Array:
    """A copy of the transpose, row after row."""
    if is_torch(a):
        return a.T.clone(memory_format=xp.contiguous_format)  # ``contiguous`` shares a single row's memory.
    return xp.asarray(a.T, copy=True) if is_jax(a) else a.T.copy()


def with_turned(xp: Namespace, a: Array) -> Array:
    """``a + a.T`` of a square; the copy costs less than to add across the rows."""
    both = turned(xp, a)
    both += a
    return both


def product_plus_row(xp: Namespace, left: Array, right: Array, factor: float, row: Array) -> Array:
    """``factor · left @ right.T + row``."""
    if is_torch(left):
        return xp.addmm(row[None, :], left, right.T, alpha=factor)
    table = xp.matmul(factor * left, right.T)
    table += row[None, :]
    return table


def add_product(xp: Namespace, total: Array, left: Array, right: Array, factor: float = 1.0) -> None:
    """``total += factor · left @ right`` in place."""
    if is_torch(total):
        total.addmm_(left, right, alpha=factor)
        return
    product = xp.matmul(left, right)
    if factor != 1:
        product *= factor
    total += product


def add_rows(a: Array, index: Array, values: Array) -> Array:
    """``a[index[k]] += values[k]``, repeated indices adding up; ``a`` is changed where the library allows."""
    if is_torch(a):
        return a.index_put_((index,), values, accumulate=True)
    if is_jax(a):
        return a.at[index].add(values)
    if a.ndim == 1 or index.shape[0] == 0:
        np.add.at(a, index, values)
        return a
    order = np.argsort(index, kind="stable")
    index = index[order]
    first = np.flatnonzero(np.concatenate(([True], index[1:] != index[:-1])))
    a[index[first]] += np.add.reduceat(values[order], first, axis=0)
    return a


def tally(xp: Namespace, place: Array, weight: Array, count: int) -> Array:
    """Sum of the weights at each place 0 … count − 1, in float64; the same bits at every run."""
    place, weight = xp.reshape(place, (-1,)), xp.astype(xp.reshape(weight, (-1,)), xp.float64)
    if array_api_compat.is_numpy_array(place):
        return np.bincount(place, weight, count)
    return add_rows(zeros(xp, (count,), weight), place, weight)
