"""Losses of features under JAX: one rule on whole batches, which gives value and gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import jax
from jax import lax
from nearfar._arrays import Array, Namespace, arange, namespace, narrow, working_copy
from nearfar.engine.moments import with_values
from nearfar.engine.strips import tall
from nearfar.jax._call import once
from nearfar.jax._learned import taken
from nearfar.jax._measures import table
from nearfar.measures import Measure
from nearfar.measures.base import Prepared


def apply(loss: Any, *views: Array) -> Array:
    """The loss as a value that JAX can transform."""
    return _value(taken(loss, views[0], True)[0], *views)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _value(loss: Any, *views: Array) -> Array:
    return _run(loss, *views)[0]


def _forward(loss: Any, *views: Array) -> tuple[Array, Any]:
    value, gradients = _run(loss, *views)
    return value, once(gradients)


def _backward(loss: Any, gradients: Any, upstream: Array) -> tuple[Any, ...]:
    return tuple(g * upstream.astype(g.dtype) for g in gradients)


_value.defvjp(_forward, _backward)


def both(loss: Any, *views: Array) -> tuple[Array, tuple[Array, ...]]:
    """Value and gradients."""
    value, gradients = _run(taken(loss, views[0], True)[0], *views)
    return value, once(gradients)


@partial(jax.jit, static_argnums=0)
def _run(loss: Any, *views: Array) -> tuple[Array, tuple[Array, ...]]:
    rule = with_values(loss, {"by_strips": by_strips})
    xp = namespace(views=views[0])
    with jax.default_matmul_precision("highest"):
        try:
            value, gradients = rule._run(xp, views)
        except jax.errors.ConcretizationTypeError:
            # A rule that looks at values runs on NumPy.
            value, gradients = _on_host(loss, [working_copy(xp, view) for view in views])
    zero = [xp.zeros_like(view) if g is None else narrow(g, view) for g, view in zip(gradients, views, strict=True)]
    return narrow(value, views[0]), tuple(zero)


def by_strips(
    xp: Namespace, measure: Measure, side: Prepared, body: Callable[[Array, Array], tuple[Array, ...]]
) -> tuple[Array, ...]:
    """As :func:`nearfar.losses.features.by_strips`, as one loop."""
    count = int(side.rows.shape[0])
    height = max(min(tall(count), count), 1)
    blocks = -(-count // height)

    def step(places: Array) -> tuple[Array, ...]:
        # The last strip is filled up with the last row.
        at = xp.clip(places, max=count - 1)
        live = xp.ones(at.shape, bool), xp.ones((count,), bool)
        return body(table(xp, measure, side.at(at), side, at, live)[0], at)

    outs = lax.map(step, xp.reshape(arange(xp, blocks * height, side.rows), (blocks, height)))
    return tuple(xp.reshape(out, (blocks * height, *out.shape[2:]))[:count] for out in outs)


def _on_host(loss: Any, views: list[Array]) -> Any:
    shape = jax.ShapeDtypeStruct
    shapes = shape((), views[0].dtype), tuple(shape(view.shape, view.dtype) for view in views)

    def call(*given: Any) -> tuple[Any, tuple[Any, ...]]:
        value, gradients = loss.value_and_grad(*(np.asarray(a) for a in given))
        return value, gradients if len(given) > 1 else (gradients,)

    return jax.pure_callback(call, shapes, *views, vmap_method="sequential")
