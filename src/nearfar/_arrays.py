"""The only module that knows array libraries.

Everything above it takes the namespace ``xp`` of an array (the array API standard, through
array-api-compat) and calls the few functions below where the standard has no word for it.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any, TypeAlias

import array_api_compat
import numpy as np

from nearfar._errors import BackendError, ShapeError

Array: TypeAlias = Any
Namespace: TypeAlias = Any


def namespace(**arrays: Array) -> Namespace:
    """The array namespace shared by all arguments, which must be floating and of one dtype and device."""
    present = {name: a for name, a in arrays.items() if a is not None}
    for name, a in present.items():
        if not array_api_compat.is_array_api_obj(a):
            raise BackendError(
                f"expected {name} to be an array of NumPy, PyTorch or another array-API library, "
                f"got {type(a).__name__}; convert it first, for example with numpy.asarray"
            )
    try:
        xp = array_api_compat.array_namespace(*present.values())
    except TypeError as error:
        kinds = ", ".join(f"{name}: {type(a).__module__}.{type(a).__name__}" for name, a in present.items())
        raise BackendError(f"expected arrays of one library, got {kinds}; convert them first") from error
    for name, a in present.items():
        if not _is_real_floating(xp, a):
            raise BackendError(
                f"expected {name} of a real floating dtype, got {a.dtype}; convert it first, for example to float32"
            )
    kinds_seen = {(str(a.dtype), str(array_api_compat.device(a))) for a in present.values()}
    if len(kinds_seen) > 1:
        facts = ", ".join(f"{name}: {a.dtype} on {array_api_compat.device(a)}" for name, a in present.items())
        raise BackendError(f"expected one dtype and one device, got {facts}; convert them first")
    return xp


def _is_real_floating(xp: Namespace, a: Array) -> bool:
    if array_api_compat.is_numpy_array(a):
        return bool(np.issubdtype(a.dtype, np.floating)) and a.dtype.itemsize <= 8
    return bool(xp.isdtype(a.dtype, "real floating"))


def expect_matrix(name: str, a: Array) -> None:
    """Raise unless ``a`` is rows × features with at least one feature."""
    if a.ndim != 2 or a.shape[1] == 0:
        raise ShapeError(
            f"expected {name} of shape (items, features) with at least one feature, got {tuple(a.shape)}; "
            "give one embedding a row"
        )


def is_torch(a: Array) -> bool:
    """Whether ``a`` is a PyTorch tensor (PyTorch is not imported to find out)."""
    return _is_tensor_class(type(a))  # type: ignore[arg-type]


@cache
def _is_tensor_class(kind: Hashable) -> bool:
    return any(base.__module__ == "torch" and base.__name__ == "Tensor" for base in kind.__mro__)  # type: ignore[attr-defined]


def compute_dtype(xp: Namespace, a: Array) -> Any:
    """Float64 stays float64; everything narrower is computed in float32."""
    return xp.float64 if a.dtype == xp.float64 else xp.float32


def working_copy(xp: Namespace, a: Array) -> Array:
    """``a`` in its compute dtype, native byte order and off the autograd graph; the caller's array stays as it is."""
    if array_api_compat.is_numpy_array(a):
        return np.asarray(a, dtype=np.float64 if a.dtype.itemsize == 8 else np.float32)
    if is_torch(a):
        a = a.detach()
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
        return xp.asarray(values, device=array_api_compat.device(like))
    if array_api_compat.device(values) != array_api_compat.device(like):
        raise BackendError(
            f"expected {name} on {array_api_compat.device(like)}, got {array_api_compat.device(values)}; move it first"
        )
    return xp.astype(values, xp.int64)


def as_like(xp: Namespace, values: Any, like: Array, dtype: Any) -> Array:
    """Host values or an array as an array of the library, device and ``dtype`` given."""
    if array_api_compat.is_array_api_obj(values) and not array_api_compat.is_numpy_array(values):
        return xp.astype(values, dtype, copy=False)
    return xp.astype(xp.asarray(np.asarray(values), device=array_api_compat.device(like)), dtype)


def arange(xp: Namespace, n: int, like: Array) -> Array:
    """0 … n−1 as int64 on the device of ``like``."""
    return xp.arange(n, dtype=xp.int64, device=array_api_compat.device(like))


def zeros(xp: Namespace, shape: tuple[int, ...], like: Array, dtype: Any = None) -> Array:
    """Zeros on the device of ``like``, in its dtype unless another is given."""
    if is_torch(like):
        return like.new_zeros(shape, dtype=dtype or like.dtype)
    return xp.zeros(shape, dtype=dtype or like.dtype, device=array_api_compat.device(like))


def where(xp: Namespace, condition: Array, a: Array, otherwise: float) -> Array:
    """``a`` where the condition holds, else a number."""
    if is_torch(a) and a.is_floating_point():
        return a.where(condition, otherwise)
    return xp.where(condition, a, xp.asarray(otherwise, dtype=a.dtype, device=array_api_compat.device(a)))


def row_max(xp: Namespace, z: Array) -> Array:
    """Largest entry of each row as a column; 0 for a row without a finite or larger entry than −inf."""
    if z.shape[-1] == 0:
        return zeros(xp, (*z.shape[:-1], 1), z)
    if is_torch(z):
        top = z.amax(-1, keepdim=True)
        return top.masked_fill_(top == -float("inf"), 0.0)
    top = xp.max(z, axis=-1, keepdims=True)
    return where(xp, top != -float("inf"), top, 0.0)


def exp_sum(xp: Namespace, z: Array) -> tuple[Array, Array, Array]:
    """Log-sum-exp of each row (a column; −inf for an empty row), ``exp(z − largest)`` and its sum; overwrites ``z``.

    The sum is at least 1, or 0 for an empty row. Entries of −inf are outside the sum; NaN and +inf propagate.
    """
    top = row_max(xp, z)
    z -= top
    z = exponential(xp, z)
    total = xp.sum(z, axis=1, keepdims=True)
    return xp.log(total) + top, z, total


def exp_pair(xp: Namespace, a: Array, b: Array) -> tuple[Array, Array, Array]:
    """``log(exp(a) + exp(b))``, and the share of each in the sum (0 where both are −inf)."""
    top = xp.maximum(a, b)
    safe = where(xp, top != -float("inf"), top, 0.0)
    one, other = xp.exp(a - safe), xp.exp(b - safe)
    total = one + other
    held = where(xp, total != 0, total, 1.0)
    return where(xp, total != 0, xp.log(held) + safe, -float("inf")), one / held, other / held


def exponential(xp: Namespace, z: Array) -> Array:
    """``exp(z)``; ``z`` is overwritten where the library allows."""
    return xp.exp(z, out=z) if hasattr(z, "__setitem__") else xp.exp(z)


def at_least(xp: Namespace, a: Array, least: float) -> Array:
    """``max(a, least)``; NaN stays."""
    return a.clamp(min=least) if is_torch(a) else xp.clip(a, min=least)


def relu(xp: Namespace, z: Array) -> Array:
    """``max(z, 0)``; NaN stays; ``z`` is overwritten."""
    if is_torch(z):
        return z.clamp_(min=0)
    return xp.clip(z, min=0)


def subtract(xp: Namespace, a: Array, b: Array, into: Array | None) -> Array:
    """``a − b``, in the place of ``into`` where that fits and the library allows."""
    if into is None or not hasattr(into, "__setitem__") or into.shape != b.shape:
        return a - b
    return xp.subtract(a, b, out=into)


def times(xp: Namespace, weight: Array, value: Array) -> Array:
    """``weight · value``, 0 where the weight is 0 whatever the value."""
    return weight * where(xp, weight != 0, value, 0.0)


def step(xp: Namespace, z: Array) -> Array:
    """1 where ``z`` ≥ 0 is not 0, NaN among them, else 0; ``z`` is overwritten where the library allows."""
    return z.ne_(0) if is_torch(z) else xp.astype(z != 0, z.dtype)


def softplus(xp: Namespace, z: Array) -> Array:
    """``log(1 + exp(z))`` without overflow; 0 at −inf."""
    if is_torch(z):
        return z.clamp(min=0).add_(z.abs().neg_().exp_().log1p_())
    return where(xp, ~(z < 0), z, 0.0) + xp.log1p(xp.exp(-xp.abs(z)))


def sigmoid(xp: Namespace, z: Array) -> Array:
    """``1 / (1 + exp(−z))`` without overflow."""
    if is_torch(z):
        return z.sigmoid()
    small = xp.exp(-xp.abs(z))
    return xp.where(z < 0, small, xp.ones_like(small)) / (1 + small)


def power_of_two(xp: Namespace, a: Array) -> Array:
    """The largest power of two up to each positive entry, exactly; 1 for 0, and what is not finite as it is."""
    mantissa = (xp.frexp if hasattr(xp, "frexp") else np.frexp)(a)[0]
    return xp.where((a > 0) & (a < float("inf")), a / (2 * where(xp, mantissa != 0, mantissa, 1.0)), xp.ones_like(a))


def take_columns(xp: Namespace, a: Array, index: Array) -> Array:
    """``a[i, index[i, k]]`` for every row."""
    return a.gather(1, index) if is_torch(a) else xp.take_along_axis(a, index, axis=1)


def add_columns(a: Array, index: Array, values: Array) -> Array:
    """``a[i, index[i, k]] += values[i, k]``, repeated indices adding up; ``a`` is changed where the library allows."""
    if is_torch(a):
        return a.scatter_add_(1, index, values)
    rows = np.arange(a.shape[0])[:, None]
    np.add.at(a, (np.broadcast_to(rows, index.shape), index), values)
    return a


def put_columns(a: Array, index: Array, values: Array | float) -> Array:
    """``a[i, index[i, k]] = values[i, k]``; ``a`` is changed where the library allows."""
    if is_torch(a):
        return a.scatter_(1, index, values)
    np.put_along_axis(a, index, values, axis=1)
    return a


def quiet() -> np.errstate:
    """NumPy without warnings: infinities and NaN are carried on purpose and end in the value."""
    return np.errstate(all="ignore")


def integers_on_host(a: Array) -> list[int]:
    """The entries of a 1-D integer array as Python numbers."""
    return list(a.tolist())


def extremes(xp: Namespace, a: Array) -> tuple[float, float]:
    """The smallest and the largest entry."""
    if is_torch(a):
        least, most = a.aminmax()
        return float(least), float(most)
    return float(xp.min(a)), float(xp.max(a))


def on_host(a: Array) -> bool:
    """Whether looking at a value costs no wait for a device."""
    return bool(a.is_cpu) if is_torch(a) else str(array_api_compat.device(a)) == "cpu"


def product_plus_row(xp: Namespace, left: Array, right: Array, factor: float, row: Array) -> Array:
    """``factor · left @ right.T + row``."""
    if is_torch(left):
        return xp.addmm(row[None, :], left, right.T, alpha=factor)
    table = (factor * left) @ right.T
    table += row[None, :]
    return table


def add_product(total: Array, left: Array, right: Array, factor: float = 1.0) -> None:
    """``total += factor · left @ right`` in place."""
    if is_torch(total):
        total.addmm_(left, right, alpha=factor)
    elif factor == 1:
        total += left @ right
    else:
        total += factor * (left @ right)


def add_rows(a: Array, index: Array, values: Array) -> Array:
    """``a[index[k]] += values[k]``, repeated indices adding up; ``a`` is changed where the library allows."""
    if is_torch(a):
        return a.index_put_((index,), values, accumulate=True)
    np.add.at(a, index, values)
    return a
