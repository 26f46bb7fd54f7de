"""Losses of features under JAX: one rule on whole batches, which gives value and gradients."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import jax
from nearfar._arrays import Array, namespace, narrow, working_copy
from nearfar.jax._call import once


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def apply(loss: Any, *views: Array) -> Array:
    """The loss as a value that JAX can transform."""
    return _run(loss, *views)[0]


def _forward(loss: Any, *views: Array) -> tuple[Array, Any]:
    value, gradients = _run(loss, *views)
    return value, once(gradients)


def _backward(loss: Any, gradients: Any, upstream: Array) -> tuple[Any, ...]:
    return tuple(g * upstream.astype(g.dtype) for g in gradients)


apply.defvjp(_forward, _backward)


@partial(jax.jit, static_argnums=0)
def _run(loss: Any, *views: Array) -> tuple[Array, tuple[Array, ...]]:
    def rule(*views: Array) -> tuple[Array, tuple[Array, ...]]:
        value, gradients = loss.value_and_grad(*views)
        return value, gradients if len(views) > 1 else (gradients,)

    with jax.default_matmul_precision("highest"):
        try:
            return rule(*views)
        except jax.errors.ConcretizationTypeError:
            # A rule that looks at values (which pairs are near) runs on NumPy.
            return _on_host(rule, *views)


def _on_host(rule: Any, *views: Array) -> tuple[Array, tuple[Array, ...]]:
    xp = namespace(views=views[0])
    copies = [working_copy(xp, view) for view in views]
    shape = jax.ShapeDtypeStruct
    shapes = shape((), copies[0].dtype), tuple(shape(copy.shape, copy.dtype) for copy in copies)
    value, gradients = jax.pure_callback(
        lambda *given: rule(*(np.asarray(a) for a in given)), shapes, *copies, vmap_method="sequential"
    )
    return narrow(value, views[0]), tuple(narrow(g, view) for g, view in zip(gradients, views, strict=True))
