"""Which library an array is of, and what can be asked of it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Hashable
from functools import cache
from typing import Any, TypeAlias

import array_api_compat
import numpy as np

from nearfar import _numpy
from nearfar._errors import BackendError, ShapeError

Array: TypeAlias = Any
Namespace: TypeAlias = Any

# What each class is, found once; torch.compile reads a dict, but not functools.cache.
_TENSOR: dict[type, bool] = {}
_TRACED: dict[type, bool] = {}


class Widest:
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
    first = next(iter(arrays.items()))
    quick = None if first[1] is None else _quick_namespace(list(present.values()))
    if quick is not None:
        return quick
    for name, a in {**dict([first]), **present}.items():
        if not array_api_compat.is_array_api_obj(a):
            raise BackendError(
                f"expected {name} to be an array of NumPy, PyTorch or another array-API library, "
                f"got {type(a).__name__}; convert it first, for example with numpy.asarray"
            )
        if isinstance(a, np.ma.MaskedArray):
            raise BackendError(f"expected {name} without a mask, got a masked array; leave the masked items out")
        if is_torch(a) and not _is_plain(a):
            raise BackendError(
                f"expected {name} as a dense tensor with values, got layout {a.layout} on device {a.device}; "
                "convert it first, for example with .to_dense()"
            )
    try:
        xp = array_api_compat.array_namespace(*present.values())
    except TypeError as error:
        kinds = ", ".join(f"{name}: {type(a).__module__}.{type(a).__name__}" for name, a in present.items())
        raise BackendError(f"expected arrays of one library, got {kinds}; convert them first") from error
    if any(is_jax(a) for a in present.values()):
        xp = Widest(xp)
    for name, a in present.items():
        if not _is_real_floating(xp, a):
            raise BackendError(
                f"expected {name} of a real floating dtype, got {a.dtype}; convert it first, for example to float32"
            )
    kinds_seen = {(str(a.dtype), str(device_of(a))) for a in present.values()}
    if len(kinds_seen) > 1:
        facts = ", ".join(f"{name}: {a.dtype} on {device_of(a)}" for name, a in present.items())
        raise BackendError(f"expected one dtype and one device, got {facts}; convert them first")
    return xp


def _quick_namespace(arrays: list[Array]) -> Namespace | None:
    """The namespace where nothing is to be said against the arrays; None leaves it to the checks."""
    first = arrays[0]
    numpy = type(first) is np.ndarray
    if not numpy and not is_torch(first):
        return None
    if not (first.dtype.kind == "f" and first.itemsize <= 8 if numpy else _is_wide(first) and _is_plain(first)):
        return None
    for other in arrays[1:]:
        if type(other) is not type(first) or other.dtype != first.dtype or other.device != first.device:
            return None
    return _numpy if numpy else array_api_compat.array_namespace(first)


def _is_wide(tensor: Array) -> bool:
    """Whether it is of a floating dtype that numbers are worked with, not only stored in."""
    return bool(tensor.is_floating_point()) and tensor.element_size() > 1


def _is_plain(tensor: Array) -> bool:
    return not tensor.is_meta and tensor.layout is sys.modules["torch"].strided


def _is_real_floating(xp: Namespace, a: Array) -> bool:
    if is_torch(a):
        return _is_wide(a)
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


def device_of(a: Array) -> Any:
    """The device of an array; None under JAX, which places arrays itself and whose tracers lie nowhere."""
    return None if is_jax(a) else array_api_compat.device(a)


def on_host(a: Array) -> bool:
    """Whether looking at a value costs no wait for a device."""
    if is_torch(a):
        return bool(a.is_cpu)
    if isinstance(a, np.ndarray | np.generic):
        return True
    return not is_jax(a) and str(array_api_compat.device(a)) == "cpu"


def quiet() -> np.errstate:
    """NumPy without warnings: infinities and NaN are carried on purpose and end in the value."""
    return np.errstate(all="ignore")


def compute_dtype(xp: Namespace, a: Array) -> Any:
    """Float64 stays float64; everything narrower is computed in float32."""
    return xp.float64 if a.dtype == xp.float64 else xp.float32


def limits(xp: Namespace, dtype: Any) -> tuple[float, float, float]:
    """The smallest normal and the largest number of a dtype, and the distance from 1 to the next."""
    return _limits(xp.finfo, dtype)


@cache
def _limits(finfo: Any, dtype: Hashable) -> tuple[float, float, float]:
    info = finfo(dtype)
    return float(info.smallest_normal), float(info.max), float(info.eps)
