"""The array libraries that a loss is checked on, each a small adapter.

To add a library: write a class with the members of :class:`Library` and put one instance into :data:`LIBRARIES`.
Nothing else in nearfar names a library's adapter: the checks, the report and the table of cells follow.

No framework is imported before :meth:`Library.session` or an array is asked for.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np

from nearfar.testing.batches import Values
from nearfar.testing.keras import KerasJax, KerasTensorFlow, KerasTorch

Array: TypeAlias = Any
# A function of arrays to a scalar, and one to (scalar, gradients).
Value: TypeAlias = Callable[..., Array]
Both: TypeAlias = Callable[..., tuple[Array, tuple[Array, ...]]]


class Library(Protocol):
    """What the checks need of an array library.

    One whose arrays the losses do not take by themselves has a method ``form`` besides: the form that calls them. One
    that takes numbers below the smallest normal one as 0 has ``flushes = True`` besides.
    """

    name: ClassVar[str]
    # Dtypes it is checked in; each is one cell of the table.
    dtypes: ClassVar[tuple[str, ...]]
    # Variables that must be set before the library is imported; the table's processes set them.
    environment: ClassVar[Mapping[str, str]]
    # Whether every new shape costs a compilation, so that checks of many shapes are run in one dtype only.
    compiles: ClassVar[bool]

    def missing(self) -> str | None:
        """Why it cannot be used in this process; None where it can."""
        ...

    def session(self) -> AbstractContextManager[Any]:
        """Within it arrays can be made and losses called."""
        ...

    def array(self, values: Values, dtype: str) -> Array:
        """``values``, rounded to the dtype."""
        ...

    def plain(self, a: Array) -> Values:
        """An array of the library as NumPy float64."""
        ...

    def value_and_grad(self, value: Value, both: Both, arrays: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        """Value and gradients by the library's own differentiation of ``value``; by ``both`` where it has none."""
        ...

    def layouts(self, values: Values) -> Mapping[str, Array]:
        """The same float64 values laid out in memory in other ways."""
        ...

    def other_defaults(self) -> AbstractContextManager[Any]:
        """Within it arrays made without a dtype and device get others than those of the cell."""
        ...

    def state(self) -> bytes:
        """Of its global random numbers."""
        ...


class NumPy:
    """NumPy; gradients by the loss's own ``value_and_grad``."""

    name: ClassVar[str] = "numpy"
    dtypes: ClassVar[tuple[str, ...]] = ("float64", "float32", "float16")
    environment: ClassVar[Mapping[str, str]] = {}
    compiles: ClassVar[bool] = False

    def missing(self) -> str | None:
        """Never."""
        return None

    def session(self) -> AbstractContextManager[Any]:
        """Nothing to prepare."""
        return nullcontext()

    def array(self, values: Values, dtype: str) -> Array:
        """Rounded; beyond the largest number it is infinite."""
        return np.array(values, dtype=np.float64).astype(dtype)

    def plain(self, a: Array) -> Values:
        """As float64."""
        return np.asarray(a, dtype=np.float64)

    def value_and_grad(self, value: Value, both: Both, arrays: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        """The loss's own."""
        return both(*arrays)

    def layouts(self, values: Values) -> Mapping[str, Array]:
        """Strides of both signs, both orders, both byte orders, memory that may not be written."""
        wide = np.zeros(tuple(2 * n for n in values.shape))
        every_other = tuple(slice(None, None, 2) for _ in values.shape)
        wide[every_other] = values
        kept = values.copy()
        kept.flags.writeable = False
        return {
            "strided": wide[every_other],
            "transposed": np.ascontiguousarray(values.T).T,
            "Fortran order": np.asfortranarray(values),
            "reversed": values[::-1].copy()[::-1],
            "big-endian": values.astype(">f8"),
            "read-only": kept,
        }

    def other_defaults(self) -> AbstractContextManager[Any]:
        """NumPy has none."""
        return nullcontext()

    def state(self) -> bytes:
        """Of the legacy generator."""
        return pickle.dumps(np.random.get_state())  # noqa: NPY002


class Torch:
    """PyTorch on the CPU; gradients by autograd."""

    name: ClassVar[str] = "torch"
    dtypes: ClassVar[tuple[str, ...]] = ("float64", "float32", "bfloat16", "float16")
    environment: ClassVar[Mapping[str, str]] = {}
    compiles: ClassVar[bool] = False

    def missing(self) -> str | None:
        """Unless it is installed."""
        return _absent("torch")

    def session(self) -> AbstractContextManager[Any]:
        """Nothing to prepare."""
        return nullcontext()

    def array(self, values: Values, dtype: str) -> Array:
        """Rounded; beyond the largest number it is infinite."""
        import torch

        wide = torch.tensor(np.asarray(values, dtype=np.float64), device="cpu", dtype=torch.float64)
        return wide.to(getattr(torch, dtype))

    def plain(self, a: Array) -> Values:
        """Off the graph, as float64."""
        import torch

        return np.asarray(a.detach().to(torch.float64).numpy())

    def value_and_grad(self, value: Value, both: Both, arrays: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        """By a backward pass."""
        import torch

        leaves = [a.detach().clone().requires_grad_() for a in arrays]
        out = value(*leaves)
        # Without it autograd makes one on the default device.
        out.backward(torch.ones(out.shape, dtype=out.dtype, device=out.device))
        return out.detach(), tuple(leaf.new_zeros(leaf.shape) if leaf.grad is None else leaf.grad for leaf in leaves)

    def layouts(self, values: Values) -> Mapping[str, Array]:
        """Strided and transposed."""
        import torch

        wide = torch.zeros([2 * n for n in values.shape], dtype=torch.float64)
        every_other = tuple(slice(None, None, 2) for _ in values.shape)
        wide[every_other] = torch.tensor(values)
        return {"strided": wide[every_other], "transposed": torch.tensor(values.T.copy()).T}

    @contextmanager
    def other_defaults(self) -> Iterator[None]:
        """A device that holds no values, and a narrow dtype."""
        import torch

        device, dtype = torch.get_default_device(), torch.get_default_dtype()
        torch.set_default_device("meta")
        torch.set_default_dtype(torch.float16)
        try:
            yield
        finally:
            torch.set_default_device(None if device == torch.device("cpu") else device)
            torch.set_default_dtype(dtype)

    def state(self) -> bytes:
        """Of the CPU's generator."""
        import torch

        return torch.get_rng_state().numpy().tobytes()


class Jax:
    """JAX; gradients by ``jax.value_and_grad``, float64 switched on for the session only."""

    name: ClassVar[str] = "jax"
    dtypes: ClassVar[tuple[str, ...]] = ("float64", "float32", "bfloat16", "float16")
    environment: ClassVar[Mapping[str, str]] = {}
    compiles: ClassVar[bool] = True
    flushes: ClassVar[bool] = True

    def missing(self) -> str | None:
        """Unless it and nearfar's binding are installed."""
        return _absent("jax") or _absent("nearfar.jax")

    def session(self) -> AbstractContextManager[Any]:
        """With float64."""
        import jax

        context: AbstractContextManager[Any] = jax.enable_x64(True)
        return context

    def array(self, values: Values, dtype: str) -> Array:
        """Rounded; beyond the largest number it is infinite."""
        import jax.numpy as jnp

        return jnp.asarray(np.asarray(values, dtype=np.float64)).astype(dtype)

    def plain(self, a: Array) -> Values:
        """As float64."""
        return np.asarray(a, dtype=np.float64)

    def value_and_grad(self, value: Value, both: Both, arrays: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        """By JAX."""
        import jax

        out, gradients = jax.value_and_grad(value, argnums=tuple(range(len(arrays))))(*arrays)
        return out, tuple(gradients)

    def layouts(self, values: Values) -> Mapping[str, Array]:
        """JAX has one."""
        return {}

    def other_defaults(self) -> AbstractContextManager[Any]:
        """JAX's default dtype follows the session."""
        return nullcontext()

    def state(self) -> bytes:
        """JAX has no global generator."""
        return b""


LIBRARIES: dict[str, Library] = {
    library.name: library for library in (NumPy(), Torch(), Jax(), KerasTensorFlow(), KerasJax(), KerasTorch())
}
# In the order of the table's columns; a library is checked in those it has.
DTYPES = ("float64", "float32", "bfloat16", "float16")


def _absent(module: str) -> str | None:
    return None if find_spec(module) else f"{module} is not installed"
