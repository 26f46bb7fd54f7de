"""What the call forms accept: labels or a relation, views, batches whose rows belong together."""

from __future__ import annotations

from typing import Any

from nearfar._arrays import (
    Array,
    Namespace,
    arange,
    as_like,
    compiling,
    expect_matrix,
    extremes,
    followed,
    namespace,
    on_host,
)
from nearfar._errors import InputError, ShapeError
from nearfar.engine import Given
from nearfar.relations import Labels, Relation, Rows
from nearfar.relations.labels import expect_classes, ignored


def relation_of(labels: Any, reference_labels: Any, ignore: int | str | None) -> Relation:
    """The caller's relation, or the one that labels make."""
    if hasattr(labels, "bind") and hasattr(labels, "kept"):
        if reference_labels is not None or ignore is not None:
            raise InputError(
                f"expected labels beside reference_labels or ignore_label, got {type(labels).__name__}; "
                "say both in the relation"
            )
        return labels  # type: ignore[no-any-return]
    return Labels(labels, reference_labels, ignore)


def checked(loss: Any, given: Given, group: Any) -> Given:
    """What a call is given, whose labels are rows of its class weights unless those lie on other ranks too."""
    if given.equal and given.references is not None and getattr(group, "class_weights", "equal") == "equal":
        relation: Any = given.relation
        classes = given.references.shape[0] // getattr(loss, "per_class", 1)
        ignore: Any = ignored(relation.ignore)  # No string, beside labels that are numbers.
        expect_classes(namespace(embeddings=given.anchors), relation.labels, classes, ignore)
    return given


def stack_views(views: tuple[Array, ...]) -> tuple[Array, Labels]:
    """All views as one batch, and which rows are the same item."""
    if len(views) < 2:
        raise ShapeError(f"expected at least two views, got {len(views)}; pass loss.views(z1, z2)")
    xp = _namespace_of_all(**{f"view {k}": view for k, view in enumerate(views, 1)})
    if any(tuple(view.shape) != tuple(views[0].shape) for view in views[1:]):
        raise ShapeError(
            f"expected views of one shape, got {[tuple(view.shape) for view in views]}; align them row by row"
        )
    expect_matrix("each view", views[0])
    items = views[0].shape[0]
    # A list would tie a compiled program to this number of items.
    places = xp.concat([arange(xp, items, views[0])] * len(views)) if compiling() else list(range(items)) * len(views)
    return xp.concat(views, axis=0), Labels(places)


def _namespace_of_all(**batches: Array) -> Namespace:
    """Of arrays none of which may be left out."""
    missing = [name for name, batch in batches.items() if batch is None]
    return namespace(**{missing[0]: None} if missing else batches)


def expect_alike(**batches: Array) -> Namespace:
    """Check batches whose rows belong together one by one; returns their namespace."""
    xp = _namespace_of_all(**batches)
    (first, anchor), *others = batches.items()
    expect_matrix(first, anchor)
    for name, other in others:
        if tuple(other.shape) != tuple(anchor.shape):
            raise ShapeError(
                f"expected {name} of shape {tuple(anchor.shape)} like {first}, got {tuple(other.shape)}; "
                "row i of each belongs together"
            )
    return xp


def given_pairs(left: Array, right: Array, same: Any) -> Given:
    """Pairs of rows and a 0/1 answer to each."""
    expect_alike(left=left, right=right)
    return Given(left, right[:, None, :], answers(left, same))


def given_measures(name: str, measures: Array, same: Any) -> Given:
    """Measures of pairs and a 0/1 answer to each."""
    namespace(**{name: measures})
    if measures.ndim != 1:
        raise ShapeError(f"expected {name} of shape (pairs,), got {tuple(measures.shape)}; flatten it first")
    return Given(measures[:, None], None, answers(measures, same))


def answers(batch: Array, same: Any) -> Rows:
    """0/1 answers as the relation of given pairs."""
    xp = namespace(batch=batch)
    given = as_like(xp, same, batch, xp.float64 if batch.dtype == xp.float64 else xp.float32)
    if tuple(given.shape) != (batch.shape[0],):
        raise ShapeError(
            f"expected same of shape ({batch.shape[0]},), got {tuple(given.shape)}; give one 0/1 label a pair"
        )
    if given.shape[0] and on_host(given) and not followed():
        least, most = extremes(xp, given)
        if not (least >= 0 and most <= 1):
            got = least if not least >= 0 else most
            raise InputError(f"expected same of 0 and 1, got {got:g}; 1 says the same, 0 another, as in same == 1")
    return Rows(given[:, None], 1 - given[:, None])
