"""The only module that knows array libraries.

Everything above it takes the namespace ``xp`` of an array (the array API standard, through
array-api-compat) and calls the few functions below where the standard has no word for it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Hashable
from functools import cache
from typing import Any, TypeAlias, TypeVar

import array_api_compat
import numpy as np

from nearfar import _numpy
from nearfar._errors import BackendError, ShapeError

Array: TypeAlias = Any
Namespace: TypeAlias = Any
Carry = TypeVar("Carry")

# What each class is, found once; torch.compile reads a dict, but not functools.cache.
_TENSOR: dict[type, bool] = {}
_TRACED: dict[type, bool] = {}


class _Widest:
    """JAX's namespace, whose float64 and int64 are the widest types that the process allows (``jax_enable_x64``)."""

    def __init__(self, xp: Namespace) -> None:
        self._xp = xp

    def __getattr__(self, name: str) -> Any:
        if name in ("float64", "int64"):
            return self._xp.zeros((), float if name == "float64" else int).dtype.type
        return getattr(self._xp, name)

    def fold(self, count: int, body: Callable[[Any, Any], Any], carry: Any) -> Any:
        """A loop that is compiled once."""
        # The first turn is taken outside: it fills caches and gives the carry its lasting types.
        return importlib.import_module("jax").lax.fori_loop(1, count, body, body(0, carry))


def namespace(**arrays: Array) -> Namespace:
    """The array namespace shared by all arguments, which must be floating and of one dtype and device."""
    present = {name: a for name, a in arrays.items() if a is not None}
    if compiling():
        # The look-ups below cannot be read; nearfar.torch._compiled checks what it is given.
        import array_api_compat.torch as xp

        return xp
    quick = _quick_namespace(list(present.values()))
    if quick is not None:
        return quick
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
    if any(is_jax(a) for a in present.values()):
        xp = _Widest(xp)
    for name, a in present.items():
        if not _is_real_floating(xp, a):
            raise BackendError(
                f"expected {name} of a real floating dtype, got {a.dtype}; convert it first, for example to float32"
            )
    kinds_seen = {(str(a.dtype), str(_device(a))) for a in present.values()}
    if len(kinds_seen) > 1:
        facts = ", ".join(f"{name}: {a.dtype} on {_device(a)}" for name, a in present.items())
        raise BackendError(f"expected one dtype and one device, got {facts}; convert them first")
    return xp


def _quick_namespace(arrays: list[Array]) -> Namespace | None:
    """The namespace where nothing is to be said against the arrays; None leaves it to the checks."""
    first = arrays[0]
    numpy = type(first) is np.ndarray
    if not numpy and not is_torch(first):
        return None
    if not (first.dtype.kind == "f" and first.itemsize <= 8 if numpy else first.is_floating_point()):
        return None
    for other in arrays[1:]:
        if type(other) is not type(first) or other.dtype != first.dtype or other.device != first.device:
            return None
    return _numpy if numpy else array_api_compat.array_namespace(first)


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
    kind = type(a)
    if kind not in _TENSOR:
        _TENSOR[kind] = any(base.__module__ == "torch" and base.__name__ == "Tensor" for base in kind.__mro__)
    return _TENSOR[kind]


def compiling() -> bool:
    """Whether ``torch.compile`` reads this code instead of running it."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.compiler.is_dynamo_compiling())


def followed() -> bool:
    """Whether PyTorch looks on as the code runs: ``torch.compile`` or a transform of ``torch.func``."""
    torch = sys.modules.get("torch")
    return torch is not None and (torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active())


def is_jax(a: Array) -> bool:
    """Whether ``a`` is a JAX array or a tracer (JAX is not imported to find out)."""
    kind = type(a)
    if kind not in _TRACED:
        names = {base.__name__ for base in kind.__mro__ if base.__module__.startswith("jax")}
        _TRACED[kind] = not names.isdisjoint(("ArrayImpl", "Tracer"))
    return _TRACED[kind]


def _device(a: Array) -> Any:
    """The device of an array; None under JAX, which places arrays itself and whose tracers lie nowhere."""
    return None if is_jax(a) else array_api_compat.device(a)


def compute_dtype(xp: Namespace, a: Array) -> Any:
    """Float64 stays float64; everything narrower is computed in float32."""
    return xp.float64 if a.dtype == xp.float64 else xp.float32


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
        return xp.asarray(values, device=_device(like))
    if _device(values) != _device(like):
        raise BackendError(f"expected {name} on {_device(like)}, got {_device(values)}; move it first")
    return xp.astype(values, xp.int64)


def as_like(xp: Namespace, values: Any, like: Array, dtype: Any) -> Array:
    """Host values or an array as an array of the library, device and ``dtype`` given."""
    if type(like) is np.ndarray:
        values = _on_numpy(values)
    if compiling():
        return xp.asarray(values, dtype=dtype, device=like.device)
    if array_api_compat.is_array_api_obj(values) and not array_api_compat.is_numpy_array(values):
        return xp.astype(values, dtype, copy=False)
    return xp.astype(xp.asarray(np.asarray(values), device=_device(like)), dtype)


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
    return xp.arange(n, dtype=xp.int64, device=_device(like))


def zeros(xp: Namespace, shape: tuple[int, ...], like: Array, dtype: Any = None) -> Array:
    """Zeros on the device of ``like``, in its dtype unless another is given."""
    if is_torch(like):
        return like.new_zeros(shape, dtype=dtype or like.dtype)
    if type(like) is np.ndarray:
        return np.zeros(shape, dtype or like.dtype)
    return xp.zeros(shape, dtype=dtype or like.dtype, device=_device(like))


def where(xp: Namespace, condition: Array, a: Array, otherwise: float) -> Array:
    """``a`` where the condition holds, else a number."""
    if is_torch(a) and a.is_floating_point():
        return a.where(condition, otherwise)
    if type(a) is np.ndarray and a.dtype.kind == "f":
        return np.where(condition, a, otherwise)
    return xp.where(condition, a, xp.asarray(otherwise, dtype=a.dtype, device=_device(a)))


def row_max(xp: Namespace, z: Array) -> Array:
    """Largest entry of each row as a column; 0 for a row without a finite or larger entry than −inf."""
    if z.shape[-1] == 0:
        return zeros(xp, (*z.shape[:-1], 1), z)
    if is_torch(z):
        top = z.amax(-1, keepdim=True)
        return top.masked_fill_(top == -float("inf"), 0.0)
    if type(z) is np.ndarray:
        top = np.maximum.reduce(z, -1, keepdims=True)
        top[top == -float("inf")] = 0.0
        return top
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
    return xp.exp(z) if is_jax(z) else xp.exp(z, out=z)


def at_least(xp: Namespace, a: Array, least: float) -> Array:
    """``max(a, least)``; NaN stays."""
    if is_torch(a):
        return a.clamp(min=least)
    return np.maximum(a, least) if type(a) is np.ndarray else xp.clip(a, min=least)


def relu(xp: Namespace, z: Array) -> Array:
    """``max(z, 0)``; NaN stays; ``z`` is overwritten."""
    if is_torch(z):
        return z.clamp_(min=0)
    if type(z) is np.ndarray:
        return np.maximum(z, 0, out=z)
    return xp.clip(z, min=0)


def subtract(xp: Namespace, a: Array, b: Array, into: Array | None) -> Array:
    """``a − b``, in the place of ``into`` where that fits and the library allows."""
    if into is None or is_jax(into) or into.shape != b.shape:
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
    if type(z) is np.ndarray:
        return _softplus(z)
    return where(xp, ~(z < 0), z, 0.0) + xp.log1p(xp.exp(-xp.abs(z)))


def _softplus(z: Array) -> Array:
    """NumPy's ``log1p`` is slow: log(1 + e) and what the sum lost of e."""
    small = np.abs(z)
    np.negative(small, out=small)
    np.exp(small, out=small)
    whole = small + 1
    lost = whole - 1
    lost -= small
    lost /= whole
    np.log(whole, out=whole)
    whole -= lost
    whole += np.maximum(z, 0)
    return whole


def sigmoid(xp: Namespace, z: Array) -> Array:
    """``1 / (1 + exp(−z))`` without overflow."""
    if is_torch(z):
        return z.sigmoid()
    if type(z) is np.ndarray:
        z = np.exp(-z)  # ∞ where it overflows, whose share is 0
        z += 1
        return np.reciprocal(z, out=z)
    small = xp.exp(-xp.abs(z))
    return xp.where(z < 0, small, xp.ones_like(small)) / (1 + small)


def power_of_two(xp: Namespace, a: Array) -> Array:
    """A power of two close to each positive entry, whose reciprocal is a normal number; 1 for 0 and what is not finite.

    A compiler may turn a quotient into a product with the reciprocal, and flush one that is subnormal to 0.
    """
    mantissa = (xp.frexp if hasattr(xp, "frexp") else np.frexp)(a)[0]
    power = xp.clip(a / (2 * where(xp, mantissa != 0, mantissa, 1.0)), max=1 / limits(xp, a.dtype)[0])
    return xp.where((a > 0) & (a < float("inf")), power, xp.ones_like(a))


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


def add_column(a: Array, k: Any, values: Array) -> Array:
    """``a[:, k] += values``; ``a`` is changed where the library allows."""
    if is_jax(a):
        return a.at[:, k].add(values)
    a[:, k] += values
    return a


def fold(xp: Namespace, count: int, body: Callable[[Any, Carry], Carry], carry: Carry) -> Carry:
    """``carry = body(k, carry)`` for k = 0 … count − 1; compiled, with a tracer for k, where the library does that."""
    if isinstance(xp, _Widest) and count > 2:
        return xp.fold(count, body, carry)  # type: ignore[no-any-return]
    for k in range(count):
        carry = body(k, carry)
    return carry


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


def quiet() -> np.errstate:
    """NumPy without warnings: infinities and NaN are carried on purpose and end in the value."""
    return np.errstate(all="ignore")


def integers_on_host(a: Array) -> list[int]:
    """The entries of a 1-D integer array as Python numbers."""
    return list(a.tolist())


def limits(xp: Namespace, dtype: Any) -> tuple[float, float, float]:
    """The smallest normal and the largest number of a dtype, and the distance from 1 to the next."""
    return _limits(xp.finfo, dtype)


@cache
def _limits(finfo: Any, dtype: Hashable) -> tuple[float, float, float]:
    info = finfo(dtype)
    return float(info.smallest_normal), float(info.max), float(info.eps)


def extremes(xp: Namespace, a: Array) -> tuple[float, float]:
    """The smallest and the largest entry."""
    if is_torch(a):
        least, most = a.aminmax()
        return float(least), float(most)
    return float(xp.min(a)), float(xp.max(a))


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
    return a.T.contiguous() if is_torch(a) else xp.asarray(a.T, copy=True) if is_jax(a) else a.T.copy()


def on_host(a: Array) -> bool:
    """Whether looking at a value costs no wait for a device."""
    if is_torch(a):
        return bool(a.is_cpu)
    if isinstance(a, np.ndarray | np.generic):
        return True
    return not is_jax(a) and str(array_api_compat.device(a)) == "cpu"


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
    np.add.at(a, index, values)
    return a


def tally(xp: Namespace, place: Array, weight: Array, count: int) -> Array:
    """Sum of the weights at each place 0 … count − 1, in float64; the same bits at every run."""
    place, weight = xp.reshape(place, (-1,)), xp.astype(xp.reshape(weight, (-1,)), xp.float64)
    if array_api_compat.is_numpy_array(place):
        return np.bincount(place, weight, count)
    return add_rows(zeros(xp, (count,), weight), place, weight)
