"""The binding to JAX's transformations: the engine computes value and gradient, ``custom_vjp`` passes them on."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeAlias

import jax
from nearfar._arrays import Array
from nearfar._errors import InputError
from nearfar.engine import Given, Outcome, Task
from nearfar.jax._axis import Axis
from nearfar.jax._engine import run
from nearfar.jax._plan import Marks, Plan, planned

Values: TypeAlias = "dict[str, Array]"
"""Hyper-parameters that are arrays."""


@jax.custom_vjp
def once(gradients: Any) -> Any:
    """Gradients that cannot be differentiated, which is refused and never silently 0."""
    return gradients


def _refuse(_: None, upstream: Any) -> Any:
    raise InputError(
        "expected one derivative of a loss, got a derivative of its gradient; "
        "put jax.lax.stop_gradient around the gradient, or leave the loss out of the penalty"
    )


once.defvjp(lambda gradients: (gradients, None), _refuse)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _value(plan: Plan, anchors: Array, references: Array | None, values: Values, marks: Marks) -> Array:
    return run(plan, anchors, references, marks, False, values).value


def _value_forward(
    plan: Plan, anchors: Array, references: Array | None, values: Values, marks: Marks
) -> tuple[Array, Any]:
    if plan.axis is not None and not plan.tracked:
        # JAX would divide the gradient by the number of devices if it is taken outside shard_map, and not inside.
        raise InputError(
            f"expected embeddings that JAX knows to differ over the axis {plan.axis!r}, got ones it does not track; "
            "leave shard_map's check_vma=True, or call loss.value_and_grad inside"
        )
    result = run(plan, anchors, references, marks, True, values)
    return result.value, once(result.gradients)


def _value_backward(plan: Plan, gradients: Any, upstream: Array) -> tuple[Any, ...]:
    return *jax.tree.map(lambda g: g * upstream.astype(g.dtype), gradients), None


_value.defvjp(_value_forward, _value_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _per_anchor(plan: Plan, anchors: Array, references: Array | None, values: Values, marks: Marks) -> Array:
    return run(plan, anchors, references, marks, False, values).per_anchor


def _per_anchor_forward(
    plan: Plan, anchors: Array, references: Array | None, values: Values, marks: Marks
) -> tuple[Array, Any]:
    given = anchors, references, values, marks
    return _per_anchor(plan, *given), given


def _per_anchor_backward(plan: Plan, given: Any, upstream: Array) -> tuple[Any, ...]:
    """The gradient needs the upstream of each anchor, so the table is run again."""
    wide = upstream.astype("float64" if upstream.dtype == "float64" else "float32")
    anchors, references, values, marks = given
    return *once(run(plan, anchors, references, marks, True, values, wide).gradients), None


_per_anchor.defvjp(_per_anchor_forward, _per_anchor_backward)


def apply(given: Given, task: Task, height: int | None, axis: Axis | None, per_anchor: bool) -> Array:
    """The loss (or each anchor's loss) as a value that JAX can transform."""
    plan, marks, values = planned(task, given, height, axis)
    return (_per_anchor if per_anchor else _value)(plan, given.anchors, given.references, values, marks)


def outcome_of(given: Given, task: Task, height: int | None, axis: Axis | None) -> Outcome:
    """Value and gradients."""
    plan, marks, values = planned(task, given, height, axis)
    result = run(plan, given.anchors, given.references, marks, True, values)
    return Outcome(result.value, None, once(result.gradients[:2]))
