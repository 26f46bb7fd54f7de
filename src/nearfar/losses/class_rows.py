"""Class weights as the references of a table: which row belongs to which class."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nearfar._arrays import Array, Namespace, arange, expect_matrix, integers, namespace
from nearfar._errors import InputError, ShapeError
from nearfar.losses.base import PairLoss
from nearfar.relations import Labels, Relation, Rows


def class_rows(
    self: PairLoss,
    embeddings: Array,
    labels: Any,
    references: Array | None,
    reference_labels: Any,
    class_weights: Array | None,
    ignore_label: int | str | None,
) -> tuple[Array | None, Relation | Rows]:
    """References and relation of a loss with class weights: class c has the rows c · k … c · k + k − 1.

    k is the loss's ``per_class``, 1 where it has none. To be the ``_table`` of a loss.
    """
    if class_weights is None:
        return PairLoss._table(self, embeddings, labels, references, reference_labels, None, ignore_label)
    xp = namespace(embeddings=embeddings, class_weights=class_weights)
    own = class_labels(xp, labels, embeddings, ignore_label)
    relation = classes_of(xp, own, references, class_weights, ignore_label)
    per_class = getattr(self, "per_class", 1)
    if per_class == 1:
        return class_weights, relation
    if class_weights.shape[0] % per_class:
        raise ShapeError(
            f"expected class_weights with {per_class} rows a class, got {class_weights.shape[0]} rows; "
            "give as many to each class, those of one class together"
        )
    return class_weights, replace(relation, reference_labels=relation.reference_labels // per_class)


def class_labels(xp: Namespace, labels: Any, embeddings: Array, ignore_label: int | str | None) -> Array:
    """Labels that name rows of class weights, so that words are refused."""
    words: dict[Any, int] = {}
    own = integers(xp, labels, "labels", embeddings, words)
    if words or isinstance(ignore_label, str):
        raise InputError("expected integer labels with class_weights, got strings; number the classes, c is row c")
    return own


def classes_of(
    xp: Namespace, labels: Any, references: Array | None, class_weights: Array, ignore_label: int | str | None
) -> Labels:
    """The relation of items to class weights: label c is row c."""
    if references is not None:
        raise InputError("expected references or class_weights, got both; class c is row c of class_weights")
    expect_matrix("class_weights", class_weights)
    return Labels(labels, arange(xp, class_weights.shape[0], class_weights), ignore_label, ignore_references=False)


def by_class(xp: Namespace, z: Array, per_class: int) -> Array:
    """A strip with the rows of each class on an axis of their own; shape (anchors, classes, per class)."""
    return xp.reshape(z, (z.shape[0], z.shape[1] // per_class, per_class))


__all__ = ["by_class", "class_labels", "class_rows", "classes_of"]
