"""Losses that bring passes of their own over the table: NumPy's engine runs them, and JAX calls it."""

from __future__ import annotations

from typing import Any

import numpy as np

import jax
from nearfar._arrays import Array, Namespace, namespace
from nearfar._errors import InputError
from nearfar.jax._plan import Marks, Plan
from nearfar.relations import Labels, Mask


def run_on_host(
    xp: Namespace, plan: Plan, x: Array, y: Array | None, marks: Marks, gradient: bool, upstream: Array | None
) -> tuple[Array, Array, Any, Any]:
    """Value, each anchor's loss and the gradients; ``x`` and ``y`` are working copies."""
    if plan.axis is not None:
        raise InputError(f"expected no group with {type(plan.loss).__name__} under JAX, got one; gather the references")

    def call(x: Any, y: Any, marks: Any, upstream: Any) -> tuple[Any, ...]:
        x, y, marks, upstream = jax.tree.map(np.asarray, (x, y, marks, upstream))
        relation: Any = Mask(*marks)
        if plan.form == "labels":
            own, other = marks
            relation = Labels(own, None if y is None else other, plan.ignore, plan.ignore_references)
        task = plan.host(plan.loss, namespace(x=x), x, y, relation, plan.both)  # type: ignore[misc]
        outcome = task.run(plan.height, gradient, upstream)
        value = np.asarray(outcome.value, x.dtype)
        each = np.zeros(x.shape[:1], x.dtype) if gradient else np.asarray(outcome.per_anchor, x.dtype)
        return value, each, *outcome.gradients

    shape = jax.ShapeDtypeStruct
    sides = [None if not gradient or rows is None else shape(rows.shape, rows.dtype) for rows in (x, y)]
    shapes = (shape((), x.dtype), shape(x.shape[:1], x.dtype), *sides)
    return jax.pure_callback(call, shapes, x, y, marks, upstream, vmap_method="sequential")  # type: ignore[no-any-return]
