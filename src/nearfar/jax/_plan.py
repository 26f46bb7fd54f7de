"""What of a call is fixed while JAX traces it, and which arrays it brings."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

import jax
from nearfar._arrays import Array, Namespace
from nearfar._errors import InputError
from nearfar.engine import Given, Task
from nearfar.jax._axis import Axis, tracked
from nearfar.jax._learned import taken
from nearfar.relations import Aligned, Guided, Labels, Mask, MultiLabels, Pairwise, Relation, Rows
from nearfar.relations.paired import Paired

Marks: TypeAlias = "tuple[Any, Any]"
"""By form: labels of both sides; the weights of all pairs as positives and as negatives; tags of both sides.

Of a guided relation (its own marks, the guide's embeddings of both sides).
"""


@dataclass(frozen=True)
class Plan:
    """The static part of a call, which compiled code is kept by.

    Attributes:
        loss: The loss; hashable.
        form: How the pairs are given: "labels", "weights" of the whole table, "tags" (several labels each), "paired"
            (queries and documents), or "rows" of given pairs.
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
        graded: Whether tags weigh by their overlap.
        paired: The relation of queries and documents.
        guided: Margin of a guide that takes negatives away, and whether it is relative.
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
    graded: bool = False
    paired: Paired | None = None
    guided: tuple[float, bool] | None = None


def planned(task: Task, given: Given, height: int | None, axis: Axis | None) -> tuple[Plan, Marks, dict[str, Array]]:
    """The plan of a call, its marks, and the loss's hyper-parameters that are arrays."""
    relation = task.relation
    loss, values = taken(task.loss, task.anchors, task.both)
    if not isinstance(loss, Hashable):
        raise InputError(f"expected hashable hyper-parameters under JAX, got {loss!r}; use numbers and tuples")
    # A loss with passes of its own, of which no strip here can say the same, or a task that counts the anchors first.
    own = type(task) is not Task or (
        hasattr(loss, "passes") and not (hasattr(loss, "counted") or hasattr(loss, "seen"))
    )
    plan = Plan(
        loss,
        "rows",
        task.references is None,
        task.both,
        None if isinstance(relation, Rows) else height,
        axis=axis,
        tracked=axis is not None and tracked(given.anchors, axis),
        equal=given.equal,
        host=type(task) if own and not isinstance(relation, Rows) else None,
    )
    if isinstance(relation, Rows):
        return plan, _weights_of_rows(task.xp, relation, task), values
    if hasattr(loss, "passes") and not hasattr(loss, "seen") and axis is not None:
        raise InputError(f"expected no group with {type(loss).__name__} under JAX, got one; gather the references")
    if isinstance(relation, Guided):
        guide, others = relation.guides(task.xp, task.anchors, task.references)
        plan, marks = _related(
            replace(plan, guided=(relation.margin, relation.relative)), task, given, relation.relation
        )
        return plan, (marks, (guide, others)), values
    return *_related(plan, task, given, relation), values


def _related(plan: Plan, task: Task, given: Given, relation: Relation) -> tuple[Plan, Marks]:
    """The plan with what a relation says, and its marks."""
    xp, anchors, references = task.xp, task.anchors, task.references
    plain = isinstance(relation, Labels | Aligned) and plan.guided is None
    if plan.axis is not None and not plain:
        name = type(relation).__name__ if plan.guided is None else "Guided"
        raise InputError(f"expected labels with group, got {name}; gather the references and pass them")
    if isinstance(relation, Labels | Aligned):
        own, other, ignore = relation.codes(xp, anchors, references)
        plan = replace(
            plan,
            form="labels",
            longest=_longest(task, relation, given, plan.axis),
            ignore=None if ignore is None else int(ignore),
            ignore_references=getattr(relation, "ignore_references", True),
            numbered=given.numbered or isinstance(relation, Aligned),
        )
        return plan, (own, other)
    if isinstance(relation, Mask):
        return replace(plan, form="weights"), relation.weights(xp, anchors, references)
    if isinstance(relation, Pairwise):
        bound = relation.bind(xp, anchors, references)
        with jax.ensure_compile_time_eval():  # The function may be NumPy's.
            rows, bound.columns = (xp.arange(n.shape[0]) for n in (bound.rows, bound.columns))
        return replace(plan, form="weights"), bound.of(rows)
    if isinstance(relation, MultiLabels):
        own, other = relation.both_tags(xp, anchors, references)
        return replace(plan, form="tags", graded=relation.graded), (own, other)
    if isinstance(relation, Paired):
        return replace(plan, form="paired", paired=relation), (None, None)
    raise InputError(
        f"expected Labels, Aligned, Mask, MultiLabels, Pairwise or Guided under JAX, got {type(relation).__name__}; "
        "mark the pairs in a Mask"
    )


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
