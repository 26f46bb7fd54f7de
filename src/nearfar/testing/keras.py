"""Keras's backends as array libraries: a loss is called as :class:`nearfar.keras.Loss` calls it.

KERAS_BACKEND says which of them is here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields
from functools import partial
from importlib.util import find_spec
from typing import Any, ClassVar, TypeAlias

import numpy as np

from nearfar.testing.batches import Values

Array: TypeAlias = Any


class _Keras:
    """Keras on one of its backends, which is chosen once a process."""

    backend: ClassVar[str]
    dtypes: ClassVar[tuple[str, ...]] = ("float64", "float32", "bfloat16", "float16")
    compiles: ClassVar[bool] = False

    def missing(self) -> str | None:
        """Unless it is installed and the process's backend."""
        for module in ("keras", self.backend):
            if find_spec(module) is None:
                return f"{module} is not installed"
        if os.environ.get("KERAS_BACKEND") != self.backend:
            return f"KERAS_BACKEND is not {self.backend}"
        return None

    def session(self) -> AbstractContextManager[Any]:
        """With float64 on JAX."""
        if self.backend != "jax":
            return nullcontext()
        import jax

        context: AbstractContextManager[Any] = jax.enable_x64(True)
        return context

    def array(self, values: Values, dtype: str) -> Array:
        """Rounded by NumPy, since TensorFlow's own casts take the smallest numbers as 0."""
        import keras
        import ml_dtypes

        rounded = np.array(values, dtype=np.float64).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        return keras.ops.convert_to_tensor(rounded)

    def plain(self, a: Array) -> Values:
        """As float64."""
        import keras

        host = a.numpy() if self.backend == "tensorflow" else keras.ops.convert_to_numpy(a)
        return np.asarray(host).astype(np.float64)

    def layouts(self, values: Values) -> Mapping[str, Array]:
        """Keras has one."""
        return {}

    @contextmanager
    def other_defaults(self) -> Iterator[None]:
        """Within it Keras makes tensors in float16."""
        import keras

        before = keras.config.floatx()
        keras.config.set_floatx("float16")
        try:
            yield
        finally:
            keras.config.set_floatx(before)

    def state(self) -> bytes:
        """Keras's own generators are drawn by layers only."""
        return b""


class KerasTensorFlow(_Keras):
    """Eager; gradients by a tape. Losses do not take its tensors, so each call goes the way of the backend."""

    backend: ClassVar[str] = "tensorflow"
    name: ClassVar[str] = "keras-tensorflow"
    environment: ClassVar[Mapping[str, str]] = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}

    def form(self, form: Any) -> Any:
        """The form with its calls on the host."""
        library = self

        class OnBackend(type(form)):  # type: ignore[misc]
            def value(self, loss: Any, batch: Any, *arrays: Array, **options: Any) -> Array:
                import tensorflow as tf

                from nearfar.keras.loss import on_backend

                call = partial(super().value, loss, batch, **options)
                if not all(map(tf.is_tensor, arrays)):
                    return call(*arrays)  # What is no tensor is for the loss to take or to refuse.
                return on_backend(lambda _, *a: call(*a), None, *arrays)

            def both(self, loss: Any, batch: Any, *arrays: Array, **options: Any) -> Any:
                return library.value_and_grad(partial(self.value, loss, batch, **options), None, arrays)

        return OnBackend(**{field.name: getattr(form, field.name) for field in fields(form)})

    def value_and_grad(self, value: Any, both: Any, arrays: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        """By a tape."""
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(arrays)
            out = value(*arrays)
        return out, tuple(tape.gradient(out, list(arrays)))


class KerasJax(_Keras):
    """Gradients by ``jax.value_and_grad``."""

    backend: ClassVar[str] = "jax"
    name: ClassVar[str] = "keras-jax"
    environment: ClassVar[Mapping[str, str]] = {"KERAS_BACKEND": "jax"}
    compiles: ClassVar[bool] = True
    flushes: ClassVar[bool] = True

    def value_and_grad(self, value: Any, both: Any, arrays: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        """By JAX."""
        import jax

        out, gradients = jax.value_and_grad(value, argnums=tuple(range(len(arrays))))(*arrays)
        return out, tuple(gradients)


class KerasTorch(_Keras):
    """Gradients by autograd."""

    backend: ClassVar[str] = "torch"
    name: ClassVar[str] = "keras-torch"
    environment: ClassVar[Mapping[str, str]] = {"KERAS_BACKEND": "torch"}

    def value_and_grad(self, value: Any, both: Any, arrays: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        """By a backward pass."""
        leaves = [a.detach().clone().requires_grad_() for a in arrays]
        out = value(*leaves)
        out.backward()
        return out.detach(), tuple(leaf.new_zeros(leaf.shape) if leaf.grad is None else leaf.grad for leaf in leaves)


__all__ = ["KerasJax", "KerasTensorFlow", "KerasTorch"]
