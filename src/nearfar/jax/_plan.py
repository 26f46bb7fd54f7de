"""What of a call is fixed while JAX traces it, and which arrays it brings."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

import jax
from nearfar._arrays import Array, Namespace
from nearfar._errors import InputError
from nearfar.engine import Given, Task
from nearfar.jax._axis import Axis, tracked
from nearfar.relations import Aligned, Labels, Mask, Rows

Marks: TypeAlias = "tuple[Array, Array]"
"""Labels of both sides, or the weights of all pairs as positives and as negatives."""


@dataclass(frozen=True)
class Plan:
    """The static part of a call, which compiled code is kept by.

    Attributes:
        loss: The loss; hashable.
        form: How the pairs are given: "labels", "weights" of the whole table, or "rows" of given pairs.
        is_self: Whether the batch is its own references.
        both: Whether the question is asked in both directions.
        height: Anchors in a strip; None chooses.
        longest: The most positives that an anchor can have; None where labels are traced.
        ignore: The label whose items take part in nothing.
        ignore_references: Whether that holds for references.
        axis: The mesh axis whose devices share the references.
        tracked: Whether JAX knows that the embeddings differ over the axis.
        equal: Whether all devices hold the same references.
        numbered: Whether labels are places in the device's batch.
        host: The kind of task that NumPy's engine has to run; None where this package does.
    """

    loss: Any
    form: str
    is_self: bool
    both: bool
    height: int | None
    longest: int | None = None
    ignore: int | None = None
    ignore_references: bool = True
    axis: Axis | None = None
    tracked: bool = False
    equal: bool = False
    numbered: bool = False
    host: type[Task] | None = None


def planned(task: Task, given: Given, height: int | None, axis: Axis | None) -> tuple[Plan, Marks]:
    """The plan of a call and its marks."""
    xp, relation, references = task.xp, task.relation, task.references
    if not isinstance(task.loss, Hashable):
        raise InputError(f"expected hashable hyper-parameters under JAX, got {task.loss!r}; use numbers and tuples")
    # A loss with passes of its own, or a task that counts the anchors first.
    own = type(task) is not Task or hasattr(task.loss, "passes")
    common: dict[str, Any] = {
        "axis": axis,
        "tracked": axis is not None and tracked(given.anchors, axis),
        "equal": given.equal,
        "both": task.both,
        "host": type(task) if own and not isinstance(relation, Rows) else None,
    }
    if isinstance(relation, Rows):
        marks = _weights_of_rows(xp, relation, task)
        return Plan(task.loss, "rows", references is None, height=None, **common), marks
    if isinstance(relation, Mask):
        if axis is not None:
            raise InputError("expected labels with group, got a Mask; gather the references and pass them")
        marks = relation.weights(xp, task.anchors, references)
        return Plan(task.loss, "weights", references is None, height=height, **common), marks
    if not isinstance(relation, Labels | Aligned):
        raise InputError(
            f"expected labels, Labels, Mask or Aligned under JAX, got {type(relation).__name__}; "
            "mark the pairs in a Mask"
        )
    own, other, ignore = relation.codes(xp, task.anchors, references)
    plan = Plan(
        task.loss,
        "labels",
        references is None,
        height=height,
        longest=_longest(task, relation, given, axis),
        ignore=None if ignore is None else int(ignore),
        ignore_references=getattr(relation, "ignore_references", True),
        numbered=given.numbered or isinstance(relation, Aligned),
        **common,
    )
    return plan, (own, other)


def _weights_of_rows(xp: Namespace, relation: Rows, task: Task) -> Marks:
    like = task.anchors if task.references is None else task.references
    table = jax.eval_shape(lambda rows: rows if rows.ndim == 2 else rows[:, :, 0], like)
    return relation.weights(xp, xp.zeros(table.shape, table.dtype))


def _longest(task: Task, relation: Labels | Aligned, given: Given, axis: Axis | None) -> int | None:
    """The size of the largest class of references, where labels are there to be looked at."""
    if isinstance(relation, Aligned):
        return 1
    if given.equal:
        return int(getattr(task.loss, "per_class", 1))
    if axis is not None and not given.numbered:
        return None
    labels = relation.labels if relation.reference_labels is None else relation.reference_labels
    if isinstance(labels, jax.core.Tracer):
        return None
    values = np.asarray(labels)
    counts = np.unique(values if relation.ignore is None else values[values != relation.ignore], return_counts=True)[1]
    return int(counts.max(initial=0)) or None
